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

/// Between two patches of a status for its steps alone.
pub const EVERY: Duration = Duration::from_secs(10);

/// How long from `now` to the next look at a running Build: [`EVERY`], up to the next whole second, so that looks at
/// many Builds are one statement.
pub fn until_the_next_look(now: Timestamp) -> Duration {
    let to_the_second = 1_000_000_000 - now.subsec_nanosecond().unsigned_abs() % 1_000_000_000;
    EVERY + Duration::from_nanos(to_the_second.into())
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
    fn looks_fall_on_whole_seconds() {
        for now in ["2026-11-24T10:00:00Z", "2026-11-24T10:00:00.25Z", "2026-11-24T10:00:00.999999999Z"] {
            let now: Timestamp = now.parse().unwrap();
            let wait = until_the_next_look(now);
            assert!(wait > EVERY && wait <= EVERY + Duration::from_secs(1));
            assert_eq!((now + wait).subsec_nanosecond(), 0);
        }
    }

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
