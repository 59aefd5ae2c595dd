//! Whether the process lives, and whether it is ready: live is the server answering at all; ready
//! is Postgres answering and every watch having seen its objects once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

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
