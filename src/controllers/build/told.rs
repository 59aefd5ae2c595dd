//! What a status said, kept in as many bytes as it takes to know whether another says something new.
//! A finished Build stays in the watch's store for as long as it is in the cluster: its message, its
//! conditions and the end of its log do not.

use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use crate::{
    crd::{
        BuildStatus,
        build_status::{Phase, QueueStatus},
    },
    db::builds::Newest,
};

/// Places of the queue whose moves are told; whoever is further back knows what holds it back.
const TOLD_PLACES: i64 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    build_id: Option<String>,
    phase: Option<Phase>,
    queue: Option<Place>,
    /// Hash of the status.
    whole: u64,
    /// The same without the place in the queue and the words of the conditions, which name it.
    still: u64,
    /// Hash of the status without how far the build has come.
    but_for_steps: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    position: Option<i64>,
    waiting_for: Option<String>,
}

impl Told {
    pub fn of(status: &BuildStatus) -> Self {
        let place = |queue: &QueueStatus| Place { position: queue.position, waiting_for: queue.waiting_for.clone() };
        let mut still = BuildStatus { queue: None, ..status.clone() };
        for condition in &mut still.conditions {
            condition.message.clear();
        }
        Self {
            build_id: status.build_id.clone(),
            phase: status.phase,
            queue: status.queue.as_ref().map(place),
            whole: hash(status),
            still: hash(&still),
            but_for_steps: hash(&BuildStatus { step: None, ..status.clone() }),
        }
    }

    /// Whether it says the same already, as far as that is worth a write: builds move in the queue all the
    /// time, and are looked at every few seconds.
    pub fn says(&self, now: &Self) -> bool {
        if self.whole == now.whole {
            return true;
        }
        let Some(is) = &now.queue else { return false };
        let moved = is.position.is_some_and(|position| self.has_moved_to(position));
        !moved && self.waits_for(is.waiting_for.as_deref()) && self.still == now.still
    }

    /// Whether it says that the Build waits in the queue.
    pub fn is_queued(&self) -> bool {
        self.phase == Some(Phase::Queued)
    }

    /// Whether that is what it says the Build waits for.
    pub fn waits_for(&self, reason: Option<&str>) -> bool {
        self.is_queued() && self.queue.as_ref().and_then(|place| place.waiting_for.as_deref()) == reason
    }

    /// Whether this is another place in the queue than the one it says, and worth telling.
    pub fn has_moved_to(&self, position: i64) -> bool {
        let Some(was) = self.queue.as_ref().and_then(|place| place.position) else { return false };
        was != position && was.min(position) <= TOLD_PLACES
    }

    /// Whether it says the same but for how far the build has come.
    pub const fn says_but_for_steps(&self, now: &Self) -> bool {
        self.but_for_steps == now.but_for_steps
    }

    /// Whether it is about this attempt, wherever that stands.
    pub fn is_about(&self, attempt: Uuid) -> bool {
        self.build_id == Some(attempt.to_string())
    }

    /// Whether it says of the newest attempt where that stands, `phase`. Of the same attempt without a
    /// phase it was held back, and so had told the attempt's end before.
    pub fn is_of(&self, newest: &Newest, phase: Phase) -> bool {
        self.is_about(newest.id) && self.phase.is_none_or(|told| told == phase)
    }
}

fn hash(status: &BuildStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    // A status is always JSON.
    serde_json::to_string(status).ok().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_of_a_failed_builds_status_does_not_grow_with_what_it_says() {
        let status = |words: &str| -> BuildStatus {
            serde_json::from_value(json!({
                "observedGeneration": 3, "phase": "Failed", "buildId": "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e",
                "failure": {"stage": "build", "reason": "BuildFailed", "message": words, "logTail": [words]},
                "conditions": [{
                    "type": "Succeeded", "status": "False", "reason": "BuildFailed", "message": words,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            }))
            .unwrap()
        };
        let kept = |words: &str| format!("{:?}", Told::of(&status(words)));
        let digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        assert_eq!(digits(&kept("exit 3")), digits(&kept(&"a long story".repeat(1_000))));
        assert_ne!(kept("exit 3"), kept("exit 4"), "and yet the two are told apart");
    }
}
