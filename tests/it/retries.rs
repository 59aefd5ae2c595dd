//! A failed attempt that is followed by another: what the next one is made of, where it runs, and who stops it. The two
//! are one commit, so that whoever looks finds a run that has ended or one that goes on.

use std::time::Duration;

use image_factory::db::{
    builds::{self, NewAttempt},
    launches,
    queue::claim,
    results::{self, End},
};
use image_factory_core::{reason::Reason, status::Status};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{
    attempt, broken_histories, failure, finish, history, limits, next_run, queued, results, success,
};

/// Ends a running attempt, and queues the next one of its run; `false` where it had ended before.
async fn fails(pool: &PgPool, id: Uuid, reason: Reason, retry: Duration) -> bool {
    let outcome = failure(reason);
    let end = End { job_ttl: Some(Duration::from_mins(1)), retry: Some(retry), ..End::of(&outcome) };
    results::finish(pool, id, end).await.expect("it can be finished")
}

/// The attempts of all Builds as JSON, in their order, each with its trigger, configuration and result.
async fn attempts(pool: &PgPool) -> Vec<Value> {
    let rows = sqlx::query_scalar(
        "select to_jsonb(b) || jsonb_build_object('trigger', to_jsonb(t), 'config', to_jsonb(c) - array['id', 'build_id'],
             'result', to_jsonb(r), 'worker', w.worker_name)
         from builds b
         left join build_triggers t on t.build_id = b.id
         left join build_configs c on c.build_id = b.id
         left join build_results r on r.build_id = b.id
         left join build_workers w on w.id = b.worker_id
         order by b.run, b.attempt",
    );
    rows.fetch_all(pool).await.expect("builds can be read")
}

fn id(row: &Value) -> Uuid {
    row["id"].as_str().and_then(|id| id.parse().ok()).expect("a row has an id")
}

/// As if the backoff of every queued attempt were over.
async fn backoff_is_over(pool: &PgPool) {
    let waits = sqlx::query("update builds set not_before = now() - interval '1 second' where status = 'queued'");
    waits.execute(pool).await.expect("rows can be changed");
}

fn wall() -> NewAttempt {
    let mut wall = attempt("green", "wall");
    wall.priority = 3;
    wall.observed_rerun = Some("monday".to_owned());
    wall.trigger.user = Some("ada".to_owned());
    wall.config.spec = json!({"retries": {"limit": 2}});
    wall
}

#[sqlx::test(migrations = "./migrations")]
async fn the_next_attempt_is_the_same_run_with_a_number_trigger_and_result_of_its_own(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    assert!(fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await);
    assert!(!fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await, "once");
    assert_eq!(claim(&pool).await.expect("no error"), Vec::<Uuid>::new(), "it waits");
    backoff_is_over(&pool).await;
    let second = id(&attempts(&pool).await[1]);
    assert_eq!(claim(&pool).await.expect("no error"), [second]);
    assert!(fails(&pool, second, Reason::NodeLost, Duration::from_secs(30)).await);
    backoff_is_over(&pool).await;
    let third = id(&attempts(&pool).await[2]);
    assert_eq!(claim(&pool).await.expect("no error"), [third]);
    assert!(finish(&pool, third, &success("registry.test/green/wall:1")).await);

    let rows = attempts(&pool).await;
    assert_eq!(rows.len(), 3);
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!((&row["attempt"], &row["build_number"], &row["run"]), (&json!(number), &json!(number), &json!(1)));
        for column in [
            "tenant_id",
            "project_id",
            "image_id",
            "resource_namespace",
            "resource_name",
            "resource_uid",
            "inputs_hash",
            "observed_rerun",
            "observed_generation",
            "priority",
            "build_method",
            "placement",
            "triggered_by_user_id",
            "config",
        ] {
            assert_eq!(row[column], rows[0][column], "{column} of attempt {number}");
        }
        assert_eq!(row["trigger"]["trigger_type"], "manual");
        assert_eq!(row["trigger"]["created_by_user_id"], rows[0]["triggered_by_user_id"]);
        let result = &row["result"];
        let original = if number == 1 { Value::Null } else { json!(first) };
        assert_eq!(
            (&result["retry_count"], &result["is_retry"], &result["original_build_id"]),
            (&json!(number - 1), &json!(number > 1), &original)
        );
    }
    assert_eq!(rows[0]["trigger"]["trigger_source"], "brush");
    assert_eq!([&rows[1], &rows[2]].map(|row| row["trigger"]["trigger_source"].clone()), [json!(first), json!(first)]);
    assert_eq!(rows[2]["error_message"], Value::Null, "what came before is no fault of a success");
    assert_eq!(history(&pool, first).await, "queued → in_progress → failed");
    assert_eq!(history(&pool, third).await, "queued → in_progress → success");
    let next = wall().project;
    let number: i32 = sqlx::query_scalar("select next_build_number from projects where name = $1")
        .bind(next)
        .fetch_one(&pool)
        .await
        .expect("the project has a row");
    assert_eq!(number, 4);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn between_attempts_the_build_waits_and_says_why_and_until_when(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    assert!(fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await);
    let newest = builds::newest(&pool, "uid-green-wall").await.expect("no error").expect("it has a row");
    assert_eq!((newest.attempt, newest.status, newest.job_created), (2, Status::Queued, false));
    let place = newest.queue.expect("it waits");
    assert_eq!((place.position, place.waiting_for.as_str()), (1, "BackingOff"));
    let (time, why) = place.message.split_once(": ").expect("a time and a reason");
    assert_eq!(why, "attempt 1 failed (Evicted): it dried out");
    assert!(time.starts_with("not before 20"), "{time}");
    let (waits, same): (f64, bool) = sqlx::query_as(
        "select extract(epoch from n.not_before - f.completed_at)::float8, n.queued_at = f.completed_at
         from builds n join builds f on f.resource_uid = n.resource_uid and f.attempt = 1 where n.attempt = 2",
    )
    .fetch_one(&pool)
    .await
    .expect("there are two");
    assert!(same && (waits - 30.0).abs() < 1e-6, "counted from the failure: {waits}");
}

#[sqlx::test(migrations = "./migrations")]
async fn the_next_attempt_goes_to_another_worker_if_one_fits(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 10).await;
    sqlx::raw_sql(
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
         select gen_random_uuid(), null, name, 'kubernetes', 5, 'healthy', true from unnest(array['near', 'far']) as name",
    )
    .execute(&pool)
    .await?;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    fails(&pool, first, Reason::NodeLost, Duration::from_secs(5)).await;
    backoff_is_over(&pool).await;
    claim(&pool).await.expect("it can be claimed");
    let rows = attempts(&pool).await;
    assert_ne!(rows[0]["worker"], rows[1]["worker"]);
    let other = rows[0]["worker_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    sqlx::query("update build_workers set cordoned = true where id <> $1").bind(other).execute(&pool).await?;
    fails(&pool, id(&rows[1]), Reason::NodeLost, Duration::from_secs(5)).await;
    backoff_is_over(&pool).await;
    claim(&pool).await.expect("it can be claimed");
    assert_eq!(attempts(&pool).await[2]["worker"], rows[0]["worker"], "no other takes builds");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cancellation_between_attempts_cancels_the_one_that_waits(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await;
    let cancelled = builds::request_cancel(&pool, "uid-green-wall", Reason::Cancelled, "spec.cancel is true").await;
    assert_eq!(cancelled.expect("no error"), 1);
    let rows = attempts(&pool).await;
    assert_eq!([&rows[0]["status"], &rows[1]["status"]], ["failed", "cancelled"]);
    let result = &rows[1]["result"];
    assert_eq!((&result["is_retry"], &result["original_build_id"]), (&json!(true), &json!(first)));
    assert_eq!(results(&pool, id(&rows[1])).await, [("cancelled".to_owned(), Some("Cancelled".to_owned()))]);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn a_run_that_was_asked_to_stop_before_its_attempt_failed_has_no_other(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    launches::jobs_created(&pool, &[first]).await.expect("no error");
    builds::request_cancel(&pool, "uid-green-wall", Reason::Deleted, "the Build was deleted").await.expect("no error");
    assert!(fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await);
    assert_eq!(attempts(&pool).await.len(), 1);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_run_that_is_stopped_while_it_fails_has_nothing_left_that_could_start(pool: PgPool) {
    limits(&pool, 100, 100).await;
    for round in 0..20 {
        let mut wall = wall();
        wall.resource.name = format!("wall-{round}");
        wall.resource.uid = format!("uid-{round}");
        let first = queued(&pool, &wall).await;
        claim(&pool).await.expect("it can be claimed");
        let mut tasks = JoinSet::new();
        let (of_end, of_stop) = (pool.clone(), pool.clone());
        tasks.spawn(async move {
            fails(&of_end, first, Reason::Evicted, Duration::from_secs(30)).await;
        });
        tasks.spawn(async move {
            if round % 2 == 0 {
                queued(&of_stop, &next_run(&wall)).await;
            } else {
                let uid = &wall.resource.uid;
                builds::request_cancel(&of_stop, uid, Reason::Deleted, "gone").await.expect("no error");
            }
        });
        tasks.join_all().await;
        let live: Vec<(i32, i32)> = sqlx::query_as(
            "select run, attempt from builds
             where resource_uid = $1 and status in ('queued', 'in_progress') and cancel_requested_at is null",
        )
        .bind(format!("uid-{round}"))
        .fetch_all(&pool)
        .await
        .expect("builds can be read");
        assert_eq!(live, if round % 2 == 0 { vec![(2, 1)] } else { vec![] }, "round {round}");
    }
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn of_many_that_end_an_attempt_at_once_one_makes_the_next(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let first = queued(&pool, &wall()).await;
    claim(&pool).await.expect("it can be claimed");
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let pool = pool.clone();
        tasks.spawn(async move { fails(&pool, first, Reason::Evicted, Duration::from_secs(30)).await });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!((won, attempts(&pool).await.len()), (1, 2));
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}
