//! Background tasks: each looks at the rows by timer (some are woken too), takes no input, and may run any
//! number of times. A task that fails says so and runs again at its next turn.

pub mod cleaner;
pub mod deliverer;
pub mod heartbeat;
pub mod history;
pub mod notifier;
pub mod old_rows;
mod partitions;
pub mod poller;
mod rollup;
pub mod scheduler;
pub mod sweeper;
pub mod timeouts;

use std::{future::Future, num::NonZeroU16, sync::Arc, time::Duration};

use kube::runtime::events::{Event, EventType};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    crd::WebhookConfig,
    db, kube_ext,
    runtime::{Context, listener::TaskWakes},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("it panicked")]
    Panicked,
}

/// How often tasks that are woken look all the same.
const WAKEFUL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub heartbeat: heartbeat::Settings,
    /// For how many days logs are kept at least; without it, for ever.
    pub log_days: Option<NonZeroU16>,
    pub old_rows: old_rows::Days,
}

/// Starts every task; they end at `stop`. `sender` sends for the notifier.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    context: &Context,
    settings: Settings,
    sender: notifier::Sender,
    wakes: TaskWakes,
    stop: &CancellationToken,
) {
    tasks.spawn(scheduler::run(context.clone(), wakes.scheduler, stop.clone()));
    let deliverer = context.clone();
    tasks.spawn(woken("deliverer", WAKEFUL, wakes.deliverer, context.clone(), stop.clone(), move || {
        let context = deliverer.clone();
        async move { deliverer::deliver(&context).await }
    }));
    let (notifier, sender) = (context.clone(), Arc::new(sender));
    tasks.spawn(woken("notifier", WAKEFUL, wakes.notifier, context.clone(), stop.clone(), move || {
        let (context, sender) = (notifier.clone(), sender.clone());
        async move { notifier::notify(&context, &sender).await }
    }));
    let poller = context.clone();
    tasks.spawn(every("poller", WAKEFUL, context.clone(), stop.clone(), move || poller::poll(poller.clone())));
    let history = context.clone();
    tasks.spawn(every("history", Duration::from_mins(1), context.clone(), stop.clone(), move || {
        history::prune(history.clone())
    }));
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
    let old_rows = context.clone();
    tasks.spawn(every("old_rows", Duration::from_hours(24), context.clone(), stop.clone(), move || {
        old_rows::forget(old_rows.clone(), settings.old_rows)
    }));
    let rollup = context.clone();
    tasks.spawn(every("rollup", Duration::from_mins(1), context.clone(), stop.clone(), move || {
        rollup::count(rollup.clone())
    }));
}

/// Says in an Event about a `WebhookConfig` that something is not tried any more.
async fn given_up(context: &Context, webhook: &WebhookConfig, reason: &str, action: &str, note: &str) {
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(kube_ext::event_note(note)),
        action: action.to_owned(),
        secondary: None,
    };
    context.publish(webhook, &event).await;
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
    // Nobody wakes it.
    woken(name, period, Arc::default(), context, stop, task).await;
}

/// The same, and whenever `wake` says so.
async fn woken<F>(
    name: &'static str,
    period: Duration,
    wake: Arc<Notify>,
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
            tokio::select! {
                _ = turn.tick() => {}
                () = wake.notified() => {}
            }
            if let Err(error) = task().await {
                tracing::warn!(task = name, %error, "a background task failed; it runs again at its next turn");
                context.metrics.failed(name);
            }
        }
    })
    .await;
}
