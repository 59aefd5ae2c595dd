//! One connection that listens to Postgres and wakes the parts of this process: status changes
//! made by any operator reach the dispatcher and the controller at once. A message can be lost
//! when the connection breaks, so every part also looks again by timer.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::db::STATUS_CHANNEL;

/// Whom a message wakes.
#[derive(Clone)]
pub struct Wakes {
    /// The dispatcher: something may be claimed, launched or stopped.
    pub dispatcher: Arc<Notify>,
    /// The Build controller: the status of this namespace and name has changed.
    pub changed: mpsc::UnboundedSender<(String, String)>,
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
    listener.listen(STATUS_CHANNEL).await?;
    // What was said while nobody listened.
    wakes.dispatcher.notify_one();
    while let Some(message) = listener.try_recv().await? {
        wakes.dispatcher.notify_one();
        if let Some((namespace, name)) = message.payload().split_once('/') {
            // The receiver goes only when the process ends.
            let _ = wakes.changed.send((namespace.to_owned(), name.to_owned()));
        }
    }
    Ok(())
}
