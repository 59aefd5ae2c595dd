//! Logs that are read while they grow, from any line on, by many at once.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum::http::{StatusCode, header};
use futures::future::join_all;
use http_body_util::BodyExt;
use image_factory::db::{
    logs::{Cursor, Line, append},
    steps::Recorded,
};
use image_factory_core::{loglevel::Level, reason::Reason};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

use super::{
    at, counted, running,
    server::{Api, PATIENCE, Stream},
    store, texts,
};
use crate::attempts::{failure, finish, success};

#[sqlx::test(migrations = "./migrations")]
async fn a_log_is_taken_up_at_any_line_while_it_grows_and_ends_with_the_outcome(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=5).await;
    let path = "/namespaces/green/builds/wall/logs";
    let mut whole = api.stream(path, &[]).await;
    assert_eq!(whole.lines(1, 5).await, texts(1..=5));
    let mut resumed = api.stream(&format!("{path}?from=1&since=1h"), &[("last-event-id", "3")]).await;
    assert_eq!(resumed.lines(4, 2).await, texts(4..=5));
    let mut by_id = api.stream(&format!("/builds/{id}/logs?from=6"), &[]).await;
    let mut far = api.stream(&format!("{path}?from=9"), &[]).await;
    // Nobody tells that these were stored, as where another replica did it.
    store(&pool, id, 6..=8).await;
    assert_eq!(whole.lines(6, 3).await, texts(6..=8));
    assert_eq!(resumed.lines(6, 3).await, texts(6..=8));
    assert_eq!(by_id.lines(6, 3).await, texts(6..=8));
    assert_eq!(far.lines(6, 3).await, texts(6..=8), "it has all that was not there when it asked");
    store(&pool, id, 9..=9).await;
    for stream in [&mut whole, &mut resumed, &mut by_id, &mut far] {
        assert_eq!(stream.lines(9, 1).await, texts(9..=9));
    }
    assert!(finish(&pool, id, &failure(Reason::OutOfMemory)).await);
    for stream in [whole, resumed, by_id, far] {
        let end = stream.end().await;
        assert_eq!((&end["last_line"], &end["build"]["status"]), (&json!(9), &json!("failed")));
        assert_eq!(end["build"]["failure_reason"], "OutOfMemory");
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn whoever_asks_for_lines_that_are_not_there_keeps_nobody_from_those_that_come(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=3).await;
    let path = "/namespaces/green/builds/wall/logs";
    let mut far = api.stream(&format!("{path}?from=999999"), &[]).await;
    let tail = async {
        while api.context.metrics.http_log_tails.get() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, tail).await.expect("it follows the log");
    let mut near = api.stream(path, &[]).await;
    let mut stale = api.stream(path, &[("last-event-id", "999999")]).await;
    assert_eq!(near.lines(1, 3).await, texts(1..=3));
    store(&pool, id, 4..=5).await;
    for stream in [&mut near, &mut far, &mut stale] {
        assert_eq!(stream.lines(4, 2).await, texts(4..=5));
    }
    assert!(finish(&pool, id, &success("x")).await);
    for stream in [near, far, stale] {
        assert_eq!(stream.end().await["last_line"], 5);
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn what_is_stored_is_given_without_waiting_and_from_a_time_on(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=9).await;
    let path = "/namespaces/green/builds/wall/logs?follow=false";
    let mut live = api.stream(path, &[]).await;
    assert_eq!(live.lines(1, 9).await, texts(1..=9));
    assert_eq!(live.end().await["build"]["status"], "in_progress", "it has not ended, but what is there was given");
    let mut since = api.stream(&format!("{path}&since={}", at(7)), &[]).await;
    assert_eq!(since.lines(7, 3).await, texts(7..=9));
    since.end().await;
    let none = api.stream(&format!("{path}&since=2099-01-01T00:00:00Z"), &[]).await;
    assert_eq!(none.end().await["last_line"], 9);

    assert!(finish(&pool, id, &success("registry.test/green/wall:1")).await);
    let mut ended = api.stream("/namespaces/green/builds/wall/logs", &[]).await;
    assert_eq!(ended.lines(1, 9).await, texts(1..=9));
    assert_eq!(ended.end().await["build"]["status"], "success", "one that has ended is not waited for");
    let text = api.send("/namespaces/green/builds/wall/logs?from=8", &[("accept", "text/plain")]).await;
    assert_eq!(text.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(text.into_body().collect().await.unwrap().to_bytes(), "line 8\nline 9\n");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_log_larger_than_any_page_comes_whole(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=2_500).await;
    let huge = Line { content: "x".repeat(200_000), level: Level::Warn, logged_at: at(1) };
    let cursor = Cursor { container: "build".to_owned(), line_number: 2_503, ..Cursor::default() };
    append(&pool, id, &[huge.clone(), huge.clone(), huge], &Recorded::default(), &cursor)
        .await
        .expect("they can be stored");
    let mut stream = api.stream("/namespaces/green/builds/wall/logs?follow=false", &[]).await;
    assert_eq!(stream.lines(1, 2_500).await, texts(1..=2_500));
    assert!(stream.lines(2_501, 3).await.iter().all(|text| text.len() == 200_000));
    stream.end().await;
}

#[sqlx::test(migrations = "./migrations")]
async fn five_hundred_viewers_of_one_build_have_one_tail(pool: PgPool) {
    const VIEWERS: usize = 500;
    let (counted, statements) = counted(&pool);
    let api = Api::of(&counted, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=3).await;
    let streams = (0..VIEWERS).map(|_| api.stream("/namespaces/green/builds/wall/logs", &[]));
    let mut streams = join_all(streams).await;
    join_all(streams.iter_mut().map(|stream| stream.lines(1, 3))).await;
    // Each has looked once more since it joined, or has just joined: one more line settles all.
    store(&pool, id, 4..=4).await;
    join_all(streams.iter_mut().map(|stream| stream.lines(4, 1))).await;
    let metrics = &api.context.metrics;
    assert_eq!((metrics.http_log_tails.get(), metrics.http_log_viewers.get()), (1, 500));

    let before = statements.load(Ordering::Relaxed);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 5..=24 {
        store(&pool, id, number..=number).await;
        api.context.has_stored(id);
        let stored = Instant::now();
        let lines = join_all(streams.iter_mut().map(|stream| stream.lines(number, 1))).await;
        assert!(lines.iter().all(|line| *line == texts(number..=number)));
        slowest = slowest.max(stored.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "the slowest viewer had a line after {slowest:?}");
    let looks = statements.load(Ordering::Relaxed) - before;
    // One a line, those of the timer, and what a viewer that joined last may still have looked for.
    let most = 20 + VIEWERS / 10 + usize::try_from(begun.elapsed().as_millis() / 400).expect("a short while");
    assert!((20..=most).contains(&looks), "{looks} statements for 20 lines and {VIEWERS} viewers, at most {most}");

    assert!(finish(&pool, id, &success("x")).await);
    for end in join_all(streams.into_iter().map(Stream::end)).await {
        assert_eq!((&end["last_line"], &end["build"]["status"]), (&json!(24), &json!("success")));
    }
    // Nothing is left behind.
    let left = async {
        while metrics.http_log_tails.get() + metrics.http_log_viewers.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, left).await.expect("tail and viewers end");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_slow_viewer_loses_nothing_and_holds_up_nobody(pool: PgPool) {
    const LINES: i64 = 20_000;
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=1).await;
    let path = "/namespaces/green/builds/wall/logs";
    let (mut slow, mut quick) = (api.stream(path, &[]).await, api.stream(path, &[]).await);
    slow.lines(1, 1).await;
    quick.lines(1, 1).await;
    for first in (2..LINES).step_by(1_000) {
        store(&pool, id, first..=(first + 999)).await;
        api.context.has_stored(id);
    }
    let last = 1 + LINES;
    let count = usize::try_from(LINES).unwrap();
    assert_eq!(quick.lines(2, count).await.last(), Some(&format!("line {last}")));
    assert_eq!(slow.lines(2, count).await.last(), Some(&format!("line {last}")));
    // A viewer that goes leaves its place.
    drop((slow, quick));
    let metrics = &api.context.metrics;
    let left = async {
        while metrics.http_log_tails.get() + metrics.http_log_viewers.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, left).await.expect("tail and viewers end");
}

#[sqlx::test(migrations = "./migrations")]
async fn as_many_logs_are_read_at_once_as_there_are_places(pool: PgPool) {
    let api = Api::of(&pool, "green");
    running(&pool, "green", "wall").await;
    let path = "/namespaces/green/builds/wall/logs";
    let mut streams = Vec::new();
    let refused = loop {
        let response = api.send(path, &[]).await;
        if response.status() != StatusCode::OK {
            break response;
        }
        streams.push(response);
    };
    assert_eq!((streams.len(), refused.status()), (500, StatusCode::SERVICE_UNAVAILABLE));
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(api.get("/namespaces/green/builds/wall").await.0, StatusCode::OK, "all else is served");
    streams.pop();
    let place = async {
        while api.send(path, &[]).await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, place).await.expect("a place that was left is given again");
}
