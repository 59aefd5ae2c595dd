//! Schedules on a real Postgres, against an API server that says what the test wants, at whatever time the test says it
//! is: a slot makes one Build, however many operators there are, whatever crashed, and wherever the clock jumps.

mod controller;
mod history;
mod unended;

use image_factory::{
    controllers::schedules::{Watched, reconcile},
    db::{schedules, slots},
    runtime::Context,
    tasks::scheduler::round,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::reconcile::api_server::ApiServer;

const SCHEDULE: &str = "/apis/imagefactory.dev/v1alpha1/namespaces/green/buildschedules/hourly";
const BUILDS: &str = "/apis/imagefactory.dev/v1alpha1/namespaces/green/builds";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/green/events";

struct Fixture {
    server: ApiServer,
    context: Context,
    pool: PgPool,
}

impl Fixture {
    fn new(pool: &PgPool) -> Self {
        let server = ApiServer::default();
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "green", "uid": "uid-green"}});
        server.holds("/api/v1/namespaces/green", Some(namespace));
        Self { context: server.context(pool), server, pool: pool.clone() }
    }

    /// Applies a schedule, and has the controller bring its row in line.
    async fn applied(&self, schedule: &Value) {
        self.server.holds(SCHEDULE, Some(schedule.clone()));
        let watched: Watched = serde_json::from_value(schedule.clone()).expect("it has metadata");
        reconcile(watched.into(), self.context.clone().into()).await.expect("it is reconciled");
    }

    /// The row's next time, as a test wants it.
    async fn is_planned(&self, at: Timestamp) {
        sqlx::query("update build_schedules set next_trigger_at = $1::text::timestamptz")
            .bind(at.to_string())
            .execute(&self.pool)
            .await
            .expect("it can be changed");
    }

    async fn round(&self, now: Timestamp) {
        round(&self.context, now).await.expect("the rows can be had");
    }

    /// What became of each slot, by its time: outcome and message.
    async fn slots(&self) -> Vec<(String, Option<String>, Option<String>)> {
        sqlx::query_as(
            "select to_char(slot at time zone 'UTC', 'DD HH24:MI'), outcome, message from schedule_slots order by slot",
        )
        .fetch_all(&self.pool)
        .await
        .expect("slots can be read")
    }

    async fn outcomes(&self) -> Vec<String> {
        let slots = self.slots().await;
        slots.into_iter().map(|(slot, outcome, _)| format!("{slot} {}", outcome.unwrap_or_default())).collect()
    }

    /// The Builds that are there, by the times in their names.
    fn builds(&self) -> Vec<String> {
        let times = self.server.below(BUILDS).into_iter().map(|path| {
            let minutes: i64 = path.rsplit('-').next().and_then(|minutes| minutes.parse().ok()).expect("a minute");
            let time = Timestamp::from_second(minutes * 60).expect("a time");
            time.strftime("%d %H:%M").to_string()
        });
        times.collect()
    }

    fn posts(&self) -> usize {
        let path = format!("POST {BUILDS}");
        self.server.requests().iter().filter(|request| **request == path).count()
    }

    /// Reasons of the Events, in their order of time.
    fn events(&self) -> Vec<String> {
        let paths = self.server.below(EVENTS);
        let mut events: Vec<(String, String)> = paths
            .iter()
            .map(|path| self.server.object(path))
            .map(|event| (event["eventTime"].to_string(), event["reason"].as_str().unwrap_or_default().to_owned()))
            .collect();
        events.sort();
        events.into_iter().map(|(_, reason)| reason).collect()
    }

    async fn row(&self) -> Value {
        sqlx::query_scalar(
            "select to_jsonb(c) || jsonb_build_object('tenant', t.uid, 'project', p.name)
             from build_schedules c join tenants t on t.id = c.tenant_id join projects p on p.id = c.project_id",
        )
        .fetch_one(&self.pool)
        .await
        .expect("one row")
    }
}

/// A schedule of each full hour, with these fields of its specification beside or instead of its own.
fn hourly(generation: i64, fields: &Value) -> Value {
    let mut schedule = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildSchedule",
        "metadata": {"name": "hourly", "namespace": "green", "uid": "uid-hourly", "generation": generation},
        "spec": {
            "cron": "0 * * * *",
            "template": {"spec": {
                "project": "paint", "method": "container",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/green/wall:1"},
            }},
        },
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        schedule["spec"][name] = value.clone();
    }
    schedule
}

fn run_now(mut schedule: Value, value: &str) -> Value {
    schedule["metadata"]["annotations"] = json!({"imagefactory.dev/run-now": value});
    schedule
}

/// A time of the first of December, or of a later day.
fn at(time: &str) -> Timestamp {
    let (day, time) = time.split_once(' ').unwrap_or(("01", time));
    format!("2026-12-{day}T{time}Z").parse().expect("a time")
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn two_operators_make_one_build_of_a_slot(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.round(at("09:59:59")).await;
    assert_eq!(fixture.builds(), [""; 0]);
    for (now, times) in
        [("10:00:00", vec!["01 10:00"]), ("10:30:00", vec!["01 10:00"]), ("11:00:01", vec!["01 10:00", "01 11:00"])]
    {
        let (one, other) = (fixture.server.context(&pool), fixture.server.context(&pool));
        let rounds = tokio::join!(round(&one, at(now)), round(&other, at(now)), round(&fixture.context, at(now)));
        assert!(rounds.0.is_ok() && rounds.1.is_ok() && rounds.2.is_ok());
        assert_eq!(fixture.builds(), times, "{now}");
    }
    assert_eq!(fixture.outcomes().await, ["01 10:00 made", "01 11:00 made"]);
    let row = fixture.row().await;
    assert_eq!(row["next_trigger_at"], "2026-12-01T12:00:00+00:00");
    assert_eq!(row["last_triggered_at"], "2026-12-01T11:00:01+00:00");
    assert_eq!(row["last_build_name"], "hourly-29935380");
    let build = fixture.server.object(&format!("{BUILDS}/hourly-29935380"));
    assert_eq!(build["metadata"]["labels"], json!({"imagefactory.dev/schedule": "hourly"}));
    assert_eq!(build["metadata"]["ownerReferences"][0]["uid"], "uid-hourly");
    assert_eq!(build["spec"]["output"]["image"], "registry.test/green/wall:1");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn an_operator_that_was_away_for_a_day_makes_up_for_one_slot(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.round(at("02 12:34:00")).await;
    fixture.round(at("02 12:35:00")).await;
    assert_eq!(fixture.builds(), ["02 12:00"]);
    fixture.round(at("02 13:00:00")).await;
    assert_eq!(fixture.builds(), ["02 12:00", "02 13:00"]);

    // Not where it was missed for too long.
    fixture.applied(&hourly(2, &json!({"startingDeadlineSeconds": 600}))).await;
    fixture.is_planned(at("02 14:00:00")).await;
    fixture.round(at("03 12:10:01")).await;
    assert_eq!(fixture.builds(), ["02 12:00", "02 13:00"]);
    assert_eq!(fixture.outcomes().await, ["02 12:00 made", "02 13:00 made", "03 12:00 skipped"]);
    assert_eq!(fixture.events(), ["Made", "Made", "MissedDeadline"]);
    fixture.is_planned(at("03 13:00:00")).await;
    fixture.round(at("03 13:10:00")).await;
    assert_eq!(fixture.builds(), ["02 12:00", "02 13:00", "03 13:00"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_clock_that_jumps_back_makes_no_slot_twice_and_one_that_jumps_ahead_makes_one(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.round(at("10:00:00")).await;
    fixture.round(at("08:59:00")).await;
    fixture.round(at("10:00:00")).await;
    assert_eq!((fixture.builds(), fixture.posts()), (vec!["01 10:00".to_owned()], 1));
    // Three days ahead, and back again: whoever sets the next time by the right clock meets the slot again.
    fixture.round(at("04 10:20:00")).await;
    assert_eq!(fixture.builds(), ["01 10:00", "04 10:00"]);
    for planned in ["10:00:00", "11:00:00", "04 10:00:00"] {
        fixture.is_planned(at(planned)).await;
        fixture.round(at(planned)).await;
        fixture.round(at(planned)).await;
    }
    assert_eq!(
        (fixture.builds(), fixture.posts()),
        (["01 10:00", "01 11:00", "04 10:00"].map(str::to_owned).to_vec(), 3)
    );
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_slot_without_its_build_gets_it_in_the_next_round_and_one_with_it_no_second(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    // An operator died between the two.
    let take = async |slot: Timestamp, next: Timestamp| {
        fixture.is_planned(slot).await;
        let due = schedules::due(&pool, slot, 1).await.expect("it can be asked for").pop().expect("it is due");
        slots::take(&pool, &due, Some(slot), None, Some(next)).await.expect("it can be taken").expect("it is free")
    };
    take(at("10:00:00"), at("11:00:00")).await;
    fixture.round(at("10:00:05")).await;
    assert_eq!(
        (fixture.builds(), fixture.outcomes().await),
        (vec!["01 10:00".to_owned()], vec!["01 10:00 made".to_owned()])
    );

    // And another after the Build was made.
    let id = take(at("11:00:00"), at("12:00:00")).await;
    let made = |origin: &str| {
        json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"name": "b", "namespace": "green", "uid": "b", "annotations": {"imagefactory.dev/origin": origin}},
        })
    };
    let path = format!("{BUILDS}/hourly-29935380");
    fixture.server.holds(&path, Some(made(&id.to_string())));
    fixture.round(at("11:00:05")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 made", "01 11:00 made"]);
    assert_eq!(fixture.server.object(&path), made(&id.to_string()), "it is the same one");

    // A day later neither is made up for, but the newest.
    let left = take(at("12:00:00"), at("13:00:00")).await;
    fixture.server.holds(&format!("{BUILDS}/hourly-29935440"), Some(made(&left.to_string())));
    take(at("13:00:00"), at("14:00:00")).await;
    fixture.round(at("02 15:20:00")).await;
    assert_eq!(
        fixture.outcomes().await[2..],
        ["01 12:00 made", "01 13:00 failed", "02 15:00 made"],
        "one had its Build, one is overtaken"
    );
    assert_eq!(fixture.builds().last().map(String::as_str), Some("02 15:00"));

    // A stranger's Build of that name is none of ours.
    fixture.server.holds(&format!("{BUILDS}/hourly-29937120"), Some(made("00000000-0000-0000-0000-000000000000")));
    fixture.round(at("02 16:00:00")).await;
    let slots = fixture.slots().await;
    let (_, outcome, message) = slots.last().expect("it was taken");
    assert_eq!(outcome.as_deref(), Some("failed"));
    assert!(message.as_ref().is_some_and(|why| why.contains("another Build has that name")), "{message:?}");
    assert_eq!(fixture.events().last().map(String::as_str), Some("NameTaken"));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_refused_build_is_tried_again_until_the_next_time_comes(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.server.refuses(BUILDS);
    let mut tries = Vec::new();
    let mut now = at("10:00:00");
    while now < at("10:02:00") {
        let before = fixture.posts();
        fixture.round(now).await;
        if fixture.posts() > before {
            tries.push(now.duration_since(at("10:00:00")).as_secs());
        }
        now += SignedDuration::from_secs(1);
    }
    assert_eq!(tries, [0, 10, 30, 70]);
    assert_eq!(fixture.events(), ["Refused"], "said once");
    let (_, outcome, message) = fixture.slots().await.swap_remove(0);
    assert_eq!((outcome, message.as_deref()), (None, Some("hourly-29935320 was refused: Invalid")));

    fixture.server.accepts(BUILDS);
    fixture.round(at("10:02:30")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 made"]);

    fixture.server.refuses(BUILDS);
    fixture.round(at("11:00:00")).await;
    fixture.server.accepts(BUILDS);
    fixture.round(at("12:00:00")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 made", "01 11:00 failed", "01 12:00 made"]);
    assert_eq!(fixture.events(), ["Refused", "Made", "Refused", "NotMade", "Made"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_asked_for_now_is_made_once_a_value_in_a_minute_of_its_own(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    let schedule = hourly(1, &json!({}));
    fixture.applied(&schedule).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.round(at("10:00:20")).await;
    for (value, times) in [
        ("monday", vec!["01 09:59", "01 10:00"]),
        ("monday", vec!["01 09:59", "01 10:00"]),
        ("tuesday", vec!["01 09:58", "01 09:59", "01 10:00"]),
    ] {
        fixture.applied(&run_now(schedule.clone(), value)).await;
        fixture.is_planned(at("11:00:00")).await;
        for _ in 0..2 {
            fixture.round(at("10:00:30")).await;
        }
        assert_eq!(fixture.builds(), times, "{value}");
    }
    // Also while it is suspended, and beside a slot that comes at the same time.
    fixture.applied(&run_now(hourly(2, &json!({"suspend": true})), "wednesday")).await;
    fixture.round(at("10:30:00")).await;
    assert_eq!(fixture.builds().last().map(String::as_str), Some("01 10:30"));
    fixture.applied(&run_now(hourly(3, &json!({})), "thursday")).await;
    fixture.is_planned(at("11:00:00")).await;
    fixture.round(at("11:00:00")).await;
    assert_eq!(fixture.builds()[4..], ["01 10:59", "01 11:00"]);
    assert!(fixture.outcomes().await.iter().all(|slot| slot.ends_with("made")));
    assert_eq!(fixture.row().await["run_now_taken"], "thursday");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_slot_is_taken_by_the_schedule_as_it_is_now_and_not_by_the_row(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    fixture.is_planned(at("10:00:00")).await;
    // Suspended, and the controller has not seen it.
    fixture.server.holds(SCHEDULE, Some(hourly(2, &json!({"suspend": true}))));
    fixture.round(at("10:00:00")).await;
    assert_eq!(fixture.outcomes().await, [""; 0]);
    // Another of its name has taken its place.
    let mut another = hourly(1, &json!({}));
    another["metadata"]["uid"] = json!("another");
    fixture.server.holds(SCHEDULE, Some(another));
    fixture.round(at("10:00:00")).await;
    assert_eq!(fixture.outcomes().await, [""; 0]);
    assert_eq!(
        (&fixture.row().await["is_active"], &fixture.row().await["resource_uid"]),
        (&json!(false), &Value::Null)
    );
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_goes_wrong_with_one_schedule_holds_up_no_other(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({}))).await;
    let mut broken = hourly(1, &json!({}));
    broken["metadata"] = json!({"name": "broken", "namespace": "green", "uid": "uid-broken", "generation": 1});
    let path = SCHEDULE.replace("hourly", "broken");
    fixture.server.holds(&path, Some(broken.clone()));
    let watched: Watched = serde_json::from_value(broken).expect("it has metadata");
    reconcile(watched.into(), fixture.context.clone().into()).await.expect("it is reconciled");
    fixture.is_planned(at("10:00:00")).await;
    fixture.server.refuses(&path);
    fixture.round(at("10:00:00")).await;
    assert_eq!(fixture.builds(), ["01 10:00"]);
    let text = fixture.context.metrics.text().expect("metrics are text");
    assert!(text.contains("image_factory_failures_total{part=\"scheduler\"} 1"), "{text}");
}
