//! How an attempt ended and what it cost: `build_results` and `build_metrics`, written in the transaction of the
//! attempt's last transition together with what it pushed, so that a finished build has exactly one result.

use std::time::Duration;

use image_factory_core::{cost::Cost, outcome::Outcome, reason::Reason, report::SourceFacts, status::Status, storable};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Result, images, runs, steps, transitions};
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

/// How a running attempt ended, and what follows from it.
#[derive(Clone, Debug)]
pub struct End<'a> {
    pub outcome: &'a Outcome,
    pub measured: Measured,
    pub steps: steps::Recorded,
    pub source: Option<&'a SourceFacts>,
    /// How long its Job stays; `None`: it never had one.
    pub job_ttl: Option<Duration>,
    /// How long afterwards the run's next attempt may start; `None`: there is none.
    pub retry: Option<Duration>,
}

impl<'a> End<'a> {
    /// Of an attempt that never had a Job.
    pub fn of(outcome: &'a Outcome) -> Self {
        Self {
            outcome,
            measured: Measured::default(),
            steps: steps::Recorded::default(),
            source: None,
            job_ttl: None,
            retry: None,
        }
    }
}

/// Ends a running attempt, and queues the next one of its run. `false`: it had ended before, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn finish(
    pool: &PgPool,
    build: Uuid,
    End { outcome, measured, steps, source, job_ttl, retry }: End<'_>,
) -> Result<bool> {
    let mut tx = pool.begin().await?;
    if retry.is_some() {
        runs::take_turn_of(&mut tx, build).await?;
    }
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
        source.map(|source| storable::text(&source.commit)),
        source.and_then(|source| source.branch.as_deref()).map(storable::text),
        source.map(|source| storable::text(&source.author)),
        source.map(|source| storable::text(&source.message)),
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
        cost.disk_write_bytes,
        pushed.further
    )
    .execute(&mut *tx)
    .await?;
    steps::record(&mut tx, build, &steps).await?;
    if let (Some(delay), Some(failure)) = (retry, failure) {
        runs::insert_next_attempt(&mut tx, build, delay, failure.reason).await?;
    }
    failpoint::statement("finish.before-commit")?;
    tx.commit().await?;
    failpoint::statement("finish.after-commit")?;
    Ok(true)
}

/// The results of attempts that ended in the queue: they never ran, so all their time was waiting, and there is nothing
/// to clean.
pub(super) async fn insert_unstarted(
    conn: &mut PgConnection,
    builds: &[Uuid],
    status: &str,
    reason: Reason,
) -> Result<()> {
    if builds.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = builds.iter().map(|_| clock::new_id()).collect();
    sqlx::query_file!("src/db/sql/unstarted.sql", builds, &ids, status, reason.as_str(), reason.stage().as_str())
        .execute(conn)
        .await?;
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
    Ok(sqlx::query_file_as!(Expired, "src/db/sql/expired.sql", limit).fetch_all(pool).await?)
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
