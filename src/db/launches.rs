//! Running attempts as the dispatcher and the collector see them: what to launch, what to stop,
//! what to follow.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use image_factory_core::{method::Method, outcome::Stop, patience::Wait, reason::Reason, status::Status, storable};
use k8s_openapi::api::core::v1::Toleration;
use serde_json::Value;
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{Result, builds, logs::Cursor, transitions};
use crate::failpoint;

/// A claimed attempt whose Job is not known to exist.
#[derive(Clone, Debug)]
pub struct Unlaunched {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub project: String,
    pub worker: String,
    pub worker_offline: bool,
    /// Labels of the nodes its Job lands on.
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub method: Method,
    pub spec: Value,
    /// Why it shall stop before it has started, where it shall.
    pub cancel: Option<Reason>,
    /// How often it has gone back to the queue because its Job was refused.
    pub returns: u32,
}

/// Claimed attempts without a Job: those just claimed, and those an operator claimed and then died.
///
/// # Errors
/// When the query fails.
pub async fn unlaunched(pool: &PgPool) -> Result<Vec<Unlaunched>> {
    let rows = sqlx::query_file!("src/db/sql/unlaunched.sql").fetch_all(pool).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Unlaunched {
                id: row.id,
                namespace: row.resource_namespace,
                name: row.resource_name,
                uid: row.resource_uid,
                project: row.project,
                worker: row.worker_name,
                worker_offline: row.worker_offline,
                node_selector: row.node_selector.0,
                tolerations: row.tolerations.0,
                method: builds::method(&row.build_method)?,
                spec: row.spec,
                cancel: cancel_reason(row.cancel_reason),
                returns: u32::try_from(row.returns).unwrap_or(u32::MAX),
            })
        })
        .collect()
}

/// The Jobs of these attempts exist. Gives the attempts that may keep theirs: those that run, and
/// those whose Job ran before this was recorded. The rest has ended without one, or was cleaned up.
///
/// # Errors
/// When the statement fails.
pub async fn jobs_created(pool: &PgPool, builds: &[Uuid]) -> Result<Vec<Uuid>> {
    if builds.is_empty() {
        return Ok(Vec::new());
    }
    let kept = sqlx::query_scalar!(
        "with recorded as (
             update builds set job_created_at = coalesce(job_created_at, now())
             where id = any($1) and status = 'in_progress'
             returning id
         )
         select id as \"id!\" from recorded
         union all
         select id from builds
         where id = any($1) and completed_at is not null and job_created_at is not null and cleanup_at is null",
        builds
    )
    .fetch_all(pool)
    .await?;
    failpoint::statement("launch.after-job-created")?;
    Ok(kept)
}

/// Puts a claimed attempt whose Job was refused for now back into the queue, for `delay` at least.
///
/// # Errors
/// When the statement fails.
pub async fn put_back(pool: &PgPool, build: Uuid, why: &str, delay: Duration) -> Result<()> {
    let change = transitions::Change {
        build,
        reason: format!("the Job was refused: {why}"),
        message: Some(why.to_owned()),
        delay,
        ..transitions::Change::default()
    };
    let mut tx = pool.begin().await?;
    transitions::apply(&mut tx, Status::InProgress, Status::Queued, &[change]).await?;
    tx.commit().await?;
    Ok(())
}

/// Puts claimed attempts whose worker went offline before they had a Job back into the queue.
///
/// # Errors
/// When the statement fails; none is put back then.
pub async fn put_back_stranded(pool: &PgPool, stranded: &[Unlaunched]) -> Result<()> {
    let changes: Vec<transitions::Change> = stranded
        .iter()
        .map(|attempt| transitions::Change {
            build: attempt.id,
            reason: format!("worker {} went offline before the build had a Job", attempt.worker),
            ..transitions::Change::default()
        })
        .collect();
    let mut tx = pool.begin().await?;
    transitions::apply(&mut tx, Status::InProgress, Status::Queued, &changes).await?;
    tx.commit().await?;
    Ok(())
}

/// Notes what the attempt's Pod waits for, or that it waits no longer. Gives how long it has waited for that by the
/// database's clock, which is the same for every operator.
///
/// # Errors
/// When the statement fails.
pub async fn pod_waits(pool: &PgPool, build: Uuid, wait: Option<&Wait>) -> Result<Duration> {
    let seconds = sqlx::query_scalar!(
        "with changed as (
             update builds set
                 pod_waiting_reason = $2::text,
                 pod_waiting_message = $3::text,
                 pod_waiting_since = case when $2 = pod_waiting_reason then pod_waiting_since when $2 is not null then now() end
             where id = $1 and status = 'in_progress' and pod_given_up_at is null
             returning resource_namespace, resource_name, extract(epoch from now() - pod_waiting_since)::float8 as waited
         ),
         told as (
             select pg_notify('image_factory_status', 'in_progress ' || resource_namespace || '/' || resource_name) from changed
         )
         select changed.waited from changed, told",
        build,
        wait.map(|wait| wait.reason.as_str()),
        wait.map(|wait| storable::text(&wait.message))
    )
    .fetch_optional(pool)
    .await?;
    Ok(seconds.flatten().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default())
}

/// The attempt's Pod has waited for too long: from now on the attempt is stopping. `message` tells it.
///
/// # Errors
/// When the statement fails.
pub async fn give_up_pod(pool: &PgPool, build: Uuid, message: &str) -> Result<()> {
    sqlx::query!(
        "with changed as (
             update builds set pod_given_up_at = now(), pod_waiting_message = $2
             where id = $1 and status = 'in_progress' and pod_waiting_reason is not null and pod_given_up_at is null
             returning resource_namespace, resource_name
         )
         select pg_notify('image_factory_status', 'stop_asked ' || resource_namespace || '/' || resource_name)::text as told from changed",
        build,
        storable::text(message)
    )
    .fetch_optional(pool)
    .await?;
    Ok(())
}

/// A running attempt that was told to stop.
#[derive(Clone, Debug)]
pub struct Stopping {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
}

/// Running attempts with a Job that were told to stop: cancelled, or given up.
///
/// # Errors
/// When the query fails.
pub async fn stopping(pool: &PgPool) -> Result<Vec<Stopping>> {
    Ok(sqlx::query_file_as!(Stopping, "src/db/sql/stopping.sql").fetch_all(pool).await?)
}

/// An attempt to follow.
#[derive(Clone, Debug)]
pub struct Followed {
    pub id: Uuid,
    pub status: Status,
    pub namespace: String,
    pub name: String,
    pub method: Method,
    /// The row tells that its Pod can't go on.
    pub pod_waits: bool,
    /// How far its log is stored.
    pub cursors: Vec<Cursor>,
}

/// The attempt with this id, whatever its status.
///
/// # Errors
/// When the query fails.
pub async fn followed(pool: &PgPool, build: Uuid) -> Result<Option<Followed>> {
    Ok(followed_of(pool, &[build]).await?.remove(&build))
}

/// Those of these attempts that there are, whatever their status.
///
/// # Errors
/// When the query fails.
pub async fn followed_of(pool: &PgPool, ids: &[Uuid]) -> Result<HashMap<Uuid, Followed>> {
    let rows = sqlx::query_file!("src/db/sql/followed.sql", ids).fetch_all(pool).await?;
    let mut attempts: HashMap<Uuid, Followed> = HashMap::new();
    for row in rows {
        let attempt = attempts.entry(row.id).or_insert(Followed {
            id: row.id,
            status: builds::status(&row.status)?,
            namespace: row.resource_namespace,
            name: row.resource_name,
            method: builds::method(&row.build_method)?,
            pod_waits: row.pod_waits,
            cursors: Vec::new(),
        });
        attempt.cursors.extend(row.container.map(|container| Cursor {
            container,
            last_timestamp: row.last_timestamp.map(jiff_sqlx::Timestamp::to_jiff),
            lines_at_timestamp: row.lines_at_timestamp.unwrap_or_default(),
            line_number: row.line_number.unwrap_or_default(),
            finished: row.finished.unwrap_or_default(),
            bytes: row.bytes.unwrap_or_default(),
            capped: row.capped.unwrap_or_default(),
        }));
    }
    Ok(attempts)
}

/// What an attempt's end is decided with, read when it ends: a cancellation may have come meanwhile.
#[derive(Clone, Debug)]
pub struct Ending {
    pub method: Method,
    pub spec: Value,
    /// Which of its run, from 1.
    pub attempt: i32,
    /// Why it was told to stop, where it was.
    pub stop: Option<Stop>,
    /// The Build it belongs to.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The last lines of the log, oldest first.
    pub tail: Vec<String>,
}

/// `None`: the attempt does not run (any more).
///
/// # Errors
/// When the query fails or the row holds what this version does not know.
pub async fn ending(pool: &PgPool, build: Uuid, tail_lines: i64) -> Result<Option<Ending>> {
    let row = sqlx::query_file!("src/db/sql/ending.sql", build, tail_lines).fetch_optional(pool).await?;
    row.map(|row| {
        Ok(Ending {
            method: builds::method(&row.build_method)?,
            spec: row.spec,
            attempt: row.attempt,
            stop: match (cancel_reason(row.cancel_reason), row.given_up_reason, row.given_up_message) {
                (Some(reason), ..) => Some(Stop::Cancelled(reason)),
                (None, Some(reason), Some(message)) => Some(Stop::GivenUp { reason: wait_reason(&reason), message }),
                _ => None,
            },
            namespace: row.resource_namespace,
            name: row.resource_name,
            uid: row.resource_uid,
            tail: row.tail,
        })
    })
    .transpose()
}

/// Attempts whose Job was made at least `seconds` ago and that still run: all that the collector
/// must have a Pod for.
///
/// # Errors
/// When the query fails.
pub async fn launched(pool: &PgPool, seconds: f64) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_file_scalar!("src/db/sql/launched.sql", seconds).fetch_all(pool).await?)
}

fn wait_reason(text: &str) -> Reason {
    text.parse().unwrap_or(Reason::Internal)
}

fn cancel_reason(text: Option<String>) -> Option<Reason> {
    text.map(|text| text.parse().unwrap_or(Reason::Cancelled))
}
