//! The one writer of a build's status: what is not where it is said to be does not move, and an end is
//! written once, whoever comes first.

use std::num::NonZeroU16;

use image_factory::{
    config,
    db::{
        self,
        builds::{newest, request_cancel},
        launches,
        queue::claim,
        transitions::{self, Change},
    },
};
use image_factory_core::{reason::Reason, status::Status};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{attempt, broken_histories, failure, finish, history, limits, queued, results, row, success};

/// A build in this status, brought there the usual way.
async fn build_in(pool: &PgPool, status: Status) -> Uuid {
    let id = queued(pool, &attempt("green", &format!("wall-{status}"))).await;
    if status == Status::Queued {
        return id;
    }
    let claimed = claim(pool).await.expect("it can be claimed");
    assert!(claimed.contains(&id));
    let outcome = match status {
        Status::Queued | Status::InProgress => return id,
        Status::Success => success("registry.test/green/wall:1"),
        Status::Failed => failure(Reason::BuildFailed),
        Status::Cancelled => failure(Reason::Cancelled),
    };
    assert!(finish(pool, id, &outcome).await);
    id
}

#[sqlx::test(migrations = "./migrations")]
async fn what_is_not_where_a_transition_begins_does_not_move(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    for status in [Status::Success, Status::Failed, Status::Cancelled, Status::InProgress, Status::Queued] {
        let id = build_in(&pool, status).await;
        let (before, way) = (row(&pool, id).await, history(&pool, id).await);
        for from in Status::ALL.into_iter().filter(|from| *from != status) {
            for to in Status::ALL.into_iter().filter(|to| to.may_follow(Some(from))) {
                let change = Change { build: id, reason: "by mistake".to_owned(), ..Change::default() };
                let mut connection = pool.acquire().await?;
                let moved = transitions::apply(&mut connection, from, to, &[change]).await.expect("no error");
                assert_eq!(moved, Vec::<Uuid>::new(), "{from} → {to} of what is {status}");
            }
        }
        assert_eq!(row(&pool, id).await, before);
        assert_eq!(history(&pool, id).await, way);
    }
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_claim_is_undone_only_while_there_is_no_job(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    let id = build_in(&pool, Status::InProgress).await;
    let back = || [Change { build: id, reason: "no Job could be made".to_owned(), ..Change::default() }];
    let mut connection = pool.acquire().await?;
    let moved = transitions::apply(&mut connection, Status::InProgress, Status::Queued, &back()).await;
    assert_eq!(moved.expect("no error"), [id]);
    let row = row(&pool, id).await;
    assert_eq!((&row["worker_id"], &row["started_at"]), (&Value::Null, &Value::Null));

    drop(connection);
    assert_eq!(claim(&pool).await.expect("no error"), [id]);
    launches::jobs_created(&pool, &[id]).await.expect("no error");
    let mut connection = pool.acquire().await?;
    let moved = transitions::apply(&mut connection, Status::InProgress, Status::Queued, &back()).await;
    assert_eq!(moved.expect("no error"), Vec::<Uuid>::new());
    assert_eq!(history(&pool, id).await, "queued → in_progress → queued → in_progress");
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_put_back_into_the_queue_waits_and_holds_up_no_other(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 1, 1).await;
    let first = queued(&pool, &attempt("green", "wall")).await;
    let second = queued(&pool, &attempt("green", "door")).await;
    assert_eq!(claim(&pool).await.expect("no error"), [first]);
    let delay = std::time::Duration::from_hours(1);
    launches::put_back(&pool, first, "the quota is used up", delay).await.expect("no error");
    let newest = newest(&pool, "uid-green-wall").await.expect("no error").expect("it has a row");
    assert_eq!(newest.queue.map(|place| place.waiting_for).as_deref(), Some("BackingOff"));
    assert_eq!(claim(&pool).await.expect("no error"), [second]);
    assert_eq!(history(&pool, first).await, "queued → in_progress → queued");
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn of_many_that_finish_at_once_one_does(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    for round in 0..10 {
        let id = queued(&pool, &attempt("green", &format!("wall-{round}"))).await;
        claim(&pool).await.expect("it can be claimed");
        let mut tasks = JoinSet::new();
        for outcome in [
            success("registry.test/green/wall:1"),
            failure(Reason::BuildFailed),
            failure(Reason::Cancelled),
            success("registry.test/green/wall:1"),
        ] {
            let pool = pool.clone();
            tasks.spawn(async move { (finish(&pool, id, &outcome).await, outcome.status) });
        }
        let ended = tasks.join_all().await;
        let winners: Vec<Status> = ended.iter().filter(|(won, _)| *won).map(|(_, status)| *status).collect();
        let [winner] = winners.as_slice() else { unreachable!("one finishes it, not {winners:?}") };
        assert_eq!(results(&pool, id).await.len(), 1);
        assert_eq!(results(&pool, id).await[0].0, winner.as_str());
        assert_eq!(history(&pool, id).await, format!("queued → in_progress → {winner}"));
        let artifacts: i64 = sqlx::query_scalar("select count(*) from build_artifacts where build_id = $1")
            .bind(id)
            .fetch_one(&pool)
            .await?;
        assert_eq!(artifacts, i64::from(*winner == Status::Success), "an image only of a success");
    }
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn what_shall_stop_does_not_wait_again(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let id = build_in(&pool, Status::InProgress).await;
    let unlaunched = launches::unlaunched(&pool).await.expect("it can be read");
    // Between the dispatcher's look and the API server's refusal.
    let uid = row(&pool, id).await["resource_uid"].as_str().expect("text").to_owned();
    request_cancel(&pool, &uid, Reason::Deleted, "the Build was deleted").await.expect("it can be asked");
    launches::put_back(&pool, id, "a quota is full", std::time::Duration::ZERO).await.expect("no error");
    launches::put_back_stranded(&pool, &unlaunched).await.expect("no error");
    assert_eq!(history(&pool, id).await, "queued → in_progress", "whoever would launch it ends it");
}

#[sqlx::test(migrations = "./migrations")]
async fn an_end_is_written_whatever_its_words_hold(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let id = build_in(&pool, Status::InProgress).await;
    let mut outcome = failure(Reason::SourceNotFound);
    outcome.failure.as_mut().expect("it failed").message = "the server says: repository 'x\0y' not found".to_owned();
    assert!(finish(&pool, id, &outcome).await);
    assert_eq!(row(&pool, id).await["error_message"], "the server says: repository 'x\u{fffd}y' not found");
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

/// One connection to the test's database, as the operator has it.
fn operators(pool: &PgPool) -> PgPool {
    let url = sqlx::ConnectOptions::to_url_lossy(&*pool.connect_options()).to_string();
    db::pool(&config::Database { url, connections: NonZeroU16::MIN }).expect("an address")
}

/// What the planner was told last is that there is next to nothing, as in the minute after a burst.
#[sqlx::test(migrations = "./migrations")]
async fn a_table_that_has_grown_is_not_read_whole_for_a_transition_nor_by_the_checks_of_its_keys(pool: PgPool) {
    let operators = operators(&pool);
    limits(&pool, 10, 10).await;
    sqlx::raw_sql("analyze").execute(&pool).await.expect("it works");
    for name in 0..50 {
        queued(&operators, &attempt("green", &format!("wall-{name}"))).await;
    }
    let mut tx = operators.begin().await.expect("a transaction");
    let first: Uuid =
        sqlx::query_scalar("select id from builds order by id limit 1").fetch_one(&mut *tx).await.expect("one");
    let change = Change { build: first, reason: "it failed".to_owned(), ..Change::default() };
    let moved = transitions::apply(&mut tx, Status::Queued, Status::Failed, &[change]).await.expect("it works");
    assert_eq!(moved, [first]);
    let read_whole: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_stat_xact_user_tables
         where seq_scan > 0 and relname in ('builds', 'build_status_history')",
    )
    .fetch_all(&mut *tx)
    .await
    .expect("it works");
    assert_eq!(read_whole, Vec::<String>::new());
}

/// Planning for the values of each time takes longer than most statements do: what the queue's view costs to plan, a
/// status would cost at each look.
#[sqlx::test(migrations = "./migrations")]
async fn a_statement_is_planned_once_a_connection_and_not_for_each_of_its_values(pool: PgPool) {
    let operators = operators(&pool);
    for name in ["wall", "roof", "door"] {
        queued(&operators, &attempt("green", name)).await;
        newest(&operators, &format!("uid-green-{name}")).await.expect("it works");
    }
    let plans: Vec<(String, i64, i64)> =
        sqlx::query_as("select left(statement, 40), generic_plans, custom_plans from pg_prepared_statements")
            .fetch_all(&operators)
            .await
            .expect("it works");
    assert!(plans.iter().any(|(_, generic, _)| *generic > 1), "they were asked more than once: {plans:?}");
    let custom: Vec<_> = plans.iter().filter(|(_, _, custom)| *custom > 0).collect();
    assert!(custom.is_empty(), "{custom:?}");
}
