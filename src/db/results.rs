//! How an attempt ended and what it cost: `build_results` and `build_metrics`, written in the transaction of the
//! attempt's last transition together with what it pushed, so that a finished build has exactly one result.

use std::time::Duration;

use image_factory_core::{cost::Cost, outcome::Outcome, reason::Reason, report::SourceFacts, status::Status};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Result, images, steps, transitions};
use crate::{clock, failpoint};

/// What was measured; `None` where nothing could be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// The build container in milliseconds, push included.
    pub execution: Option<i64>,
    /// The push in milliseconds.
    pub push: Option<i64>,
    pub cost: Cost,
}

/// Ends a running attempt; its Job may go `job_ttl` later (`None`: it never had one). `false`: it had
/// ended before, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn finish(
    pool: &PgPool,
    build: Uuid,
    outcome: &Outcome,
    measured: Measured,
    steps: &steps::Recorded,
    source: Option<&SourceFacts>,
    job_ttl: Option<Duration>,
) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let failure = outcome.failure.as_ref();
    let change = transitions::Change {
        build,
        reason: failure.map_or_else(
            || "the image was pushed and confirmed by the registry".to_owned(),
            |failure| format!("{}: {}", failure.reason, failure.message),
        ),
        message: failure.map(|failure| failure.message.clone()),
        ..transitions::Change::default()
    };
    if transitions::apply(&mut tx, Status::InProgress, outcome.status, &[change]).await?.is_empty() {
        return Ok(false);
    }
    let image = outcome.image.as_ref();
    let pushed = images::Pushed::of(build, image);
    let cost = measured.cost;
    sqlx::query_file!(
        "src/db/sql/finish.sql",
        build,
        clock::new_id(),
        outcome.result_status(),
        outcome.exit_code,
        image.map(|image| image.reference.as_str()),
        image.map(|image| image.digest.as_str()),
        failure.map(|failure| failure.reason.as_str()),
        failure.map(|failure| failure.stage.as_str()),
        measured.execution,
        measured.push,
        job_ttl.map(|ttl| ttl.as_secs_f64()),
        source.map(|source| text(&source.commit)),
        source.and_then(|source| source.branch.as_deref()).map(text),
        source.map(|source| text(&source.author)),
        source.map(|source| text(&source.message)),
        pushed.images,
        &pushed.tags,
        &pushed.ids,
        pushed.compressed_size,
        pushed.uncompressed_size,
        pushed.compression_ratio,
        clock::new_id(),
        cost.build_seconds,
        cost.push_seconds,
        cost.peak_memory_mebibytes,
        cost.cpu_percent,
        cost.disk_read_bytes,
        cost.disk_write_bytes
    )
    .execute(&mut *tx)
    .await?;
    steps::record(&mut tx, build, steps).await?;
    failpoint::statement("finish.before-commit")?;
    tx.commit().await?;
    failpoint::statement("finish.after-commit")?;
    Ok(true)
}

/// What a stranger wrote, without the one character that Postgres can't hold.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The result of an attempt that ended in the queue: it never ran, so all its time was waiting.
pub(super) async fn insert_unstarted(conn: &mut PgConnection, build: Uuid, status: &str, reason: Reason) -> Result<()> {
    sqlx::query!(
        "insert into build_results (id, build_id, project_id, status, failure_reason, failure_stage,
             total_duration_milliseconds, queue_wait_milliseconds, cleanup_status)
         select $2, id, project_id, $3, $4, $5, waited, waited, 'completed'
         from builds,
             lateral (select greatest(0, extract(epoch from now() - greatest(queued_at, coalesce(not_before, queued_at))) * 1000)::bigint as waited) w
         where id = $1",
        build,
        clock::new_id(),
        status,
        reason.as_str(),
        reason.stage().as_str()
    )
    .execute(&mut *conn)
    .await?;
    // Nothing was made in the cluster: there is nothing to clean.
    sqlx::query!("update builds set cleanup_at = now() where id = $1", build).execute(conn).await?;
    Ok(())
}

/// A finished attempt whose Job has outlived `spec.retention.jobTtl`.
#[derive(Clone, Debug)]
pub struct Expired {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
}

/// Attempts whose Job may go: ended longer ago than `spec.retention.jobTtl`.
///
/// # Errors
/// When the query fails.
pub async fn expired(pool: &PgPool, limit: i64) -> Result<Vec<Expired>> {
    Ok(sqlx::query_as!(
        Expired,
        "select b.id, b.resource_namespace as namespace, b.resource_name as name
         from builds b
         where b.cleanup_at is null and b.cleanup_due_at <= now()
         order by b.cleanup_due_at
         limit $1",
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// The Job is gone, or could not be deleted.
///
/// # Errors
/// When a statement fails.
pub async fn cleaned(pool: &PgPool, build: Uuid, status: &str) -> Result<()> {
    sqlx::query!(
        "with cleaned as (
             update builds
             set cleanup_at = case when $2 = 'completed' then now() end,
                 -- One that can't be cleaned lets the others go first.
                 cleanup_due_at = case when $2 = 'completed' then cleanup_due_at else now() + interval '5 minutes' end
             where id = $1
             returning id
         )
         update build_results set cleanup_status = $2 from cleaned where build_id = cleaned.id",
        build,
        status
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Marks artifacts whose time is over; gives how many.
///
/// # Errors
/// When the statement fails.
pub async fn expire_artifacts(pool: &PgPool, limit: i64) -> Result<u64> {
    let expired = sqlx::query!(
        "update build_artifacts set is_available = false
         where id in (select id from build_artifacts where is_available and expires_at <= now() order by expires_at limit $1)",
        limit
    )
    .execute(pool)
    .await?;
    Ok(expired.rows_affected())
}
