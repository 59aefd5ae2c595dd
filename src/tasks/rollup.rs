//! Keeps the days' numbers true: counts what ended since the last turn, batch by batch, so that no
//! transaction is long, not even the first one after years.

use super::Error;
use crate::{db::rollup, runtime::Context};

const BATCH: u16 = 1_000;

pub async fn count(context: Context) -> Result<(), Error> {
    while rollup::count(&context.pool, BATCH).await? == usize::from(BATCH) {}
    Ok(())
}
