//! Declares the built-in worker and the operator's defaults, and notes which workers were seen, again and again: a
//! heartbeat.

use super::Error;
use crate::{
    db::{settings, workers},
    runtime::Context,
};

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Builds the built-in worker runs at once.
    pub worker_builds: i32,
    /// Builds a tenant without a policy runs at once.
    pub tenant_builds: i32,
    /// Minutes that a build of such a tenant may wait in the queue; `None`: as long as it takes.
    pub queued_minutes: Option<i32>,
}

pub async fn beat(context: Context, settings: Settings) -> Result<(), Error> {
    settings::declare(&context.pool, settings.tenant_builds, settings.queued_minutes).await?;
    workers::beat(&context.pool, settings.worker_builds).await?;
    Ok(())
}
