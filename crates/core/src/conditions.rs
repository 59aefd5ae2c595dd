//! The conditions of a Build, as a projection of its newest row.
//!
//! | | queued, running | success | failed, cancelled |
//! |---|---|---|---|
//! | Succeeded | Unknown | True | False |
//! | Finished | False | True | True |
//! | Reconciling | True | absent | absent |
//! | Stalled | absent | absent | True on failure only |
//!
//! Reconciling and Stalled follow kstatus, so that Argo CD and Flux show the right health:
//! <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.

use crate::status::Status;

pub const SUCCEEDED: &str = "Succeeded";
pub const FINISHED: &str = "Finished";
pub const RECONCILING: &str = "Reconciling";
pub const STALLED: &str = "Stalled";

/// A condition without its times, which belong to the edge that writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    pub reason: String,
    pub message: String,
}

/// `reason` is the waiting reason while queued, the failure reason after a failure, and otherwise
/// ignored for the phase's own word.
pub fn of(status: Status, reason: Option<&str>, message: &str) -> Vec<Condition> {
    let word = reason.unwrap_or(status.phase());
    let condition =
        |kind, status, reason: &str| Condition { kind, status, reason: reason.to_owned(), message: message.to_owned() };
    match status {
        Status::Queued | Status::InProgress => vec![
            condition(SUCCEEDED, "Unknown", word),
            condition(FINISHED, "False", word),
            condition(RECONCILING, "True", word),
        ],
        Status::Success => {
            vec![condition(SUCCEEDED, "True", status.phase()), condition(FINISHED, "True", status.phase())]
        }
        Status::Failed => vec![
            condition(SUCCEEDED, "False", word),
            condition(FINISHED, "True", word),
            condition(STALLED, "True", word),
        ],
        Status::Cancelled => vec![condition(SUCCEEDED, "False", word), condition(FINISHED, "True", word)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: Status, reason: Option<&str>) -> Vec<(&'static str, &'static str, String)> {
        of(status, reason, "m")
            .into_iter()
            .map(|condition| (condition.kind, condition.status, condition.reason))
            .collect()
    }

    #[test]
    fn conditions_follow_the_table_above() {
        let waiting = "TenantLimit".to_owned();
        assert_eq!(
            shown(Status::Queued, Some("TenantLimit")),
            [
                (SUCCEEDED, "Unknown", waiting.clone()),
                (FINISHED, "False", waiting.clone()),
                (RECONCILING, "True", waiting)
            ]
        );
        assert_eq!(
            shown(Status::Success, None),
            [(SUCCEEDED, "True", "Success".to_owned()), (FINISHED, "True", "Success".to_owned())]
        );
        assert_eq!(
            shown(Status::Failed, Some("BuildFailed")),
            [
                (SUCCEEDED, "False", "BuildFailed".to_owned()),
                (FINISHED, "True", "BuildFailed".to_owned()),
                (STALLED, "True", "BuildFailed".to_owned())
            ]
        );
        assert_eq!(
            shown(Status::Cancelled, Some("Superseded")),
            [(SUCCEEDED, "False", "Superseded".to_owned()), (FINISHED, "True", "Superseded".to_owned())]
        );
    }

    #[test]
    fn a_build_is_finished_exactly_when_its_status_is_terminal() {
        for status in Status::ALL {
            let finished = of(status, None, "").into_iter().find(|condition| condition.kind == FINISHED).unwrap();
            assert_eq!(finished.status == "True", status.is_terminal(), "{status}");
        }
    }
}
