//! Whether the process lives, and whether it is ready: live is the server answering at all; ready
//! is Postgres answering and, for the leader, its watch of Pods having seen them all once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Default)]
pub struct Health {
    database: Arc<AtomicBool>,
    watches: Arc<AtomicBool>,
}

impl Health {
    pub fn set_database(&self, up: bool) {
        self.database.store(up, Ordering::Relaxed);
    }

    pub fn set_watches(&self, synced: bool) {
        self.watches.store(synced, Ordering::Relaxed);
    }

    /// What keeps the operator from being ready; empty when it is.
    pub fn missing(&self) -> Vec<&'static str> {
        [("database", &self.database), ("watches", &self.watches)]
            .into_iter()
            .filter(|(_, ready)| !ready.load(Ordering::Relaxed))
            .map(|(name, _)| name)
            .collect()
    }
}

/// Asks Postgres, again and again, whether it is there.
pub async fn watch_database(pool: PgPool, health: Health, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            let answer = timeout(PATIENCE, crate::db::ping(&pool)).await;
            health.set_database(matches!(answer, Ok(Ok(()))));
            tokio::time::sleep(PERIOD).await;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_both_the_database_and_the_watches() {
        let health = Health::default();
        assert_eq!(health.missing(), ["database", "watches"]);
        health.set_watches(true);
        assert_eq!(health.missing(), ["database"]);
        health.set_database(true);
        assert!(health.missing().is_empty());
        health.set_database(false);
        assert_eq!(health.missing(), ["database"]);
    }
}
