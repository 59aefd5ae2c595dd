//! How old rows of `webhook_deliveries` and `schedule_slots` go, batch by batch. What is not over stays, whatever its age,
//! and so does what a Build that is still there was made for.

use std::num::NonZeroU16;

use sqlx::PgPool;
use uuid::Uuid;

use super::Result;

/// Deletes at most `limit` deliveries and tries that are older than these days, but for those of `origins`; gives how many.
///
/// # Errors
/// When the statement fails.
pub async fn forget_deliveries(pool: &PgPool, days: NonZeroU16, origins: &[Uuid], limit: i64) -> Result<u64> {
    let days = i32::from(days.get());
    let done = sqlx::query_file!("src/db/sql/forget_deliveries.sql", days, origins, limit).execute(pool).await?;
    Ok(done.rows_affected())
}

/// The same with slots of schedules.
///
/// # Errors
/// When the statement fails.
pub async fn forget_slots(pool: &PgPool, days: NonZeroU16, origins: &[Uuid], limit: i64) -> Result<u64> {
    let days = i32::from(days.get());
    let done = sqlx::query_file!("src/db/sql/forget_slots.sql", days, origins, limit).execute(pool).await?;
    Ok(done.rows_affected())
}
