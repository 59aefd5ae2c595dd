//! What is told of builds, and to whom.

use axum::http::StatusCode;
use http_body_util::BodyExt;
use image_factory::{
    config::Database,
    db::{READERS, builds::NewAttempt, queue::claim, readers},
};
use image_factory_core::reason::Reason;
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{running, server::Api, store};
use crate::attempts::{attempt, failure, finish, limits, next_run, queued};

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
