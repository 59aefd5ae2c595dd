//! Storing the steps of a build: live, with the lines they come from, and what a Build's status makes of them.

use image_factory::db::{
    builds::{self, newest},
    logs::{Cursor, Line, append},
    queue, results,
    steps::Recorded,
};
use image_factory_core::{
    inspection::LayerFacts,
    layers::Made,
    loglevel::level_of,
    method::Method,
    reason::Reason,
    steps::{self, End, Steps},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::attempts::{attempt, failure, limits, queued, success};

async fn running(pool: &PgPool) -> Uuid {
    let id = queued(pool, &attempt("green", "wall")).await;
    limits(pool, 10, 10).await;
    queue::claim(pool).await.expect("it can be claimed");
    id
}

/// Feeds lines, one a second, and stores them as the collector does.
async fn store(pool: &PgPool, build: Uuid, steps: &mut Steps, last: &mut i64, text: &str) {
    let mut lines = Vec::new();
    for content in text.lines() {
        *last += 1;
        let line = Line {
            content: content.to_owned(),
            level: level_of(content),
            logged_at: Timestamp::from_second(1_900_000_000 + *last).expect("a time"),
        };
        steps.read(steps::Line { at: line.logged_at, level: line.level, text: &line.content });
        lines.push(line);
    }
    let cursor = Cursor { container: "build".to_owned(), line_number: *last, ..Cursor::default() };
    append(pool, build, &lines, &Recorded::of(steps), &cursor).await.expect("it can be stored");
}

async fn rows(pool: &PgPool, build: Uuid) -> Value {
    sqlx::query_scalar(
        "select jsonb_agg(jsonb_build_array(step_number, step_name, instruction_type, status, cached, stdout, stderr,
             error_message, error_code, duration_seconds) order by step_number)
         from build_steps where build_id = $1",
    )
    .bind(build)
    .fetch_one(pool)
    .await
    .expect("they can be read")
}

async fn told(pool: &PgPool) -> builds::Newest {
    newest(pool, &attempt("green", "wall").resource.uid).await.expect("it can be read").expect("an attempt")
}

#[sqlx::test(migrations = "./migrations")]
async fn steps_are_rows_as_soon_as_their_lines_are_and_a_status_tells_how_far_they_are(pool: PgPool) {
    let id = running(&pool).await;
    let (mut steps, mut last) = (Steps::new(Method::Container), 0);
    assert_eq!(told(&pool).await.steps, None, "nothing is known yet");

    store(&pool, id, &mut steps, &mut last, "STEP 1/4: FROM a\nTrying to pull a\nSTEP 2/4: COPY b /b").await;
    let from = json!([1, "FROM a", "FROM", "success", false, "Trying to pull a", null, null, null, 2]);
    let copy = json!([2, "COPY b /b", "COPY", "running", false, null, null, null, null, null]);
    assert_eq!(rows(&pool, id).await, json!([from, copy]));
    let far = builds::Steps { current: Some("COPY b /b".to_owned()), done: 1, total: 4, cached: 0 };
    assert_eq!(told(&pool).await.steps, Some(far));

    let hit = "--> Using cache 0123456789abcdef\n--> 0123456789ab\nSTEP 3/4: RUN make\nmaking\nmaking more";
    store(&pool, id, &mut steps, &mut last, hit).await;
    let copy = json!([2, "COPY b /b", "COPY", "success", true, null, null, null, null, 2]);
    let run = json!([3, "RUN make", "RUN", "running", false, null, null, null, null, null]);
    assert_eq!(rows(&pool, id).await, json!([from, copy, run]));

    store(&pool, id, &mut steps, &mut last, "Error: building at STEP \"RUN make\": exit status 2").await;
    let message = "the build failed";
    steps.end(End::Failed(message));
    let (mut outcome, recorded) = (failure(Reason::BuildFailed), Recorded::of(&mut steps));
    if let Some(failure) = &mut outcome.failure {
        failure.message = steps.told(message);
    }
    let ended = results::finish(&pool, id, results::End { steps: recorded, ..results::End::of(&outcome) }).await;
    assert!(ended.expect("it can be finished"));
    let error = "Error: building at STEP \"RUN make\": exit status 2";
    let run = json!([3, "RUN make", "RUN", "failed", false, "making\nmaking more", error, "exit status 2", "2", 3]);
    assert_eq!(rows(&pool, id).await, json!([from, copy, run]));
    let newest = told(&pool).await;
    assert_eq!(newest.error_message.as_deref(), Some("RUN make: exit status 2"));
    assert_eq!(newest.log_tail, ["making", "making more", error], "the last lines of the step that failed");
    let far = builds::Steps { current: Some("RUN make".to_owned()), done: 3, total: 4, cached: 1 };
    assert_eq!(newest.steps, Some(far));
}

#[sqlx::test(migrations = "./migrations")]
async fn a_step_that_failed_silently_leaves_the_end_of_the_log(pool: PgPool) {
    let id = running(&pool).await;
    let (mut steps, mut last) = (Steps::new(Method::Buildx), 0);
    store(&pool, id, &mut steps, &mut last, "#5 [1/1] RUN make\nthe last line").await;
    steps.end(End::Failed("the Pod was evicted"));
    let recorded = Recorded::of(&mut steps);
    let outcome = failure(Reason::Evicted);
    results::finish(&pool, id, results::End { steps: recorded, ..results::End::of(&outcome) })
        .await
        .expect("it can be finished");
    assert_eq!(told(&pool).await.log_tail, ["#5 [1/1] RUN make", "the last line"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn the_layer_that_a_step_made_stands_in_its_row(pool: PgPool) -> sqlx::Result<()> {
    let id = running(&pool).await;
    let (mut steps, mut last) = (Steps::new(Method::Buildx), 0);
    let text = "#5 [1/2] FROM a\n#5 DONE 0.0s\n#6 [2/2] RUN make\n#6 DONE 0.1s";
    store(&pool, id, &mut steps, &mut last, text).await;
    let layer = LayerFacts { digest: "sha256:0".to_owned(), size_bytes: 7, ..LayerFacts::default() };
    let recorded = Recorded::of(&mut steps).with(&[Made { step: 2, layer: &layer }]);
    let outcome = success("registry.test/green/wall:1");
    results::finish(&pool, id, results::End { steps: recorded, ..results::End::of(&outcome) })
        .await
        .expect("it can be finished");
    let layers: Vec<(Option<String>, Option<i64>)> =
        sqlx::query_as("select layer_digest, layer_size_bytes from build_steps order by step_number")
            .fetch_all(&pool)
            .await?;
    assert_eq!(layers, [(None, None), (Some("sha256:0".to_owned()), Some(7))]);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn steps_that_change_nothing_cost_no_statement_and_lines_that_are_not_stored_no_step(pool: PgPool) {
    let id = queued(&pool, &attempt("green", "wall")).await;
    let (mut steps, mut last) = (Steps::new(Method::Buildx), 0);
    store(&pool, id, &mut steps, &mut last, "#5 [1/1] RUN make").await;
    let mut other = Steps::new(Method::Buildx);
    other.read(steps::Line { at: Timestamp::UNIX_EPOCH, level: level_of(""), text: "#6 [1/1] RUN other" });
    let line = Line { content: "x".to_owned(), level: level_of("x"), logged_at: Timestamp::UNIX_EPOCH };
    let stale = Cursor { container: "build".to_owned(), line_number: 1, ..Cursor::default() };
    append(&pool, id, &[line], &Recorded::of(&mut other), &stale).await.expect_err("line 1 is taken");
    assert_eq!(rows(&pool, id).await[0][1], "RUN make");
}
