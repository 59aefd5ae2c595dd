//! What a schedule does when a Build it made has not ended: one that waits in the queue, one that runs, and one that is
//! not queued yet.

use image_factory::db::{builds::NewAttempt, queue::claim, slots};
use image_factory_core::reason::Reason;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{BUILDS, Fixture, at, hourly};
use crate::attempts::{attempt, failure, finish, limits, queued, row};

/// What the controller of Builds does with the Build of a slot.
async fn enqueue(fixture: &Fixture, name: &str) -> Uuid {
    let build = fixture.server.object(&format!("{BUILDS}/{name}"));
    let origin = build["metadata"]["annotations"]["imagefactory.dev/origin"].as_str().and_then(|id| id.parse().ok());
    queued(&fixture.pool, &NewAttempt { origin, ..attempt("green", name) }).await
}

async fn scheduled(pool: &PgPool, policy: &str) -> Fixture {
    limits(pool, 10, 10).await;
    let fixture = Fixture::new(pool);
    fixture.applied(&hourly(1, &json!({"concurrencyPolicy": policy}))).await;
    fixture.is_planned(at("10:00:00")).await;
    fixture.round(at("10:00:00")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 made"]);
    fixture
}

const FIRST: &str = "hourly-29935320";

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn allow_makes_a_build_beside_one_that_runs(pool: PgPool) {
    let fixture = scheduled(&pool, "Allow").await;
    enqueue(&fixture, FIRST).await;
    fixture.round(at("11:00:00")).await;
    assert_eq!(fixture.builds(), ["01 10:00", "01 11:00"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn forbid_makes_none_until_the_one_before_has_ended(pool: PgPool) {
    let fixture = scheduled(&pool, "Forbid").await;
    fixture.round(at("11:00:00")).await;
    let id = enqueue(&fixture, FIRST).await;
    fixture.round(at("12:00:00")).await;
    claim(&pool).await.expect("it can be claimed");
    fixture.round(at("13:00:00")).await;
    assert!(finish(&pool, id, &failure(Reason::BuildFailed)).await);
    fixture.round(at("14:00:00")).await;
    assert_eq!(
        fixture.outcomes().await,
        ["01 10:00 made", "01 11:00 skipped", "01 12:00 skipped", "01 13:00 skipped", "01 14:00 made"],
        "not queued yet, queued, running"
    );
    let why = fixture.slots().await.swap_remove(1).2.expect("it says why");
    assert_eq!(why, "hourly-29935380 is not made: hourly-29935320 has not ended (concurrencyPolicy Forbid)");
    assert_eq!(fixture.events(), ["Made", "Forbidden", "Forbidden", "Forbidden", "Made"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn forbid_does_not_wait_for_a_build_that_was_deleted_before_it_was_queued(pool: PgPool) {
    let fixture = scheduled(&pool, "Forbid").await;
    fixture.server.holds(&format!("{BUILDS}/{FIRST}"), None);
    fixture.round(at("11:00:00")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 failed", "01 11:00 made"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn replace_cancels_the_one_before_and_makes_the_next_when_it_has_ended(pool: PgPool) {
    let fixture = scheduled(&pool, "Replace").await;
    // Not queued yet: it can't be cancelled.
    fixture.round(at("11:00:00")).await;
    let (_, outcome, message) = fixture.slots().await.swap_remove(1);
    assert_eq!((outcome, message.as_deref()), (None, Some("hourly-29935380 waits until hourly-29935320 has ended")));
    let id = enqueue(&fixture, FIRST).await;
    claim(&pool).await.expect("it can be claimed");
    fixture.round(at("11:00:03")).await;
    assert_eq!(row(&pool, id).await["cancel_reason"], "Superseded");
    fixture.round(at("11:00:06")).await;
    assert_eq!(fixture.builds(), ["01 10:00"], "it still runs");
    assert!(finish(&pool, id, &failure(Reason::Superseded)).await);
    fixture.round(at("11:00:09")).await;
    assert_eq!(fixture.builds(), ["01 10:00", "01 11:00"]);

    // One that waits in the queue goes at once.
    let id = enqueue(&fixture, "hourly-29935380").await;
    fixture.round(at("12:00:00")).await;
    assert_eq!(row(&pool, id).await["status"], "cancelled");
    fixture.round(at("12:00:03")).await;
    assert_eq!(fixture.outcomes().await, ["01 10:00 made", "01 11:00 made", "01 12:00 made"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_another_operator_has_just_made_is_never_in_its_own_way(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let fixture = Fixture::new(&pool);
    fixture.applied(&hourly(1, &json!({"concurrencyPolicy": "Replace"}))).await;
    fixture.is_planned(at("10:00:00")).await;
    // What an operator knows that is paused here.
    fixture.server.refuses(BUILDS);
    fixture.round(at("10:00:00")).await;
    let slot = slots::pending(&pool, at("10:05:00"), 1).await.expect("it can be asked for").swap_remove(0);
    fixture.server.accepts(BUILDS);
    fixture.round(at("10:05:00")).await;
    assert_eq!(slots::unqueued(&pool, slot.id).await.expect("no error"), []);
    let id = enqueue(&fixture, FIRST).await;
    assert_eq!(slots::unended(&pool, slot.id).await.expect("no error"), []);
    // Of a later slot it is the one before.
    fixture.round(at("11:00:00")).await;
    assert_eq!(row(&pool, id).await["cancel_reason"], "Superseded");
}
