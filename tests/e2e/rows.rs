//! The rows of a build, whole and as JSON, so that a test names the columns it means. What must hold
//! for every build is checked wherever its rows are read: a legal history, a log without gaps.

use image_factory_core::status::Status;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// One row of each of these tables belongs to a build.
macro_rules! of_build {
    ($($name:ident)*) => {$(
        /// The row of this table that belongs to the build; null where there is none.
        pub async fn $name(pool: &PgPool, build: Uuid) -> Value {
            sqlx::query_scalar(concat!("select to_jsonb(r) from ", stringify!($name), " r where build_id = $1"))
                .bind(build)
                .fetch_optional(pool)
                .await
                .expect(concat!(stringify!($name), " can be read"))
                .unwrap_or_default()
        }
    )*};
}

of_build! { build_configs build_triggers build_results build_metrics }

/// Every attempt of the Build with this UID, oldest first, with the names of its tenant, project and
/// image beside the columns of `builds`.
pub async fn attempts(pool: &PgPool, resource_uid: &str) -> Vec<Value> {
    sqlx::query_scalar(
        "select to_jsonb(b) || jsonb_build_object('tenant', t.name, 'tenant_uid', t.uid, 'project', p.name,
             'repository', i.repository, 'tag', i.tag, 'worker', w.worker_name)
         from builds b
         join tenants t on t.id = b.tenant_id
         join projects p on p.id = b.project_id
         left join images i on i.id = b.image_id
         left join build_workers w on w.id = b.worker_id
         where b.resource_uid = $1 order by b.run, b.attempt",
    )
    .bind(resource_uid)
    .fetch_all(pool)
    .await
    .expect("builds can be read")
}

pub fn id(row: &Value) -> Uuid {
    row["id"].as_str().and_then(|text| text.parse().ok()).expect("a row has an id")
}

/// Name and tag of what the build's image is built on.
pub async fn base_image(pool: &PgPool, build: Uuid) -> (Option<String>, Option<String>) {
    sqlx::query_as("select base_image_name, base_image_tag from build_images where build_id = $1")
        .bind(build)
        .fetch_one(pool)
        .await
        .expect("the image is described")
}

pub async fn artifacts(pool: &PgPool, build: Uuid) -> Vec<Value> {
    sqlx::query_scalar("select to_jsonb(r) from build_artifacts r where build_id = $1 order by id")
        .bind(build)
        .fetch_all(pool)
        .await
        .expect("build_artifacts can be read")
}

/// The way of a build, as `queued → in_progress → success`.
pub async fn history(pool: &PgPool, build: Uuid) -> String {
    let rows: Vec<(i32, Option<String>, String, bool, bool)> = sqlx::query_as(
        "select sequence, from_status, to_status, changed_at >= coalesce(lag(changed_at) over (order by sequence), changed_at),
                coalesce(reason, '') <> ''
         from build_status_history where build_id = $1 order by sequence",
    )
    .bind(build)
    .fetch_all(pool)
    .await
    .expect("build_status_history can be read");
    let mut before = None;
    let mut way = Vec::new();
    for (expected, (sequence, from, to, in_time, has_reason)) in (1..).zip(rows) {
        assert_eq!(sequence, expected, "the history of {build} has no gap");
        let from: Option<Status> = from.map(|from| from.parse().expect("a status"));
        let to: Status = to.parse().expect("a status");
        assert_eq!(from, before, "each transition of {build} begins where the one before ended");
        assert!(to.may_follow(from), "{from:?} → {to} of {build} is legal");
        assert!(in_time, "transition {sequence} of {build} is not earlier than the one before");
        assert!(has_reason, "transition {sequence} of {build} says why");
        way.push(to.as_str());
        before = Some(to);
    }
    way.join(" → ")
}

/// The stored log, in the order of its line numbers, which have no gap.
pub async fn log(pool: &PgPool, build: Uuid) -> Vec<String> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("select line_number, log_content from build_logs where build_id = $1 order by line_number")
            .bind(build)
            .fetch_all(pool)
            .await
            .expect("build_logs can be read");
    for (expected, (number, _)) in (1..).zip(&rows) {
        assert_eq!(*number, expected, "the line numbers of {build} have no gap");
    }
    rows.into_iter().map(|(_, content)| content).collect()
}
