//! Whether an attempt that failed is followed by another of the same run, and how long after its end.
//!
//! Failures of the infrastructure are worth another attempt; what the user must mend is tried again only where the spec
//! asks for it, and what no attempt can mend never. Who cancels gets no further attempt.

use std::time::Duration;

use crate::{
    outcome::Outcome,
    reason::{Class, Reason},
    status::Status,
};

/// `spec.retries`. By default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// Most attempts after the first.
    pub limit: i32,
    pub on: On,
}

/// Which failures are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    #[default]
    Infrastructure,
    Any,
}

/// After the first attempt; each later one waits twice as long as the one before.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);

impl Retries {
    /// How long after the end of the run's attempt number `attempt`, counted from 1, the next may start; `None` where
    /// this was the last. `chance` is a random number from 0 to below 1.
    pub fn after(self, attempt: i32, outcome: &Outcome, chance: f64) -> Option<Duration> {
        let failure = outcome.failure.as_ref().filter(|_| outcome.status == Status::Failed)?;
        let worth_it = match self.on {
            On::Infrastructure => failure.class == Class::Infrastructure,
            On::Any => !is_refusal(failure.reason),
        };
        (worth_it && attempt <= self.limit).then(|| backoff(attempt, chance))
    }
}

/// The same spec meets the same refusal.
const fn is_refusal(reason: Reason) -> bool {
    use Reason::{BuilderNotAllowed, InvalidSpec, MethodNotAvailable, PodSecurity, QueueTimeout};
    matches!(reason, InvalidSpec | PodSecurity | BuilderNotAllowed | MethodNotAvailable | QueueTimeout)
}

/// Half of it is fixed and half is chance ("equal jitter"), so that builds that failed together, with their node, don't
/// come back together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
fn backoff(attempt: i32, chance: f64) -> Duration {
    let doublings = u32::try_from(attempt - 1).unwrap_or_default();
    let whole = 2_u32.checked_pow(doublings).and_then(|times| FIRST.checked_mul(times)).unwrap_or(LONGEST).min(LONGEST);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::Failure;

    fn failed(reason: Reason, class: Class) -> Outcome {
        let status = if reason.is_cancellation() { Status::Cancelled } else { Status::Failed };
        let failure = Failure { reason, class, stage: reason.stage(), message: "it rained".to_owned() };
        Outcome { status, exit_code: None, failure: Some(failure), image: None }
    }

    #[test]
    fn what_is_tried_again_follows_the_class_unless_any_failure_is() {
        use Class::{Infrastructure, User};
        for (reason, class, by_default, any) in [
            (Reason::Evicted, Infrastructure, true, true),
            (Reason::NodeLost, Infrastructure, true, true),
            (Reason::ImagePull, Infrastructure, true, true),
            // A registry that answered 5xx, and one that refused.
            (Reason::PushFailed, Infrastructure, true, true),
            (Reason::PushFailed, User, false, true),
            (Reason::BuildFailed, User, false, true),
            (Reason::TimedOut, User, false, true),
            (Reason::InvalidSpec, User, false, false),
            (Reason::MethodNotAvailable, User, false, false),
            (Reason::QueueTimeout, User, false, false),
            (Reason::Cancelled, User, false, false),
            (Reason::Superseded, User, false, false),
            (Reason::Deleted, User, false, false),
        ] {
            let outcome = failed(reason, class);
            for (on, expected) in [(On::Infrastructure, by_default), (On::Any, any)] {
                let after = Retries { limit: 1, on }.after(1, &outcome, 0.0);
                assert_eq!(after.is_some(), expected, "{reason} {class:?} {on:?}");
            }
            assert_eq!(Retries::default().after(1, &outcome, 0.0), None, "{reason}: nobody asked for it");
        }
        let success = Outcome { status: Status::Success, exit_code: Some(0), failure: None, image: None };
        assert_eq!(Retries { limit: 9, on: On::Any }.after(1, &success, 0.0), None);
    }

    #[test]
    fn attempts_wait_longer_and_longer_up_to_five_minutes() {
        let outcome = failed(Reason::Evicted, Class::Infrastructure);
        let seconds = |attempt, chance| {
            let retries = Retries { limit: 10, on: On::Infrastructure };
            retries.after(attempt, &outcome, chance).unwrap().as_secs_f64()
        };
        for (attempt, chance, expected) in
            [(1, 0.0, 5.0), (1, 0.5, 7.5), (2, 0.0, 10.0), (3, 0.5, 30.0), (6, 0.0, 150.0), (9, 0.0, 150.0)]
        {
            assert!((seconds(attempt, chance) - expected).abs() < 1e-6, "{attempt} {chance}");
        }
    }

    proptest! {
        #[test]
        fn a_run_has_at_most_as_many_attempts_as_its_limit_and_one(limit in 0..=10_i32, chance in 0.0..1.0_f64) {
            let outcome = failed(Reason::NodeLost, Class::Infrastructure);
            let retries = Retries { limit, on: On::Infrastructure };
            let mut attempt = 1;
            while let Some(after) = retries.after(attempt, &outcome, chance) {
                prop_assert!(after >= FIRST / 2 && after < LONGEST);
                attempt += 1;
            }
            prop_assert_eq!(attempt, limit + 1);
        }
    }
}
