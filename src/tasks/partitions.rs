//! Makes the partitions of the log ahead of their weeks.

use jiff::{ToSpan, tz::TimeZone};

use super::Error;
use crate::{clock, db::settings, runtime::Context};

pub async fn ensure(context: Context) -> Result<(), Error> {
    let today = clock::now().to_zoned(TimeZone::UTC).date();
    let ahead = today.saturating_add(21.days());
    settings::ensure_log_partitions(&context.pool, today, ahead).await?;
    Ok(())
}
