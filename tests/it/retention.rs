//! How long what a build left behind is kept.

use std::time::Duration;

use image_factory::db::{
    builds::NewAttempt,
    queue::claim,
    results::{self, End},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::attempts::{attempt, limits, queued, success};

/// A successful build whose spec says how long its artifacts are kept.
async fn built(pool: &PgPool, name: &str, retention: Value) {
    let mut attempt: NewAttempt = attempt("green", name);
    attempt.config.spec = json!({"retention": retention});
    let id = queued(pool, &attempt).await;
    claim(pool).await.expect("it can be claimed");
    let outcome = success(&format!("registry.test/green/{name}:1"));
    let end = End { job_ttl: Some(Duration::ZERO), ..End::of(&outcome) };
    let ended = results::finish(pool, id, end).await;
    assert!(ended.expect("it can be finished"));
}

/// Policy, whole days from the build's end to the artifact's, and whether it is available; by name.
async fn artifacts(pool: &PgPool) -> sqlx::Result<Vec<(String, String, Option<i32>, bool)>> {
    sqlx::query_as(
        "select b.resource_name, a.retention_policy, (extract(epoch from a.expires_at - b.completed_at) / 86400)::int, a.is_available
         from build_artifacts a join builds b on b.id = a.build_id order by b.resource_name",
    )
    .fetch_all(pool)
    .await
}

#[sqlx::test(migrations = "./migrations")]
async fn an_artifact_is_kept_as_long_as_its_builds_spec_says_and_its_row_for_ever(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    built(&pool, "a", Value::Null).await;
    built(&pool, "b", json!({"artifacts": "permanent"})).await;
    built(&pool, "c", json!({"artifacts": "days_30"})).await;
    built(&pool, "d", json!({"artifacts": "days_90"})).await;
    built(&pool, "e", json!({"artifacts": "days_365"})).await;
    built(&pool, "f", json!({"artifacts": "delete_on_success"})).await;
    let row = |name: &str, policy: &str, days, available| (name.to_owned(), policy.to_owned(), days, available);
    let mut wanted = [
        row("a", "permanent", None, true),
        row("b", "permanent", None, true),
        row("c", "days_30", Some(30), true),
        row("d", "days_90", Some(90), true),
        row("e", "days_365", Some(365), true),
        row("f", "delete_on_success", Some(0), true),
    ];
    assert_eq!(artifacts(&pool).await?, wanted);

    assert_eq!(results::expire_artifacts(&pool, 100).await.expect("no error"), 1, "that of f");
    wanted[5].3 = false;
    assert_eq!(artifacts(&pool).await?, wanted);
    sqlx::query("update build_artifacts set expires_at = expires_at - interval '91 days'").execute(&pool).await?;
    assert_eq!(results::expire_artifacts(&pool, 1).await.expect("no error"), 1, "no more than asked for");
    assert_eq!(results::expire_artifacts(&pool, 100).await.expect("no error"), 1);
    assert_eq!(results::expire_artifacts(&pool, 100).await.expect("no error"), 0);
    let left: Vec<(String, bool)> = artifacts(&pool).await?.into_iter().map(|row| (row.0, row.3)).collect();
    assert_eq!(left, ["a", "b", "c", "d", "e", "f"].map(|name| (name.to_owned(), "abe".contains(name))));
    Ok(())
}
