//! The table `webhook_deliveries`, outbound: what webhooks send, and what they tell the Git host of a commit. The rows are made by the transitions they tell of
//! (migration 0046); a try that fails is followed by a row of its own.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Result, webhooks};
use crate::{clock, crd::WebhookConfigSpec, failpoint};

/// `event_type` of what is told of a commit.
pub const COMMIT_STATUS: &str = "commit_status";

/// What is being sent: nothing more of it is taken.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    /// Webhooks that are sent as much as one may be at once.
    pub webhooks: Vec<Uuid>,
    /// Commits whose state is being told, as [`Taken::commit`] has them.
    pub commits: Vec<String>,
}

/// A notification that was taken, to be sent within a minute.
#[derive(Clone, Debug)]
pub struct Taken {
    pub id: Uuid,
    /// The same on every try.
    pub delivery_id: String,
    pub attempt: i32,
    pub event: String,
    pub payload: Value,
    pub build: Uuid,
    pub namespace: String,
    pub webhook_id: Uuid,
    pub webhook: String,
    pub webhook_uid: String,
    pub spec: WebhookConfigSpec,
    /// Neither suspended nor deleted.
    pub is_active: bool,
    /// The receiver wants nothing ever again.
    pub is_disabled: bool,
    /// The commit has a newer state.
    pub is_outdated: bool,
}

impl Taken {
    /// The webhook and the commit that it tells the state of, if it does: what is outdated is told nobody.
    pub fn commit(&self) -> Option<String> {
        let tells = self.event == COMMIT_STATUS && !self.is_outdated;
        let commit = self.payload["commit"].as_str().filter(|_| tells)?;
        Some(format!("{} {commit}", self.webhook_id))
    }
}

/// Takes notifications that are due, at most so many of one webhook, and none of what is busy.
///
/// # Errors
/// When the statement fails; nothing is taken then.
pub async fn take(pool: &PgPool, limit: usize, of_one: usize, busy: &Busy) -> Result<Vec<Taken>> {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let rows =
        sqlx::query_file!("src/db/sql/notifications.sql", number(limit), number(of_one), &busy.webhooks, &busy.commits)
            .fetch_all(pool)
            .await?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        match webhooks::spec(row.spec) {
            Ok(spec) => taken.push(Taken {
                id: row.id,
                delivery_id: row.delivery_id,
                attempt: row.attempt_number,
                event: row.event_type,
                payload: row.payload,
                build: row.build_id,
                namespace: row.namespace,
                webhook_id: row.webhook_config_id,
                webhook: row.webhook_name,
                webhook_uid: row.resource_uid,
                spec,
                is_active: row.is_active,
                is_disabled: row.is_disabled,
                is_outdated: row.is_outdated,
            }),
            Err(error) => {
                let unreadable = Tried { error: Some(error.to_string()), ..Tried::default() };
                tried(pool, row.id, &unreadable).await?;
            }
        }
    }
    Ok(taken)
}

/// How a try went.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub status: Option<u16>,
    /// `None`: it was received.
    pub error: Option<String>,
    /// `None`: it is not sent again.
    pub next: Option<Duration>,
    /// The receiver wants nothing ever again.
    pub is_gone: bool,
}

/// Notes how a try went.
///
/// # Errors
/// When the statement fails; it is sent again then, under the same id.
pub async fn tried(pool: &PgPool, notification: Uuid, Tried { status, error, next, is_gone }: &Tried) -> Result<()> {
    failpoint::statement("notify.before-noted")?;
    sqlx::query_file!(
        "src/db/sql/notified.sql",
        notification,
        status.map(i32::from),
        error.as_deref(),
        clock::new_id(),
        next.map(|next| next.as_secs_f64()),
        is_gone
    )
    .execute(pool)
    .await?;
    Ok(())
}
