//! Makes the partitions of the log ahead of their weeks, and drops those whose time is over.

use std::num::NonZeroU16;

use jiff::{ToSpan, tz::TimeZone};

use super::Error;
use crate::{clock, db::settings, runtime::Context};

/// `keep`: for how many days logs are kept at least; without it, for ever.
pub async fn ensure(context: Context, keep: Option<NonZeroU16>) -> Result<(), Error> {
    let today = clock::now().to_zoned(TimeZone::UTC).date();
    let ahead = today.saturating_add(21.days());
    settings::ensure_log_partitions(&context.pool, today, ahead).await?;
    if let Some(days) = keep {
        let before = today.saturating_sub(i64::from(days.get()).days());
        while settings::drop_logs(&context.pool, before).await? > 0 {
            tracing::info!("a week of old logs was dropped");
        }
    }
    Ok(())
}
