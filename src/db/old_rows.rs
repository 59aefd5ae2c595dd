//! How old rows of `webhook_deliveries` and `schedule_slots` go, batch by batch. What is not over stays, whatever its age,
//! and so does what a Build that is still there was made for.

use std::num::NonZeroU16;

use sqlx::PgPool;
use uuid::Uuid;

use super::Result;

/// Which rows.
#[derive(Clone, Copy, Debug)]
pub enum Old {
    /// Deliveries, and the tries to send them.
    Deliveries,
    Slots,
}

/// Deletes at most `limit` rows that are older than these days, but for those of `origins`; gives how many.
///
/// # Errors
/// When the statement fails.
pub async fn forget(pool: &PgPool, old: Old, days: NonZeroU16, origins: &[Uuid], limit: i64) -> Result<u64> {
    let days = i32::from(days.get());
    let done = match old {
        Old::Deliveries => {
            sqlx::query_file!("src/db/sql/forget_deliveries.sql", days, origins, limit).execute(pool).await?
        }
        Old::Slots => sqlx::query_file!("src/db/sql/forget_slots.sql", days, origins, limit).execute(pool).await?,
    };
    Ok(done.rows_affected())
}
