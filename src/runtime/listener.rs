//! One connection that listens to Postgres and wakes the parts of this process, each by what concerns
//! it: changes made by any operator reach the dispatcher and the controller at once. A message can be lost
//! when the connection breaks, so every part also looks again by timer.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use image_factory_core::status::Status;

use crate::db::{STATUS_CHANNEL, STOP_ASKED, deliveries};

/// Whom a message wakes.
#[derive(Clone)]
pub struct Wakes {
    pub dispatcher: DispatcherWakes,
    /// The deliverer: webhooks have received something.
    pub deliveries: Arc<Notify>,
    /// The notifier: there is something to send.
    pub notifications: Arc<Notify>,
    /// The Build controller: the status of this namespace and name has changed.
    pub changed: mpsc::UnboundedSender<(String, String)>,
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
    listener.listen_all([STATUS_CHANNEL, deliveries::CHANNEL]).await?;
    // What was said while nobody listened.
    wakes.dispatcher.all();
    wakes.deliveries.notify_one();
    wakes.notifications.notify_one();
    while let Some(message) = listener.try_recv().await? {
        if message.channel() == deliveries::CHANNEL {
            let wake = if message.payload() == "outbound" { &wakes.notifications } else { &wakes.deliveries };
            wake.notify_one();
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
