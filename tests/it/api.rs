//! The API on real rows: what is told of builds, whose rows are seen by whom, and logs that are taken
//! up again by the number of a line, by many viewers at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use futures::future::join_all;
use http_body_util::BodyExt;
use image_factory::{
    config::Database,
    db::{
        READERS,
        builds::NewAttempt,
        logs::{Cursor, Line, append},
        queue::claim,
        readers,
        steps::Recorded,
    },
    http::router,
    jobs,
    runtime::{Context, health::Health, metrics::Metrics},
};
use image_factory_core::{loglevel::Level, patience::Patience, reason::Reason};
use jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::attempts::{attempt, failure, finish, limits, next_run, queued, success};

const PATIENCE: Duration = Duration::from_secs(20);

/// An API server where everybody may read what is in the namespaces that there are, by UID.
#[derive(Clone, Default)]
struct Namespaces(Arc<Mutex<BTreeMap<String, String>>>);

impl Namespaces {
    fn has(&self, name: &str, uid: &str) {
        self.0.lock().expect("no panic").insert(name.to_owned(), uid.to_owned());
    }

    fn client(&self) -> Client {
        let namespaces = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let namespaces = namespaces.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let mut code = 200;
                if let Some(name) = path.strip_prefix("/api/v1/namespaces/") {
                    let uid = namespaces.0.lock().expect("no panic").get(name).cloned();
                    code = if uid.is_some() { 200 } else { 404 };
                    answer = match uid {
                        Some(uid) => json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                            "metadata": {"name": name, "uid": uid}}),
                        None => json!({"apiVersion": "v1", "kind": "Status", "code": 404, "reason": "NotFound"}),
                    };
                } else {
                    answer["status"] = json!({"authenticated": true, "allowed": true, "user": {"username": "orchard"}});
                }
                let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string())).expect("a response"))
            }
        });
        Client::new(service, "default")
    }
}

/// A server whose pool is the test's.
struct Api {
    router: Router,
    context: Context,
    namespaces: Namespaces,
}

impl Api {
    fn new(pool: &PgPool) -> Self {
        let namespaces = Namespaces::default();
        let client = namespaces.client();
        let context = Context {
            client: client.clone(),
            streams: client.clone(),
            pool: pool.clone(),
            recorder: Recorder::new(client, Reporter { controller: "test".to_owned(), instance: None }),
            jobs: Arc::new(jobs::Settings::default()),
            metrics: Metrics::default(),
            health: Health::default(),
            patience: Patience::default(),
            stored: broadcast::channel(16).0,
            followed: std::sync::Arc::default(),
            log_bytes: 0,
            records_users: false,
        };
        Self { router: router(context.clone(), CancellationToken::new()), context, namespaces }
    }

    /// One that knows the tenant of `attempts::attempt`.
    fn of(pool: &PgPool, tenant: &str) -> Self {
        let api = Self::new(pool);
        api.namespaces.has(tenant, &format!("uid-{tenant}"));
        api
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(format!("/api/v1{path}")).header("authorization", "Bearer any");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(path, &[]).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// A stream, from its first frame on.
    async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let response = self.send(path, headers).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Stream { body: response.into_body(), text: String::new() }
    }
}

struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    /// The next event: its name, its id, its data; none at the end of the stream.
    async fn event(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                if !field("data: ").is_empty() {
                    let data = serde_json::from_str(field("data: ")).expect("JSON");
                    return Some((field("event: ").to_owned(), field("id: ").to_owned(), data));
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("in time")?.expect("no error");
            self.text += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
        }
    }

    /// The texts of the next lines, whose numbers follow one another from `first` on.
    async fn lines(&mut self, first: i64, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for number in (first..).take(count) {
            let (name, id, data) = self.event().await.expect("the stream goes on");
            assert_eq!((name.as_str(), id), ("", number.to_string()), "{data}");
            assert_eq!(data["line"], number);
            texts.push(data["text"].as_str().expect("a text").to_owned());
        }
        texts
    }

    /// The end, which must come next; the data of its event.
    async fn end(mut self) -> Value {
        let (name, _, data) = self.event().await.expect("the stream says how it ends");
        assert_eq!(name, "end", "{data}");
        assert!(self.event().await.is_none(), "nothing follows the end");
        data
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + second).expect("a time")
}

/// Lines `line <number>`, printed one a second, as the collector stores them.
async fn store(pool: &PgPool, build: Uuid, numbers: std::ops::RangeInclusive<i64>) {
    let line = |number| Line { content: format!("line {number}"), level: Level::Info, logged_at: at(number) };
    let cursor = Cursor { container: "build".to_owned(), line_number: *numbers.end(), ..Cursor::default() };
    append(pool, build, &numbers.map(line).collect::<Vec<_>>(), &Recorded::default(), &cursor)
        .await
        .expect("they can be stored");
}

fn texts(numbers: std::ops::RangeInclusive<i64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

async fn running(pool: &PgPool, tenant: &str, name: &str) -> Uuid {
    limits(pool, 100, 100).await;
    let id = queued(pool, &attempt(tenant, name)).await;
    claim(pool).await.expect("it can be claimed");
    id
}

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
async fn a_namespace_made_again_sees_nothing_of_the_one_before(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    store(&pool, id, 1..=1).await;
    let paths = [
        "/namespaces/green/builds/wall".to_owned(),
        "/namespaces/green/builds/wall/steps".to_owned(),
        "/namespaces/green/builds/wall/history".to_owned(),
        "/namespaces/green/builds/wall/results".to_owned(),
        "/namespaces/green/builds/wall/logs?follow=false".to_owned(),
        format!("/builds/{id}"),
        format!("/builds/{id}/steps"),
        format!("/builds/{id}/history"),
        format!("/builds/{id}/results"),
        format!("/builds/{id}/logs?follow=false"),
    ];
    for path in &paths {
        assert_eq!(api.send(path, &[]).await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(api.ok("/namespaces/green/builds").await["builds"].as_array().unwrap().len(), 1);

    // The same name, by another namespace, to a server that knows only that one.
    let again = Api::new(&pool);
    again.namespaces.has("green", "uid-green-again");
    for path in &paths {
        let (status, body) = again.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body}");
    }
    assert_eq!(again.ok("/namespaces/green/builds").await, json!({"builds": [], "next": null}));
    // And where there is none of that name.
    let gone = Api::new(&pool);
    for path in paths.iter().map(String::as_str).chain(["/namespaces/green/builds"]) {
        assert_eq!(gone.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let mut of_the_new = NewAttempt { tenant_uid: "uid-green-again".to_owned(), ..attempt("green", "wall") };
    of_the_new.resource.uid = "uid-of-the-new".to_owned();
    let new = queued(&pool, &of_the_new).await;
    assert_eq!(again.ok("/namespaces/green/builds/wall").await["id"], json!(new));
    assert_eq!(api.ok("/namespaces/green/builds/wall").await["id"], json!(id));
}

#[sqlx::test(migrations = "./migrations")]
async fn builds_are_listed_newest_first_page_by_page_and_by_what_they_are(pool: PgPool) {
    let api = Api::of(&pool, "green");
    limits(&pool, 100, 100).await;
    let mut ids = Vec::new();
    for index in 0..7 {
        let mut new = attempt("green", &format!("wall-{index}"));
        new.project = if index % 2 == 0 { "paint" } else { "plaster" }.to_owned();
        ids.push(queued(&pool, &new).await);
    }
    queued(&pool, &attempt("red", "wall-0")).await;
    claim(&pool).await.expect("they can be claimed");
    assert!(finish(&pool, ids[3], &failure(Reason::BuildFailed)).await);
    ids.reverse();
    let ids: Vec<Value> = ids.iter().map(|id| json!(id)).collect();

    let mut found = Vec::new();
    let mut query = "?limit=3".to_owned();
    let mut pages = 0;
    loop {
        let page = api.ok(&format!("/namespaces/green/builds{query}")).await;
        found.extend(page["builds"].as_array().unwrap().iter().map(|build| build["id"].clone()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=3&cursor={next}");
    }
    assert_eq!((pages, &found), (3, &ids));
    let listed = async |query: &str| -> Vec<Value> {
        let page = api.ok(&format!("/namespaces/green/builds?{query}")).await;
        page["builds"].as_array().unwrap().iter().map(|build| build["name"].clone()).collect()
    };
    assert_eq!(listed("status=failed").await, ["wall-3"]);
    assert_eq!(listed("project=plaster").await, ["wall-5", "wall-3", "wall-1"]);
    assert_eq!(listed("project=plaster&status=in_progress").await, ["wall-5", "wall-1"]);
    assert_eq!(listed("name=wall-2").await, ["wall-2"]);
    assert_eq!(listed("limit=7").await.len(), 7);
    assert_eq!(listed("project=none").await.len(), 0);
}

#[sqlx::test(migrations = "./migrations")]
async fn an_attempt_is_told_with_all_that_happened_to_it(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let first = attempt("green", "wall");
    let old = running(&pool, "green", "wall").await;
    assert!(finish(&pool, old, &failure(Reason::BuildFailed)).await);
    let new = queued(&pool, &next_run(&first)).await;
    let path = "/namespaces/green/builds/wall";
    let build = api.ok(path).await;
    assert_eq!((&build["id"], &build["run"], &build["build_number"]), (&json!(new), &json!(2), &json!(2)));
    let waits = json!({"position": 1, "waiting_for": null, "message": "ready to be claimed"});
    assert_eq!(build["queue"], waits);
    assert_eq!(build, api.ok(&format!("/builds/{new}")).await);
    let build = api.ok(&format!("{path}?run=1&attempt=1")).await;
    assert_eq!((&build["id"], &build["queue"]), (&json!(old), &Value::Null));
    for (key, value) in [
        ("namespace", json!("green")),
        ("name", json!("wall")),
        ("project", json!("paint")),
        ("build_method", json!("container")),
        ("status", json!("failed")),
        ("failure_reason", json!("BuildFailed")),
        ("error_message", json!("it dried out")),
        ("worker", json!("cluster")),
        ("image", json!("registry.test/green/wall:1")),
        ("trigger_source", json!("brush")),
    ] {
        assert_eq!(build[key], value, "{key}");
    }
    assert!(build["completed_at"].as_str().is_some_and(|at| at.parse::<Timestamp>().is_ok()), "{build}");
    let (status, body) = api.get(&format!("{path}?run=3")).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::NOT_FOUND, &json!("there is no run 3 of build wall in namespace green"))
    );

    let history = api.ok(&format!("{path}/history?run=1")).await;
    let way: Vec<&Value> = history["history"].as_array().unwrap().iter().map(|row| &row["to_status"]).collect();
    assert_eq!(way, ["queued", "in_progress", "failed"]);
    let results = api.ok(&format!("/builds/{old}/results")).await;
    assert_eq!(
        (&results["result"]["status"], &results["metrics"]["total_duration_seconds"]),
        (&json!("failed"), &json!(0))
    );
    assert!(results["result"].get("counted_at").is_none(), "what the operator notes for itself is not told");
    assert_eq!((&results["artifacts"], &results["build_id"]), (&json!([]), &json!(old)));
    sqlx::query("insert into build_steps (id, build_id, step_number, step_name, status) select gen_random_uuid(), $1, n, 'RUN ' || n, 'success' from generate_series(1, 3) n")
        .bind(old)
        .execute(&pool)
        .await
        .expect("steps can be stored");
    let waiting = api.ok(&format!("/builds/{new}/results")).await;
    assert_eq!((&waiting["result"], &waiting["metrics"]), (&Value::Null, &Value::Null), "it has not ended");
    let steps = api.ok(&format!("{path}/steps?run=1")).await;
    let names: Vec<&Value> = steps["steps"].as_array().unwrap().iter().map(|step| &step["step_name"]).collect();
    assert_eq!(names, ["RUN 1", "RUN 2", "RUN 3"]);
    assert_eq!(steps["next"], Value::Null);
}

#[sqlx::test(migrations = "./migrations")]
async fn steps_come_page_by_page_however_much_they_printed(pool: PgPool) {
    let api = Api::of(&pool, "green");
    let id = running(&pool, "green", "wall").await;
    // What the largest build may have, without a number where a step was never seen.
    sqlx::query(
        "insert into build_steps (id, build_id, step_number, step_name, status, stdout, stderr)
         select gen_random_uuid(), $1, n, 'RUN ' || n, 'success', repeat('x', 64 * 1024), repeat('y', 8 * 1024)
         from generate_series(1, 1000) n where n <> 3",
    )
    .bind(id)
    .execute(&pool)
    .await
    .expect("steps can be stored");
    let path = "/namespaces/green/builds/wall/steps";
    let (mut numbers, mut pages, mut next) = (Vec::new(), 0, json!(0));
    while !next.is_null() {
        let response = api.send(&format!("{path}?limit=1000&after={next}"), &[]).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(body.len() < 1_300_000, "a page of {} bytes", body.len());
        let page: Value = serde_json::from_slice(&body).expect("JSON");
        let steps = page["steps"].as_array().expect("steps");
        assert!(steps.iter().all(|step| step["stdout"].as_str().is_some_and(|text| text.len() == 64 * 1024)));
        numbers.extend(steps.iter().map(|step| step["step_number"].as_i64().expect("a number")));
        next = page["next"].clone();
        pages += 1;
    }
    let all: Vec<i64> = (1..=1_000).filter(|number| *number != 3).collect();
    assert_eq!(numbers, all);
    assert!((60..80).contains(&pages), "{pages} pages");

    let few = api.ok(&format!("/builds/{id}/steps?after=2&limit=2")).await;
    let numbers = |page: &Value| -> Vec<Value> {
        page["steps"].as_array().unwrap().iter().map(|step| step["step_number"].clone()).collect()
    };
    assert_eq!((numbers(&few), &few["next"]), (vec![json!(4), json!(5)], &json!(5)));
    let last = api.ok(&format!("{path}?after=998&limit=2")).await;
    assert_eq!((numbers(&last), &last["next"]), (vec![json!(999), json!(1000)], &Value::Null));
    let none = api.ok(&format!("{path}?after=1000")).await;
    assert_eq!((&none["steps"], &none["next"]), (&json!([]), &Value::Null));
}

#[sqlx::test(migrations = "./migrations")]
async fn readers_have_connections_of_their_own_and_little_time(pool: PgPool) {
    let url = sqlx::ConnectOptions::to_url_lossy(&*pool.connect_options()).to_string();
    let readers = readers(&Database { url, connections: std::num::NonZeroU16::MIN }).expect("an address");
    assert_eq!(readers.options().get_max_connections(), READERS);
    let limit: String = sqlx::query_scalar("show statement_timeout").fetch_one(&readers).await.expect("an answer");
    assert_eq!(limit, "15s");
}

/// A pool of its own on the same database, and how many statements went through it: each takes a
/// connection for itself.
pub fn counted(pool: &PgPool) -> (PgPool, Arc<AtomicUsize>) {
    let statements = Arc::new(AtomicUsize::new(0));
    let counted = statements.clone();
    let first = statements.clone();
    let options = PgPoolOptions::new()
        .max_connections(4)
        .before_acquire(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        // One that is new is taken without that.
        .after_connect(move |_, _| {
            first.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        });
    (options.connect_lazy_with((*pool.connect_options()).clone()), statements)
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
