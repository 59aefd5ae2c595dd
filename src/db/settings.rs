//! The operator's defaults, where SQL can see them, and the partitions of the log.

use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;

use super::Result;

/// # Errors
/// When the statement fails.
pub async fn declare(pool: &PgPool, max_concurrent_builds: i32, max_queued_wait_minutes: Option<i32>) -> Result<()> {
    sqlx::query!(
        "insert into operator_settings as s (max_concurrent_builds, max_queued_wait_minutes) values ($1, $2)
         on conflict on constraint operator_settings_pkey do update
         set max_concurrent_builds = excluded.max_concurrent_builds,
             max_queued_wait_minutes = excluded.max_queued_wait_minutes,
             updated_at = now()
         where (s.max_concurrent_builds, s.max_queued_wait_minutes)
             is distinct from (excluded.max_concurrent_builds, excluded.max_queued_wait_minutes)",
        max_concurrent_builds,
        max_queued_wait_minutes
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes the weekly partitions of `build_logs` for these days, where they are missing.
///
/// # Errors
/// When the statement fails.
pub async fn ensure_log_partitions(pool: &PgPool, first: Date, last: Date) -> Result<i32> {
    Ok(sqlx::query_scalar!(
        "select ensure_build_log_partitions($1, $2) as \"created!\"",
        first.to_sqlx() as _,
        last.to_sqlx() as _
    )
    .fetch_one(pool)
    .await?)
}

/// Drops the weeks of `build_logs` that ended before this day; gives how many.
///
/// # Errors
/// When the statement fails: also where someone reads a log for so long that it can't be dropped now.
pub async fn drop_logs(pool: &PgPool, before: Date) -> Result<i32> {
    Ok(sqlx::query_scalar!("select drop_build_logs($1) as \"dropped!\"", before.to_sqlx() as _).fetch_one(pool).await?)
}
