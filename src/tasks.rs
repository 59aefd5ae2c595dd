//! Background tasks: each looks at the rows by timer, takes no input, and may run any number of
//! times. A task that fails says so and runs again at its next turn.

mod cleaner;
pub mod deliverer;
pub mod heartbeat;
pub mod notifier;
mod partitions;
mod rollup;
pub mod sweeper;
pub mod timeouts;

use std::{future::Future, num::NonZeroU16, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{db, runtime::Context};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub heartbeat: heartbeat::Settings,
    /// For how many days logs are kept at least; without it, for ever.
    pub log_days: Option<NonZeroU16>,
}

/// Starts every task; they end at `stop`.
pub fn spawn(tasks: &mut JoinSet<()>, context: &Context, settings: Settings, stop: &CancellationToken) {
    let heartbeat = context.clone();
    tasks.spawn(every("heartbeat", Duration::from_secs(15), context.clone(), stop.clone(), move || {
        heartbeat::beat(heartbeat.clone(), settings.heartbeat)
    }));
    let cleaner = context.clone();
    tasks.spawn(every("cleaner", Duration::from_secs(10), context.clone(), stop.clone(), move || {
        cleaner::clean(cleaner.clone())
    }));
    let sweeper = context.clone();
    tasks.spawn(every("sweeper", Duration::from_mins(5), context.clone(), stop.clone(), move || {
        sweeper::sweep(sweeper.clone())
    }));
    let timeouts = context.clone();
    tasks.spawn(every("timeouts", Duration::from_secs(10), context.clone(), stop.clone(), move || {
        timeouts::give_up(timeouts.clone())
    }));
    let partitions = context.clone();
    tasks.spawn(every("partitions", Duration::from_hours(12), context.clone(), stop.clone(), move || {
        partitions::ensure(partitions.clone(), settings.log_days)
    }));
    let rollup = context.clone();
    tasks.spawn(every("rollup", Duration::from_mins(1), context.clone(), stop.clone(), move || {
        rollup::count(rollup.clone())
    }));
}

async fn every<F>(
    name: &'static str,
    period: Duration,
    context: Context,
    stop: CancellationToken,
    task: impl Fn() -> F + Send,
) where
    F: Future<Output = Result<(), Error>> + Send,
{
    stop.run_until_cancelled(async {
        let mut turn = tokio::time::interval(period);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if let Err(error) = task().await {
                tracing::warn!(task = name, %error, "a background task failed; it runs again at its next turn");
                context.metrics.failed(name);
            }
        }
    })
    .await;
}
