//! Running attempts as the dispatcher and the collector see them: what to launch, what to stop,
//! what to follow.

use image_factory_core::{method::Method, reason::Reason, status::Status};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Error, Result, builds};

/// A claimed attempt whose Job is not known to exist.
#[derive(Clone, Debug)]
pub struct Unlaunched {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub project: String,
    pub worker: String,
    pub spec: Value,
    /// Why it shall stop before it has started, where it shall.
    pub cancel: Option<Reason>,
}

/// Claimed attempts without a Job: those just claimed, and those an operator claimed and then died.
///
/// # Errors
/// When the query fails.
pub async fn unlaunched(pool: &PgPool) -> Result<Vec<Unlaunched>> {
    let rows = sqlx::query!(
        "select b.id, b.resource_namespace, b.resource_name, b.resource_uid, p.name as project, w.worker_name,
                c.spec, b.cancel_reason
         from builds b
         join projects p on p.id = b.project_id
         join build_workers w on w.id = b.worker_id
         join build_configs c on c.build_id = b.id
         where b.status = 'in_progress' and b.job_created_at is null
         order by b.started_at"
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unlaunched {
            id: row.id,
            namespace: row.resource_namespace,
            name: row.resource_name,
            uid: row.resource_uid,
            project: row.project,
            worker: row.worker_name,
            spec: row.spec,
            cancel: cancel_reason(row.cancel_reason),
        })
        .collect())
}

/// The Job of the attempt exists.
///
/// # Errors
/// When the statement fails.
pub async fn job_created(pool: &PgPool, build: Uuid) -> Result<()> {
    sqlx::query!(
        "update builds set job_created_at = now()
         where id = $1 and status = 'in_progress' and job_created_at is null",
        build
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A running attempt that was asked to stop.
#[derive(Clone, Debug)]
pub struct Stopping {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
}

/// Running attempts with a Job that were asked to stop.
///
/// # Errors
/// When the query fails.
pub async fn stopping(pool: &PgPool) -> Result<Vec<Stopping>> {
    Ok(sqlx::query_as!(
        Stopping,
        "select id, resource_namespace as namespace, resource_name as name from builds
         where status = 'in_progress' and cancel_requested_at is not null and job_created_at is not null"
    )
    .fetch_all(pool)
    .await?)
}

/// An attempt to follow.
#[derive(Clone, Debug)]
pub struct Followed {
    pub id: Uuid,
    pub status: Status,
    pub method: Method,
    pub namespace: String,
    pub name: String,
    pub spec: Value,
    pub cancel: Option<Reason>,
}

/// The attempt with this id, whatever its status.
///
/// # Errors
/// When the query fails.
pub async fn followed(pool: &PgPool, build: Uuid) -> Result<Option<Followed>> {
    let row = sqlx::query!(
        "select b.id, b.status, c.build_method, b.resource_namespace, b.resource_name, c.spec, b.cancel_reason
         from builds b join build_configs c on c.build_id = b.id where b.id = $1",
        build
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        Ok(Followed {
            id: row.id,
            status: builds::status(&row.status)?,
            method: row
                .build_method
                .parse()
                .map_err(|error: image_factory_core::method::UnknownMethod| Error::Row(error.to_string()))?,
            namespace: row.resource_namespace,
            name: row.resource_name,
            spec: row.spec,
            cancel: cancel_reason(row.cancel_reason),
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
    Ok(sqlx::query_scalar!(
        "select id from builds
         where status = 'in_progress' and job_created_at < now() - make_interval(secs => $1)",
        seconds
    )
    .fetch_all(pool)
    .await?)
}

fn cancel_reason(text: Option<String>) -> Option<Reason> {
    text.map(|text| text.parse().unwrap_or(Reason::Cancelled))
}
