//! Making a run: all its rows or none, once whoever tries, numbered without a gap.

use image_factory::db::{
    builds::{enqueue, newest, request_cancel, request_cancel_of},
    queue::claim,
};
use image_factory_core::{reason::Reason, status::Status};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{attempt, broken_histories, finish, history, limits, next_run, queued, results, row, success};

#[sqlx::test(migrations = "./migrations")]
async fn many_that_queue_at_once_get_numbers_without_a_gap_and_no_run_is_made_twice(pool: PgPool) -> sqlx::Result<()> {
    let mut tasks = JoinSet::new();
    for name in 0..20 {
        // Two operators see the same Build.
        for _ in 0..2 {
            let pool = pool.clone();
            tasks.spawn(async move { enqueue(&pool, &attempt("green", &format!("wall-{name}"))).await });
        }
    }
    let made: Vec<_> = tasks.join_all().await.into_iter().map(|made| made.expect("no error")).collect();
    assert_eq!(made.iter().flatten().count(), 20, "each run is made by one of the two");
    let numbers: Vec<i32> =
        sqlx::query_scalar("select build_number from builds order by build_number").fetch_all(&pool).await?;
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    for table in [
        "select count(*) from build_configs",
        "select count(*) from build_triggers",
        "select count(*) from build_status_history",
    ] {
        let rows: i64 = sqlx::query_scalar(table).fetch_one(&pool).await?;
        assert_eq!(rows, 20, "{table}");
    }
    let counted: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from tenants), (select count(*) from projects), (select count(*) from images)",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(counted, (1, 1, 20));
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_second_try_changes_nothing_and_a_failed_one_leaves_nothing(pool: PgPool) -> sqlx::Result<()> {
    let new = attempt("green", "wall");
    let id = queued(&pool, &new).await;
    let before = row(&pool, id).await;
    let other = image_factory::db::builds::NewAttempt { priority: 7, inputs_hash: "v1:red".to_owned(), ..new };
    assert_eq!(enqueue(&pool, &other).await.expect("no error"), None);
    assert_eq!(row(&pool, id).await, before);

    let mut wrong = attempt("amber", "door");
    wrong.priority = 1_000_000;
    let error = enqueue(&pool, &wrong).await.expect_err("the priority is out of range");
    assert!(error.breaks("builds_priority_check"), "{error}");
    let left: i64 = sqlx::query_scalar("select count(*) from tenants where name = 'amber'").fetch_one(&pool).await?;
    assert_eq!(left, 0);

    let next: i32 = sqlx::query_scalar("select next_build_number from projects").fetch_one(&pool).await?;
    assert_eq!(next, 2, "no number is lost");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_refused_run_is_failed_with_its_result_from_the_first(pool: PgPool) -> sqlx::Result<()> {
    let mut new = attempt("green", "wall");
    new.refused = Some((Reason::PodSecurity, "the namespace forbids it".to_owned()));
    let id = queued(&pool, &new).await;
    assert_eq!(history(&pool, id).await, "queued → failed");
    assert_eq!(results(&pool, id).await, [("failed".to_owned(), Some("PodSecurity".to_owned()))]);
    let row = row(&pool, id).await;
    assert_eq!(row["error_message"], "the namespace forbids it");
    assert_ne!(row["cleanup_at"], Value::Null, "there is nothing to clean");
    limits(&pool, 10, 10).await;
    assert_eq!(claim(&pool).await.expect("no error"), Vec::<Uuid>::new());
    let newest = newest(&pool, &new.resource.uid).await.expect("no error").expect("it has a row");
    assert_eq!((newest.status, newest.failure_reason.as_deref()), (Status::Failed, Some("PodSecurity")));
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_new_run_takes_the_place_of_one_that_waits_at_once(pool: PgPool) -> sqlx::Result<()> {
    let first = attempt("green", "wall");
    let old = queued(&pool, &first).await;
    let bystander = queued(&pool, &attempt("green", "door")).await;
    let new = queued(&pool, &next_run(&first)).await;
    assert_eq!(history(&pool, old).await, "queued → cancelled");
    assert_eq!(results(&pool, old).await, [("cancelled".to_owned(), Some("Superseded".to_owned()))]);
    assert_eq!((history(&pool, new).await, history(&pool, bystander).await), ("queued".into(), "queued".into()));
    let newest = newest(&pool, &first.resource.uid).await.expect("no error").expect("it has rows");
    assert_eq!((newest.id, newest.run), (new, 2));
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_new_run_waits_for_the_one_that_runs_and_asks_it_to_stop(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    let first = attempt("green", "wall");
    let old = queued(&pool, &first).await;
    assert_eq!(claim(&pool).await.expect("no error"), [old]);
    let new = queued(&pool, &next_run(&first)).await;
    let marked = row(&pool, old).await;
    assert_eq!((&marked["status"], &marked["cancel_reason"]), (&"in_progress".into(), &"Superseded".into()));
    assert_eq!(claim(&pool).await.expect("no error"), Vec::<Uuid>::new(), "two runs of a Build never run at once");
    let waiting = newest(&pool, &first.resource.uid).await.expect("no error").and_then(|newest| newest.queue);
    assert_eq!(waiting.map(|place| place.waiting_for).as_deref(), Some("PreviousRun"));
    assert!(finish(&pool, old, &success("registry.test/green/wall:1")).await, "it had been confirmed after all");
    assert_eq!(claim(&pool).await.expect("no error"), [new]);
    assert_eq!(history(&pool, old).await, "queued → in_progress → success");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn cancelling_ends_what_waits_and_marks_what_runs_once(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    let running = queued(&pool, &attempt("green", "wall")).await;
    claim(&pool).await.expect("no error");
    let waiting = queued(&pool, &attempt("green", "door")).await;
    let cancel = async |uid: &str, reason| request_cancel(&pool, uid, reason, "on request").await.expect("no error");

    assert_eq!(cancel("uid-green-door", Reason::Cancelled).await, 1);
    assert_eq!(history(&pool, waiting).await, "queued → cancelled");
    assert_eq!(results(&pool, waiting).await, [("cancelled".to_owned(), Some("Cancelled".to_owned()))]);

    assert_eq!(cancel("uid-green-wall", Reason::Deleted).await, 1);
    let marked = row(&pool, running).await;
    assert_eq!((&marked["status"], &marked["cancel_reason"]), (&"in_progress".into(), &"Deleted".into()));
    assert_eq!(cancel("uid-green-wall", Reason::Cancelled).await, 0, "the first reason stays");
    assert_eq!(row(&pool, running).await, marked);
    assert_eq!(cancel("uid-green-door", Reason::Deleted).await, 0, "what has ended has ended");
    assert_eq!(cancel("uid-nobody", Reason::Deleted).await, 0);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn what_an_older_generation_cancels_is_not_what_a_newer_one_asks_for(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut asked = attempt("green", "wall");
    asked.resource.generation = 3;
    let id = queued(&pool, &asked).await;
    let cancel = async |generation| request_cancel_of(&pool, "uid-green-wall", generation).await.expect("no error");
    assert_eq!(cancel(2).await, 0, "read by an operator that was paused since");
    assert_eq!(history(&pool, id).await, "queued");
    assert_eq!(cancel(3).await, 1);
    assert_eq!(history(&pool, id).await, "queued → cancelled");
}
