//! The Jobs of ended attempts go when their time is over: all that are due in one round, several at once, each only if
//! it is the attempt's own.

use image_factory::tasks::cleaner;
use image_factory_core::{ids, labels, reason::Reason};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{attempts, cluster::Cluster};

fn path(name: &str, id: Uuid) -> String {
    format!("/apis/batch/v1/namespaces/green/jobs/{}", ids::job_name(name, id))
}

/// A Job as the attempt `id` would have it, whose label names the attempt `label`.
fn job(name: &str, id: Uuid, label: Uuid) -> Value {
    let name = ids::job_name(name, id);
    let metadata = json!({"name": name, "namespace": "green", "uid": format!("uid-{name}"),
        "labels": {labels::BUILD_ID: label.to_string()}});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata})
}

/// Attempts that have ended, and whose Jobs are due.
async fn due(pool: &PgPool, cluster: &Cluster, count: i32) -> Vec<(String, Uuid)> {
    attempts::limits(pool, count, count).await;
    let mut due = Vec::new();
    for number in 1..=count {
        let name = format!("wall-{number}");
        let id = attempts::queued(pool, &attempts::attempt("green", &name)).await;
        cluster.has(&path(&name, id), &job(&name, id, id));
        due.push((name, id));
    }
    while !image_factory::db::queue::claim(pool).await.expect("they can be claimed").is_empty() {}
    for (_, id) in &due {
        assert!(attempts::finish(pool, *id, &attempts::failure(Reason::BuildFailed)).await);
    }
    sqlx::query("update builds set cleanup_due_at = now() - interval '1 second' where cleanup_due_at is not null")
        .execute(pool)
        .await
        .expect("rows can be changed");
    due
}

async fn statuses(pool: &PgPool) -> Vec<(String, bool, i64)> {
    sqlx::query_as(
        "select r.cleanup_status, b.cleanup_at is not null, count(*) from build_results r join builds b on b.id = r.build_id
         group by 1, 2 order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .expect("results can be read")
}

#[sqlx::test(migrations = "./migrations")]
async fn all_that_are_due_go_in_one_round_and_several_at_once(pool: PgPool) {
    let cluster = Cluster::default();
    let due = due(&pool, &cluster, 230).await;
    cleaner::clean(cluster.context(&pool).await).await.expect("it cleans");
    let left = due.iter().filter(|(name, id)| cluster.still_has(&path(name, *id))).count();
    assert_eq!(left, 0, "none is left for the next round");
    assert_eq!(statuses(&pool).await, [("completed".to_owned(), true, 230)]);
    let at_once = cluster.most_deletions();
    assert!((8..=16).contains(&at_once), "{at_once} at once");
}

#[sqlx::test(migrations = "./migrations")]
async fn another_attempts_job_stays_and_one_that_is_gone_is_cleaned(pool: PgPool) {
    let cluster = Cluster::default();
    let due = due(&pool, &cluster, 2).await;
    let [(other, id), (gone, gone_id)] = [&due[0], &due[1]];
    cluster.has(&path(other, *id), &job(other, *id, *gone_id));
    cluster.forget(&path(gone, *gone_id));
    cleaner::clean(cluster.context(&pool).await).await.expect("it cleans");
    assert!(cluster.still_has(&path(other, *id)));
    assert_eq!(statuses(&pool).await, [("completed".to_owned(), true, 2)]);
}
