//! Reconciles of a Build on a real Postgres, against an API server that says what the test wants: what the watch
//! knows and what is true may differ.

pub mod api_server;
mod changes;

use std::sync::Arc;

use image_factory::controllers::build::{Controlled, SETTLED, deleted, reconcile, watched::Guarded};
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::mpsc;

use self::api_server::ApiServer;

const BUILD: &str = "/apis/imagefactory.dev/v1alpha1/namespaces/orchard/builds/cider";
const NAMESPACE: &str = "/api/v1/namespaces/orchard";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/orchard/events";

struct Fixture {
    server: ApiServer,
    controlled: Arc<Controlled>,
    pool: PgPool,
}

impl Fixture {
    fn new(pool: &PgPool) -> Self {
        let server = ApiServer::default();
        server.holds(NAMESPACE, Some(namespace("uid-orchard", "baseline")));
        let context = server.context(pool);
        let controlled = Arc::new(Controlled::new(context));
        Self { server, controlled, pool: pool.clone() }
    }

    /// Reconciles what the watch knows, while the API server holds the same.
    async fn applied(&self, build: &Value) {
        self.server.holds(BUILD, Some(build.clone()));
        self.seen(build).await;
    }

    /// Reconciles what the watch knows, and once more where a run was queued: then its status is written.
    async fn seen(&self, build: &Value) -> Action {
        let build: Guarded = serde_json::from_value(build.clone()).expect("even what is no Build has metadata");
        let build = Arc::new(build);
        let again = reconcile(build.clone(), self.controlled.clone()).await.expect("it is reconciled");
        if again != Action::requeue(SETTLED) {
            return again;
        }
        reconcile(build, self.controlled.clone()).await.expect("it is reconciled")
    }

    async fn rows(&self) -> Vec<Value> {
        sqlx::query_scalar(
            "select to_jsonb(b) || jsonb_build_object('tenant', t.uid, 'spec', c.spec, 'reason', r.failure_reason)
             from builds b join tenants t on t.id = b.tenant_id join build_configs c on c.build_id = b.id
             left join build_results r on r.build_id = b.id
             order by b.run",
        )
        .fetch_all(&self.pool)
        .await
        .expect("builds can be read")
    }

    async fn statuses(&self) -> Vec<String> {
        self.rows().await.iter().map(|row| row["status"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn failures(&self, part: &str) -> bool {
        let text = self.controlled.context.metrics.text().expect("metrics are text");
        text.contains(&format!("image_factory_failures_total{{part=\"{part}\"}} "))
    }
}

fn namespace(uid: &str, level: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "orchard", "uid": uid, "labels": {"pod-security.kubernetes.io/enforce": level}},
    })
}

/// A Build of method container, with these fields of the spec beside or instead of its own.
fn build(generation: i64, fields: &Value) -> Value {
    let mut build = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": "cider", "namespace": "orchard", "uid": "uid-cider", "generation": generation},
        "spec": {
            "method": "container",
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
            "output": {"image": "registry.test/orchard/cider:1"},
        },
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        build["spec"][name] = value.clone();
    }
    build
}

fn rerun(mut build: Value, value: &str) -> Value {
    build["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": value});
    build
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cancel_that_only_the_watch_still_knows_stops_nothing(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&build(1, &json!({}))).await;
    fixture.server.holds(BUILD, Some(build(3, &json!({}))));
    fixture.seen(&build(2, &json!({"cancel": true}))).await;
    assert_eq!(fixture.statuses().await, ["queued"]);
    fixture.applied(&build(4, &json!({"cancel": true}))).await;
    assert_eq!(fixture.statuses().await, ["cancelled"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_run_is_made_of_the_build_and_the_namespace_as_they_are_now(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.server.holds(NAMESPACE, Some(namespace("uid-orchard-replanted", "privileged")));
    fixture.server.holds(BUILD, Some(build(2, &json!({"method": "buildx", "timeout": "6m"}))));
    fixture.seen(&build(1, &json!({}))).await;
    let rows = fixture.rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["status"], &rows[0]["tenant"]), (&json!("queued"), &json!("uid-orchard-replanted")));
    assert_eq!((&rows[0]["spec"]["method"], &rows[0]["observed_generation"]), (&json!("buildx"), &json!(2)));
    assert_eq!(fixture.server.status(BUILD)["observedGeneration"], 2);

    fixture.server.holds(NAMESPACE, Some(namespace("uid-orchard-replanted", "baseline")));
    fixture.applied(&build(3, &json!({"method": "buildx", "target": "release"}))).await;
    assert_eq!(fixture.rows().await[1]["reason"], "PodSecurity");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_that_is_gone_or_another_makes_no_run(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.seen(&build(1, &json!({}))).await;
    let mut another = build(1, &json!({}));
    another["metadata"]["uid"] = json!("uid-perry");
    fixture.server.holds(BUILD, Some(another));
    fixture.seen(&build(1, &json!({}))).await;
    fixture.server.holds(BUILD, Some(build(1, &json!({}))));
    fixture.server.holds(NAMESPACE, None);
    fixture.seen(&build(1, &json!({}))).await;
    assert_eq!(fixture.statuses().await, [""; 0]);
}

#[sqlx::test(migrations = "./migrations")]
async fn what_is_known_already_costs_the_api_server_nothing(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&build(1, &json!({}))).await;
    let told = fixture.server.object(BUILD);
    let before = fixture.server.requests();
    assert_eq!(before, [format!("GET {NAMESPACE}"), format!("GET {BUILD}"), format!("PATCH {BUILD}/status")]);
    fixture.seen(&told).await;
    assert_eq!(fixture.server.requests(), before);
}

#[sqlx::test(migrations = "./migrations")]
async fn text_that_postgres_can_not_hold_is_a_refused_run_that_names_its_field(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let in_spec = build(1, &json!({"method": "packer", "packer": {"template": "source\0 {}"}}));
    let in_annotation = rerun(build(2, &json!({})), "mon\0day");
    for (build, run, field) in
        [(in_spec, 1, "spec.packer.template"), (in_annotation, 2, "the annotation imagefactory.dev/rerun")]
    {
        fixture.applied(&build).await;
        fixture.applied(&build).await;
        let rows = fixture.rows().await;
        assert_eq!(rows.len(), run, "the second time nothing is new");
        let row = &rows[run - 1];
        assert_eq!((&row["status"], &row["reason"]), (&json!("failed"), &json!("InvalidSpec")));
        assert_eq!(row["error_message"], format!("{field} has a NUL character; remove it"));
    }
    let rows = fixture.rows().await;
    assert_eq!(rows[0]["spec"]["packer"]["template"], "source\u{fffd} {}");
    assert_eq!(rows[1]["observed_rerun"], "mon\u{fffd}day");
    fixture.applied(&build(3, &json!({"target": "release"}))).await;
    assert_eq!(fixture.statuses().await, ["failed", "failed", "queued"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_rerun_that_was_taken_away_and_put_back_is_no_run(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&rerun(build(1, &json!({})), "monday")).await;
    fixture.applied(&build(2, &json!({"target": "release"}))).await;
    assert_eq!(fixture.rows().await.len(), 2);
    let back = build(2, &json!({"target": "release"}));
    fixture.applied(&rerun(back.clone(), "monday")).await;
    assert_eq!(fixture.rows().await.len(), 2);
    fixture.applied(&rerun(back, "tuesday")).await;
    assert_eq!(fixture.rows().await.len(), 3);
}

#[sqlx::test(migrations = "./migrations")]
async fn an_event_that_is_refused_is_counted_and_fails_no_reconcile(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.server.refuses(EVENTS);
    fixture.applied(&build(1, &json!({"method": "packer", "packer": {"template": "source {}"}}))).await;
    assert_eq!(fixture.server.status(BUILD)["phase"], "Failed");
    assert!(fixture.server.requests().contains(&format!("POST {EVENTS}")));
    assert!(fixture.failures("events"));
}

#[sqlx::test(migrations = "./migrations")]
async fn what_can_not_be_read_as_a_build_says_so_in_an_event(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    assert_eq!(fixture.seen(&build(1, &json!({"method": "alchemy"}))).await, Action::await_change());
    let event = fixture.server.object(EVENTS);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Unreadable")));
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&json!("Build"), &json!("cider")));
    assert!(event["note"].as_str().is_some_and(|note| note.contains("alchemy")), "{event:#}");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_deletion_outlasts_a_database_that_is_away(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&build(1, &json!({}))).await;
    let (gone, deletions) = mpsc::unbounded_channel();
    let cancelling = deleted::cancel(&fixture.controlled.context, gone.clone(), deletions);
    let outage = async {
        sqlx::query("alter table builds rename to away").execute(&pool).await?;
        gone.send("uid-cider".to_owned()).expect("it is received");
        until(async || fixture.failures("build").then_some(())).await;
        sqlx::query("alter table away rename to builds").execute(&pool).await?;
        until(async || (fixture.statuses().await == ["cancelled"]).then_some(())).await;
        Ok::<_, sqlx::Error>(())
    };
    tokio::select! {
        () = cancelling => unreachable!("it cancels for ever"),
        done = outage => done.expect("the table can be renamed"),
    }
    assert_eq!(fixture.rows().await[0]["cancel_reason"], "Deleted");
}

async fn until(mut reached: impl AsyncFnMut() -> Option<()>) {
    let asked_again = async {
        while reached().await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asked_again).await.expect("it is reached in time");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_that_waits_goes_by_its_new_priority_and_placement_without_a_new_run(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&build(1, &json!({}))).await;
    fixture.applied(&build(2, &json!({"priority": 7, "worker": {"zone": "hill"}, "timeout": "9m"}))).await;
    let rows = fixture.rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["priority"], &rows[0]["placement"], &rows[0]["spec"]["timeout"]),
        (&json!(7), &json!({"zone": "hill"}), &json!("540s"))
    );
    // An operator whose API server is behind.
    fixture.applied(&build(1, &json!({}))).await;
    assert_eq!(fixture.rows().await[0]["priority"], 7);
}

/// An operator that was paused comes to with rows that it read long ago.
#[sqlx::test(migrations = "./migrations")]
async fn a_status_is_not_written_over_what_another_operator_has_written_meanwhile(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let version = |version: &str| {
        let mut build = build(1, &json!({}));
        build["metadata"]["resourceVersion"] = json!(version);
        build
    };
    fixture.applied(&version("1")).await;
    let told = fixture.server.status(BUILD);
    assert_eq!(told["phase"], "Queued");
    // The other's status is newer, and this one's watch has not shown it yet.
    let mut newer = version("2");
    newer["status"] = json!({"phase": "Success"});
    fixture.server.holds(BUILD, None);
    fixture.server.holds(BUILD, Some(newer));
    let action = fixture.seen(&version("1")).await;
    assert_eq!(fixture.server.status(BUILD)["phase"], "Success");
    assert_eq!(action, Action::requeue(std::time::Duration::from_millis(500)), "it is looked at again");
    fixture.seen(&version("2")).await;
    assert_eq!(fixture.server.status(BUILD)["phase"], "Queued", "now by all that there is");
}
