//! Whether the process lives, and whether it is ready. Ready is Postgres answering and, for the
//! leader, every watch having seen all objects once. Live is every watch of the leader being answered:
//! one that is silent for long would leave builds standing, and only a new process helps.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// Twice the time after which a watch is asked for anew.
const SILENCE: Duration = Duration::from_mins(10);

/// What the leader watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Builds,
    Policies,
    Namespaces,
    Pods,
    Workers,
    Nodes,
    Webhooks,
}

impl Watch {
    const ALL: [Self; 7] =
        [Self::Builds, Self::Policies, Self::Namespaces, Self::Pods, Self::Workers, Self::Nodes, Self::Webhooks];

    const fn name(self) -> &'static str {
        match self {
            Self::Builds => "watch of builds",
            Self::Policies => "watch of policies",
            Self::Namespaces => "watch of namespaces",
            Self::Pods => "watch of pods",
            Self::Workers => "watch of workers",
            Self::Nodes => "watch of nodes",
            Self::Webhooks => "watch of webhooks",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    database: bool,
    /// One entry a watch of the leader; a standby has nothing to watch.
    watches: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    watch: Watch,
    synced: bool,
    heard: Instant,
}

impl Health {
    pub fn set_database(&self, up: bool) {
        self.state().database = up;
    }

    /// From now on the watches count.
    pub fn lead(&self) {
        let heard = Instant::now();
        self.state().watches = Watch::ALL.map(|watch| Watched { watch, synced: false, heard }).into();
    }

    /// The watch has seen every object once.
    pub fn synced(&self, watch: Watch) {
        self.change(watch, |watched| watched.synced = true);
    }

    /// The API server has answered the watch.
    pub fn heard(&self, watch: Watch) {
        self.change(watch, |watched| watched.heard = Instant::now());
    }

    /// What keeps the operator from being ready; empty when it is.
    pub fn missing(&self) -> Vec<&'static str> {
        let state = self.state();
        let database = (!state.database).then_some("database");
        let watches = state.watches.iter().filter(|watched| !watched.synced).map(|watched| watched.watch.name());
        database.into_iter().chain(watches).collect()
    }

    /// The watches that have heard nothing for too long; empty when the operator lives.
    pub fn silent(&self) -> Vec<&'static str> {
        self.silent_at(Instant::now())
    }

    fn silent_at(&self, now: Instant) -> Vec<&'static str> {
        let state = self.state();
        let silent = state.watches.iter().filter(|watched| now.saturating_duration_since(watched.heard) > SILENCE);
        silent.map(|watched| watched.watch.name()).collect()
    }

    fn change(&self, watch: Watch, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.state().watches.iter_mut().find(|watched| watched.watch == watch) {
            change(watched);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: what a panic leaves behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_leader_is_ready_with_its_database_and_every_watch_and_a_standby_with_its_database() {
        let health = Health::default();
        assert_eq!(health.missing(), ["database"]);
        health.set_database(true);
        assert!(health.missing().is_empty());
        health.lead();
        assert_eq!(health.missing(), Watch::ALL.map(Watch::name));
        for watch in Watch::ALL {
            assert!(health.missing().contains(&watch.name()));
            health.synced(watch);
        }
        assert!(health.missing().is_empty());
        health.set_database(false);
        assert_eq!(health.missing(), ["database"]);
    }

    #[test]
    fn a_watch_that_hears_nothing_for_ten_minutes_is_silent() {
        let health = Health::default();
        let later = |by: Duration| Instant::now() + SILENCE + by;
        assert!(health.silent_at(later(Duration::from_mins(1))).is_empty(), "a standby watches nothing");
        health.lead();
        let led = later(Duration::ZERO);
        assert!(health.silent().is_empty());
        assert_eq!(health.silent_at(later(Duration::from_mins(1))), Watch::ALL.map(Watch::name));
        health.heard(Watch::Builds);
        health.heard(Watch::Namespaces);
        let others = ["watch of policies", "watch of pods", "watch of workers", "watch of nodes", "watch of webhooks"];
        assert_eq!(health.silent_at(led), others);
    }
}
