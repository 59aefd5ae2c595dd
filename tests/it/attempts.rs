//! Attempts as the controller would make them, and what tests ask about them afterwards.

use std::time::Duration;

use image_factory::db::{
    builds::{NewAttempt, NewConfig, Resource, Trigger, enqueue},
    policies::Policy,
    results::{self, End, Measured},
    settings, workers,
};
use image_factory_core::{
    inspection::{ImageFacts, Inspection, LayerFacts, ManifestKind},
    method::Method,
    outcome::{Failure, Outcome},
    reason::Reason,
    status::Status,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// The first attempt of run 1 of a Build `name` of a tenant. The UID follows from both.
pub fn attempt(tenant: &str, name: &str) -> NewAttempt {
    NewAttempt {
        tenant_uid: format!("uid-{tenant}"),
        resource: Resource {
            namespace: tenant.to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{tenant}-{name}"),
            generation: 1,
        },
        project: "paint".to_owned(),
        repository: format!("registry.test/{tenant}/{name}"),
        tag: "1".to_owned(),
        run: 1,
        attempt: 1,
        inputs_hash: "v1:blue".to_owned(),
        observed_rerun: None,
        priority: 0,
        placement: None,
        config: NewConfig {
            method: Method::Container,
            dockerfile: Some("FROM scratch".to_owned()),
            context: Some(".".to_owned()),
            cache_enabled: true,
            cache_repo: None,
            metadata: json!({}),
            platforms: None,
            cache_from: None,
            cache_to: None,
            target: None,
            builder: None,
            buildpacks: None,
            packer_template: None,
            build_args: json!({}),
            environment: json!({}),
            secrets: json!([]),
            spec: json!({}),
        },
        trigger: Trigger { kind: "manual".to_owned(), source: "brush".to_owned(), user: None },
        origin: None,
        refused: None,
    }
}

/// The same Build's next run.
pub fn next_run(of: &NewAttempt) -> NewAttempt {
    NewAttempt { run: of.run + 1, inputs_hash: format!("v1:{}", of.run + 1), ..of.clone() }
}

pub async fn queued(pool: &PgPool, attempt: &NewAttempt) -> Uuid {
    enqueue(pool, attempt).await.expect("it can be queued").expect("it is new")
}

/// One worker for all and one limit for all tenants, as the operator declares them; and connections as it
/// has them, without which a claim takes a second.
pub async fn limits(pool: &PgPool, worker: i32, tenant: i32) {
    pool.set_connect_options((*pool.connect_options()).clone().options([("jit", "off")]));
    sqlx::query("set jit = off").execute(pool).await.expect("jit can be turned off");
    settings::declare(pool, tenant, None).await.expect("the default can be declared");
    workers::beat(pool, worker).await.expect("the worker can be declared");
}

/// The policy of a tenant, which limits nothing yet.
pub fn policy(tenant: &str) -> Policy {
    Policy { tenant_uid: format!("uid-{tenant}"), tenant_name: tenant.to_owned(), weight: 1, ..Policy::default() }
}

pub fn success(reference: &str) -> Outcome {
    let digest = format!("sha256:{}", "c".repeat(64));
    let image = ImageFacts {
        platform: "linux/amd64".to_owned(),
        manifest_digest: digest.clone(),
        config_digest: digest.clone(),
        layer_count: 1,
        layers: vec![LayerFacts { digest: digest.clone(), size_bytes: 7, ..LayerFacts::default() }],
        compressed_size_bytes: 7,
        ..ImageFacts::default()
    };
    let image = Inspection::new(
        reference.to_owned(),
        digest,
        "application/vnd.oci.image.manifest.v1+json".to_owned(),
        ManifestKind::Image,
        vec![image],
    );
    Outcome { status: Status::Success, exit_code: Some(0), failure: None, image: Some(image) }
}

pub fn failure(reason: Reason) -> Outcome {
    let status = if reason.is_cancellation() { Status::Cancelled } else { Status::Failed };
    let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message: "it dried out".to_owned() };
    Outcome { status, exit_code: None, failure: Some(failure), image: None }
}

/// Ends a running attempt; `false` where it had ended before.
pub async fn finish(pool: &PgPool, id: Uuid, outcome: &Outcome) -> bool {
    let measured = Measured { execution: Some(5), push: Some(2), ..Measured::default() };
    let end = End { measured, job_ttl: Some(Duration::from_mins(1)), ..End::of(outcome) };
    results::finish(pool, id, end).await.expect("it can be finished")
}

/// A build's row, whole.
pub async fn row(pool: &PgPool, id: Uuid) -> Value {
    let row = sqlx::query_scalar("select to_jsonb(b) from builds b where id = $1").bind(id).fetch_one(pool);
    row.await.expect("the build has a row")
}

/// Status and reason of its results, of which there is at most one.
pub async fn results(pool: &PgPool, id: Uuid) -> Vec<(String, Option<String>)> {
    let rows = sqlx::query_as("select status, failure_reason from build_results where build_id = $1");
    rows.bind(id).fetch_all(pool).await.expect("results can be read")
}

/// The way of a build, as `queued → in_progress → success`.
pub async fn history(pool: &PgPool, id: Uuid) -> String {
    let way: Vec<String> =
        sqlx::query_scalar("select to_status from build_status_history where build_id = $1 order by sequence")
            .bind(id)
            .fetch_all(pool)
            .await
            .expect("the history can be read");
    way.join(" → ")
}

/// What must hold of every build's history and result at any time; gives what does not.
pub async fn broken_histories(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "with ways as (
             select build_id, sequence, from_status, to_status, changed_at,
                    lag(to_status) over way as before, lag(changed_at) over way as earlier,
                    row_number() over way as place, lead(to_status) over way is null as is_last
             from build_status_history window way as (partition by build_id order by sequence)
         )
         select format('%s: sequence %s at place %s', build_id, sequence, place) from ways where sequence <> place
         union all
         select format('%s: %s after %s', build_id, from_status, before) from ways where from_status is distinct from before
         union all
         select format('%s: %s is earlier than what was before', build_id, to_status) from ways where changed_at < earlier
         union all
         select format('%s: is %s, and its history ends with %s', b.id, b.status, w.to_status)
         from builds b left join ways w on w.build_id = b.id and w.is_last where b.status is distinct from w.to_status
         union all
         select format('%s: is %s and has %s results', b.id, b.status, count(r.id))
         from builds b left join build_results r on r.build_id = b.id
         group by b.id having count(r.id) <> case when b.status in ('success', 'failed', 'cancelled') then 1 else 0 end",
    )
    .fetch_all(pool)
    .await
    .expect("histories can be read")
}
