//! One connection that listens to Postgres and wakes the parts of this process, each by what concerns
//! it: changes made by any operator reach the dispatcher and the controller at once. A message can be lost
//! when the connection breaks, so every part also looks again by timer.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use image_factory_core::status::Status;

use crate::db::{LOOK, SCHEDULES_CHANNEL, STATUS_CHANNEL, STOP_ASKED, deliveries};

/// Whom a message wakes.
#[derive(Clone)]
pub struct Wakes {
    pub dispatcher: DispatcherWakes,
    pub tasks: TaskWakes,
    /// The Build controller: the status of this namespace and name has changed.
    pub changed: mpsc::UnboundedSender<(String, String)>,
    /// The controller of BuildSchedules: the row of this namespace and name has changed.
    pub schedule_changed: mpsc::UnboundedSender<(String, String)>,
}

/// The background tasks that are woken.
#[derive(Clone, Default)]
pub struct TaskWakes {
    /// Webhooks have received something.
    pub deliverer: Arc<Notify>,
    /// There is something to send.
    pub notifier: Arc<Notify>,
    /// A time has changed, or a Build is asked for now.
    pub scheduler: Arc<Notify>,
}

/// One for each kind of the dispatcher's rounds.
#[derive(Clone, Default)]
pub struct DispatcherWakes {
    /// Something waits, or there is room.
    pub claims: Arc<Notify>,
    /// Something is claimed and has no Job.
    pub launches: Arc<Notify>,
    /// Something runs and shall not.
    pub stops: Arc<Notify>,
}

impl DispatcherWakes {
    fn heard(&self, what: &str) {
        if what == STOP_ASKED {
            // One that has no Job yet is ended by whoever would launch it.
            self.launches.notify_one();
            self.stops.notify_one();
        } else if what != Status::InProgress.as_str() {
            self.claims.notify_one();
        }
        // What was claimed wakes nothing here: who claims launches.
    }

    fn all(&self) {
        for wake in [&self.claims, &self.launches, &self.stops] {
            wake.notify_one();
        }
    }
}

/// Listens until the process ends; connects again after a failure.
pub async fn run(pool: PgPool, wakes: Wakes, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            if let Err(error) = listen(&pool, &wakes).await {
                tracing::warn!(%error, "the connection that listens to Postgres broke; it is made again");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}

async fn listen(pool: &PgPool, wakes: &Wakes) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all([STATUS_CHANNEL, SCHEDULES_CHANNEL, deliveries::CHANNEL]).await?;
    // What was said while nobody listened.
    wakes.dispatcher.all();
    wakes.tasks.scheduler.notify_one();
    wakes.tasks.deliverer.notify_one();
    wakes.tasks.notifier.notify_one();
    while let Some(message) = listener.try_recv().await? {
        if message.channel() == deliveries::CHANNEL {
            let wake = if message.payload() == "outbound" { &wakes.tasks.notifier } else { &wakes.tasks.deliverer };
            wake.notify_one();
            continue;
        }
        if message.channel() == SCHEDULES_CHANNEL {
            let told = message.payload();
            let whose = told.strip_prefix(LOOK);
            if whose.is_none() {
                wakes.tasks.scheduler.notify_one();
            }
            if let Some((namespace, name)) = whose.unwrap_or(told).split_once('/') {
                let _ = wakes.schedule_changed.send((namespace.to_owned(), name.to_owned()));
            }
            continue;
        }
        let (what, whose) = message.payload().split_once(' ').unwrap_or_default();
        wakes.dispatcher.heard(what);
        if let Some((namespace, name)) = whose.split_once('/') {
            // The receiver goes only when the process ends.
            let _ = wakes.changed.send((namespace.to_owned(), name.to_owned()));
        }
    }
    Ok(())
}
