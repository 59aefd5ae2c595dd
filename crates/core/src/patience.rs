//! How long a Pod that can't start is borne with. Most such waits end well (a registry comes back, a node is added), and
//! those that don't would hold a place of a worker and of the tenant for ever.

use std::time::Duration;

use crate::{outcome::span, reason::Reason};

/// Why a Pod can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// `ImagePull`, `Unschedulable`, or `Internal` for a container that can't be created.
    pub reason: Reason,
    /// What waits and what Kubernetes says of it.
    pub message: String,
}

/// The operator's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// With a container that can't be started: its image can't be pulled, or Kubernetes refuses to create it.
    pub start: Duration,
    /// With a Pod that no node takes.
    pub unschedulable: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { start: Duration::from_mins(5), unschedulable: Duration::from_mins(10) }
    }
}

/// What to do with a Pod that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// For so much longer.
    KeepWaiting(Duration),
    /// The sentence that the attempt fails with.
    GiveUp(String),
}

impl Patience {
    /// `waited` is how long the Pod has waited for this reason by now.
    pub fn verdict(&self, wait: &Wait, waited: Duration) -> Verdict {
        let limit = match wait.reason {
            Reason::Unschedulable => self.unschedulable,
            _ => self.start,
        };
        match limit.checked_sub(waited) {
            Some(left) if !left.is_zero() => Verdict::KeepWaiting(left),
            _ => Verdict::GiveUp(format!("{} (given up after {})", wait.message, span(limit))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_limit_and_the_sentence_names_it() {
        let patience = Patience { start: Duration::from_mins(5), unschedulable: Duration::from_mins(10) };
        for (reason, waited, expected) in [
            (Reason::ImagePull, 299, Verdict::KeepWaiting(Duration::from_secs(1))),
            (Reason::ImagePull, 300, Verdict::GiveUp("it waits (given up after 5m)".to_owned())),
            (Reason::Internal, 1_000, Verdict::GiveUp("it waits (given up after 5m)".to_owned())),
            (Reason::Unschedulable, 300, Verdict::KeepWaiting(Duration::from_mins(5))),
            (Reason::Unschedulable, 600, Verdict::GiveUp("it waits (given up after 10m)".to_owned())),
        ] {
            let wait = Wait { reason, message: "it waits".to_owned() };
            assert_eq!(patience.verdict(&wait, Duration::from_secs(waited)), expected, "{reason} after {waited} s");
        }
    }
}
