//! What the controller makes of a BuildSchedule: its row, its status, and nothing where nothing has changed.

use image_factory::db::schedules;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Fixture, SCHEDULE, at, hourly};

fn writes(fixture: &Fixture) -> usize {
    fixture.server.requests().iter().filter(|request| !request.starts_with("GET")).count()
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_schedule_is_stored_with_all_it_declares_and_told_in_its_status(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let git = json!({"url": "https://git.test/wall.git"});
    let mut schedule = hourly(1, &json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "branch": "main"}));
    schedule["spec"]["template"]["spec"]["source"] = json!({"git": git});
    fixture.applied(&schedule).await;
    let row = fixture.row().await;
    for (column, expected) in [
        ("tenant", json!("uid-green")),
        ("project", json!("paint")),
        ("schedule_name", json!("hourly")),
        ("cron_expression", json!("30 2 * * *")),
        ("timezone", json!("Europe/Berlin")),
        ("build_method", json!("container")),
        ("git_branch", json!("main")),
        ("is_active", json!(true)),
        ("last_triggered_at", Value::Null),
        ("resource_uid", json!("uid-hourly")),
    ] {
        assert_eq!(row[column], expected, "{column}");
    }
    assert_eq!(row["build_config_preset"]["spec"]["source"]["git"]["url"], git["url"]);
    let status = fixture.server.status(SCHEDULE);
    assert_eq!(status["description"], "At 02:30 (Europe/Berlin)");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(
        (&status["conditions"][0]["type"], &status["conditions"][0]["reason"]),
        (&json!("Ready"), &json!("Scheduled"))
    );
    let told: jiff::Timestamp = status["nextTriggerAt"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let stored: jiff::Timestamp = row["next_trigger_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    assert_eq!(told, stored);

    let before = writes(&fixture);
    for _ in 0..3 {
        let known = fixture.server.object(SCHEDULE);
        fixture.applied(&known).await;
    }
    assert_eq!(writes(&fixture), before, "nothing is written when nothing has changed");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_schedule_that_cannot_act_says_so_and_acts_when_it_can(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    for (generation, fields, reasons, active) in [
        (1, json!({"cron": "61 * * * *"}), vec!["InvalidCron", "InvalidCron"], false),
        (2, json!({"timezone": "Middle/Earth"}), vec!["InvalidTimezone", "InvalidTimezone"], false),
        (3, json!({"suspend": true}), vec!["Suspended"], false),
        (4, json!({}), vec!["Scheduled"], true),
    ] {
        fixture.applied(&hourly(generation, &fields)).await;
        let status = fixture.server.status(SCHEDULE);
        let found: Vec<&str> =
            status["conditions"].as_array().into_iter().flatten().filter_map(|one| one["reason"].as_str()).collect();
        assert_eq!(found, reasons);
        let row = fixture.row().await;
        assert_eq!((row["is_active"] == true, row["next_trigger_at"].is_null()), (active, !active), "{reasons:?}");
    }
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_row_of_a_deleted_schedule_stays_and_is_taken_up_by_name(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(7, &json!({}))).await;
    let id = fixture.row().await["id"].clone();
    schedules::retire(&pool, "uid-hourly").await.expect("no error");
    let row = fixture.row().await;
    assert_eq!((&row["is_active"], &row["next_trigger_at"]), (&json!(false), &Value::Null));
    assert_eq!(schedules::owners(&pool).await.expect("no error"), []);

    let mut again = hourly(1, &json!({"cron": "15 * * * *"}));
    again["metadata"]["uid"] = json!("uid-again");
    fixture.applied(&again).await;
    let row = fixture.row().await;
    assert_eq!((&row["id"], &row["is_active"], &row["cron_expression"]), (&id, &json!(true), &json!("15 * * * *")));
    // What is heard late of the first one changes nothing.
    schedules::retire(&pool, "uid-hourly").await.expect("no error");
    assert_eq!(fixture.row().await["is_active"], true);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_next_time_that_a_wrong_clock_has_set_is_set_right_and_one_that_is_due_is_left(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let schedule = hourly(1, &json!({}));
    fixture.applied(&schedule).await;
    let right = fixture.row().await["next_trigger_at"].clone();
    fixture.is_planned("2093-01-01T00:00:00Z".parse().expect("a time")).await;
    fixture.applied(&schedule).await;
    assert_eq!(fixture.row().await["next_trigger_at"], right);
    let due = "2020-01-01T00:00:00Z".parse().expect("a time");
    fixture.is_planned(due).await;
    fixture.applied(&schedule).await;
    assert_eq!(fixture.row().await["next_trigger_at"], "2020-01-01T00:00:00+00:00");
    // What was due by another expression is not.
    fixture.applied(&hourly(2, &json!({"cron": "0 */2 * * *"}))).await;
    assert_ne!(fixture.row().await["next_trigger_at"], "2020-01-01T00:00:00+00:00");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn an_operator_that_is_behind_takes_nothing_back(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let old = hourly(1, &json!({}));
    fixture.applied(&old).await;
    let seen = schedules::stored(&pool, "uid-green", "hourly").await.expect("no error");
    fixture.applied(&hourly(2, &json!({"cron": "5 * * * *"}))).await;
    // It had read the schedule and the row before.
    fixture.applied(&old).await;
    assert_eq!(fixture.row().await["cron_expression"], "5 * * * *");
    let namespace = image_factory::controllers::schedules::load::Namespace {
        name: "green".to_owned(),
        uid: "uid-green".to_owned(),
    };
    let old = serde_json::from_value(old).expect("a schedule");
    let declared = image_factory::controllers::schedules::plan::declared(&old, &namespace, true).expect("JSON");
    let written = schedules::declare(&pool, &declared, seen.as_ref(), Some(at("10:00:00"))).await;
    assert!(!written.expect("no error"));
    assert_eq!(fixture.row().await["cron_expression"], "5 * * * *");
}
