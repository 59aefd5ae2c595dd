//! The attempts of a run take turns: each but the first is made in the transaction that ends the one before it, and
//! whoever stops a run waits for that, so that no attempt slips through between the two.

use std::time::Duration;

use image_factory_core::reason::Reason;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use crate::clock;

/// Whoever stops the runs of a Build, or ends an attempt that is followed by another, does so alone, to the end of the
/// transaction. To be taken before any row is locked.
pub(super) async fn take_turn(conn: &mut PgConnection, resource_uid: &str) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('image-factory runs ' || $1, 0))::text as locked",
        resource_uid
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// The same for the Build that this attempt is of.
pub(super) async fn take_turn_of(conn: &mut PgConnection, build: Uuid) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('image-factory runs ' || resource_uid, 0))::text as locked
         from builds where id = $1",
        build
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Queues the attempt after one that failed in this transaction; not where its run was asked to stop meanwhile.
pub(super) async fn insert_next_attempt(
    conn: &mut PgConnection,
    failed: Uuid,
    delay: Duration,
    reason: Reason,
) -> Result<()> {
    sqlx::query_file!(
        "src/db/sql/next_attempt.sql",
        failed,
        clock::new_id(),
        delay.as_secs_f64(),
        reason.as_str(),
        clock::new_id(),
        clock::new_id(),
        clock::new_id()
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}
