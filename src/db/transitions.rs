//! The one writer of `builds.status` and of `build_status_history`, after the first row of an
//! attempt.

use std::time::Duration;

use image_factory_core::{status::Status, storable};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use crate::clock;

/// One attempt's change; `from` and `to` are the batch's.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub build: Uuid,
    /// For a claim: the worker that takes it.
    pub worker: Option<Uuid>,
    /// A sentence for the history.
    pub reason: String,
    /// For a failure, or a return to the queue: `builds.error_message`.
    pub message: Option<String>,
    /// For a return to the queue: how long it stays there at least.
    pub delay: Duration,
}

/// Moves what still is `from`; gives the ids that moved. An illegal transition moves nothing.
///
/// # Errors
/// When the statement fails; nothing has moved then.
pub async fn apply(conn: &mut PgConnection, from: Status, to: Status, changes: &[Change]) -> Result<Vec<Uuid>> {
    debug_assert!(to.may_follow(Some(from)), "{from} → {to} is not legal");
    if changes.is_empty() || !to.may_follow(Some(from)) {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = changes.iter().map(|change| change.build).collect();
    let workers: Vec<Option<Uuid>> = changes.iter().map(|change| change.worker).collect();
    // Parts of them are others' words: a server's, a builder's.
    let reasons: Vec<String> = changes.iter().map(|change| storable::text(&change.reason)).collect();
    let messages: Vec<Option<String>> =
        changes.iter().map(|change| change.message.as_deref().map(storable::text)).collect();
    let delays: Vec<f64> = changes.iter().map(|change| change.delay.as_secs_f64()).collect();
    let history: Vec<Uuid> = changes.iter().map(|_| clock::new_id()).collect();
    let moved = sqlx::query_file!(
        "src/db/sql/transition.sql",
        &ids,
        &workers as &[Option<Uuid>],
        &reasons,
        &messages as &[Option<String>],
        &history,
        from.as_str(),
        to.as_str(),
        &delays
    )
    .fetch_all(conn)
    .await?;
    Ok(moved.into_iter().map(|row| row.id).collect())
}
