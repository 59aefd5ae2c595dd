//! The newest attempt of each Build, in one row that tells its whole status: how far it is, what it waits for, how it
//! ended.

use std::collections::HashMap;

use image_factory_core::status::Status;
use jiff::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use super::status;
use crate::db::Result;

/// The newest attempt of a Build's newest run: what the controller decides from, and what its
/// status is a projection of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newest {
    pub id: Uuid,
    pub number: i32,
    pub run: i32,
    pub attempt: i32,
    pub status: Status,
    pub inputs_hash: String,
    pub observed_rerun: Option<String>,
    pub observed_generation: i64,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub cancel_requested: bool,
    /// What its Pod waits for: reason and sentence.
    pub pod_waits: Option<(String, String)>,
    /// That was for too long.
    pub pod_given_up: bool,
    pub job_created: bool,
    pub error_message: Option<String>,
    pub failure_reason: Option<String>,
    pub failure_stage: Option<String>,
    pub exit_code: Option<i32>,
    pub worker: Option<String>,
    pub image: Option<PushedImage>,
    pub queue: Option<QueuePlace>,
    /// The last lines of the step that failed, or else of the log of a failed attempt.
    pub log_tail: Vec<String>,
    pub steps: Option<Steps>,
}

/// How far an attempt's steps have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The one that failed, or else the newest that runs.
    pub current: Option<String>,
    pub done: i32,
    /// Known so far.
    pub total: i32,
    pub cached: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedImage {
    pub reference: String,
    pub digest: String,
    pub size_bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// In the tenant, from 1.
    pub position: i64,
    pub waiting_for: String,
    pub message: String,
}

/// The newest attempt of this Build; `None` where it has none.
///
/// # Errors
/// When the query fails or a row holds what this version does not know.
pub async fn newest(pool: &PgPool, resource_uid: &str) -> Result<Option<Newest>> {
    Ok(newest_of(pool, &[resource_uid.to_owned()]).await?.remove(resource_uid))
}

/// The newest attempt of each of these Builds that has any, by the Build's UID.
///
/// # Errors
/// When the query fails or a row holds what this version does not know.
pub async fn newest_of(pool: &PgPool, resource_uids: &[String]) -> Result<HashMap<String, Newest>> {
    let rows = sqlx::query_file!("src/db/sql/newest.sql", resource_uids).fetch_all(pool).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let image = match (row.output_image_url, row.output_image_digest) {
            (Some(reference), Some(digest)) => {
                Some(PushedImage { reference, digest, size_bytes: row.artifact_size_bytes.unwrap_or(0) })
            }
            _ => None,
        };
        let queue = match (row.position, row.waiting_for) {
            (Some(position), Some(waiting_for)) => {
                Some(QueuePlace { position, waiting_for, message: row.waiting_message.unwrap_or_default() })
            }
            _ => None,
        };
        let newest = Newest {
            id: row.id,
            number: row.build_number,
            run: row.run,
            attempt: row.attempt,
            status: status(&row.status)?,
            inputs_hash: row.inputs_hash,
            observed_rerun: row.observed_rerun,
            observed_generation: row.observed_generation,
            queued_at: row.queued_at.to_jiff(),
            started_at: row.started_at.map(jiff_sqlx::Timestamp::to_jiff),
            completed_at: row.completed_at.map(jiff_sqlx::Timestamp::to_jiff),
            cancel_requested: row.cancel_requested_at.is_some(),
            pod_waits: row.pod_waiting_reason.zip(row.pod_waiting_message),
            pod_given_up: row.pod_given_up_at.is_some(),
            job_created: row.job_created_at.is_some(),
            error_message: row.error_message,
            failure_reason: row.failure_reason,
            failure_stage: row.failure_stage,
            exit_code: row.exit_code,
            worker: row.worker_name,
            image,
            queue,
            log_tail: row.log_tail.unwrap_or_default(),
            steps: row.steps_total.map(|total| Steps {
                current: row.step,
                done: row.steps_done.and_then(|count| i32::try_from(count).ok()).unwrap_or_default(),
                total,
                cached: row.steps_cached.and_then(|count| i32::try_from(count).ok()).unwrap_or_default(),
            }),
        };
        found.insert(row.resource_uid, newest);
    }
    Ok(found)
}
