//! Ends builds that have waited in the queue for longer than they may. What runs for too long is ended by its own Pod.

use super::Error;
use crate::{db::queue, runtime::Context};

const BATCH: u8 = 100;

pub async fn give_up(context: Context) -> Result<(), Error> {
    loop {
        let ended = queue::time_out(&context.pool, i64::from(BATCH)).await?;
        for build in &ended {
            tracing::info!(build.id = %build, "a build waited in the queue for too long");
        }
        if ended.len() < usize::from(BATCH) {
            return Ok(());
        }
    }
}
