//! How often the steps of a running build are told: a status is no log, and each patch of it goes to
//! everyone who watches. What else changes is told at once, with the steps as they are then.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::watched::Watched;
use crate::clock;

/// Running Builds are looked at by timer, all at the same moments, so that a look is one statement however many run.
const LOOKS: Duration = Duration::from_secs(10);
/// Between two patches of a status for its steps alone: a look later, however late the one before was.
const EVERY: Duration = Duration::from_millis(9_500);

/// How long from `now` to the next look.
pub fn until_the_next_look(now: Timestamp) -> Duration {
    clock::until_the_next(LOOKS, now)
}

/// When the steps of each Build were told last, by its UID, as long as that matters.
#[derive(Default)]
pub struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// Whether the Build's steps may be told now; then they are.
    pub fn allows(&self, build: &Watched, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        let uid = build.uid().unwrap_or_default();
        let allowed = !told.contains_key(&uid);
        if allowed {
            told.insert(uid, now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_of_a_build_are_told_once_in_ten_seconds_whatever_others_do() {
        let build = |uid: &str| -> Watched {
            let manifest = json!({
                "metadata": {"name": "cider", "namespace": "orchard", "uid": uid},
                "spec": {
                    "method": "container",
                    "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                    "output": {"image": "registry.test/orchard/cider:1"},
                },
            });
            serde_json::from_value(manifest).unwrap()
        };
        let (pace, start) = (Pace::default(), Instant::now());
        let allowed = [("a", 0), ("a", 1), ("b", 2), ("a", 9), ("a", 10), ("a", 11), ("b", 12), ("a", 20)]
            .map(|(uid, second)| pace.allows(&build(uid), start + Duration::from_secs(second)));
        assert_eq!(allowed, [true, false, true, false, true, false, true, true]);
        assert_eq!(pace.0.lock().unwrap().len(), 2, "only those of the last ten seconds are kept");
    }
}
