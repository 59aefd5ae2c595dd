//! What a reconcile does, from what is wanted and the newest attempt: pure.

use image_factory_core::{inputs, storable};
use kube::ResourceExt;

use crate::{crd::Build, db::builds::Newest};

/// A new value of this annotation is a new run; taking it away is no change.
pub const RERUN: &str = "imagefactory.dev/rerun";

/// What the Build asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub inputs_hash: String,
    pub rerun: Option<String>,
    pub cancel: bool,
    /// Of the spec.
    pub generation: i64,
}

impl Desired {
    /// # Errors
    /// When the spec can't be written as JSON.
    pub fn of(build: &Build) -> Result<Self, serde_json::Error> {
        Ok(Self {
            inputs_hash: inputs::hash(&serde_json::to_value(&build.spec)?),
            // As a row would hold it, or it would differ from its row for ever.
            rerun: build.annotations().get(RERUN).map(|rerun| storable::text(rerun)),
            cancel: build.spec.cancel,
            generation: build.metadata.generation.unwrap_or_default(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make this run; live attempts of older runs are cancelled in the same transaction.
    NewRun {
        run: i32,
    },
    /// Ask the newest run to stop.
    Cancel,
    /// What is no input has changed (priority, worker, retries, retention): the live attempt goes by it.
    Amend,
    Nothing,
}

pub fn plan(desired: &Desired, newest: Option<&Newest>) -> Plan {
    let Some(newest) = newest else {
        return if desired.cancel { Plan::Nothing } else { Plan::NewRun { run: 1 } };
    };
    if desired.cancel {
        let live = !newest.status.is_terminal() && !newest.cancel_requested;
        return if live { Plan::Cancel } else { Plan::Nothing };
    }
    if asks_for_more(desired, newest) {
        return Plan::NewRun { run: newest.run + 1 };
    }
    let behind = newest.observed_generation < desired.generation;
    if behind && !newest.status.is_terminal() { Plan::Amend } else { Plan::Nothing }
}

/// Whether `cancel` is all that keeps a new run from being made.
pub fn is_held_back(desired: &Desired, newest: Option<&Newest>) -> bool {
    desired.cancel && newest.is_none_or(|newest| newest.status.is_terminal() && asks_for_more(desired, newest))
}

fn asks_for_more(desired: &Desired, newest: &Newest) -> bool {
    let again = desired.rerun.is_some() && desired.rerun != newest.observed_rerun;
    again || desired.inputs_hash != newest.inputs_hash
}

#[cfg(test)]
mod goldens;

#[cfg(test)]
mod tests {
    use image_factory_core::status::Status;

    use super::*;

    fn desired(hash: &str, rerun: Option<&str>, cancel: bool) -> Desired {
        Desired { inputs_hash: hash.to_owned(), rerun: rerun.map(str::to_owned), cancel, generation: 2 }
    }

    fn newest(status: Status, rerun: Option<&str>, cancel_requested: bool) -> Newest {
        Newest {
            run: 4,
            status,
            inputs_hash: "same".to_owned(),
            observed_rerun: rerun.map(str::to_owned),
            cancel_requested,
            observed_generation: 2,
            ..Newest::default()
        }
    }

    #[test]
    fn a_run_is_made_for_new_inputs_and_new_reruns_only() {
        for (desired, newest, expected) in [
            (desired("same", None, false), None, Plan::NewRun { run: 1 }),
            (desired("same", None, false), Some(newest(Status::Success, None, false)), Plan::Nothing),
            (desired("same", None, false), Some(newest(Status::InProgress, None, false)), Plan::Nothing),
            (desired("other", None, false), Some(newest(Status::Success, None, false)), Plan::NewRun { run: 5 }),
            (desired("other", None, false), Some(newest(Status::Queued, None, false)), Plan::NewRun { run: 5 }),
            (desired("same", Some("a"), false), Some(newest(Status::Failed, None, false)), Plan::NewRun { run: 5 }),
            (
                desired("same", Some("b"), false),
                Some(newest(Status::Failed, Some("a"), false)),
                Plan::NewRun { run: 5 },
            ),
            (desired("same", Some("a"), false), Some(newest(Status::Failed, Some("a"), false)), Plan::Nothing),
            (desired("same", None, false), Some(newest(Status::Failed, Some("a"), false)), Plan::Nothing),
        ] {
            assert_eq!(plan(&desired, newest.as_ref()), expected, "{desired:?} {newest:?}");
        }
    }

    #[test]
    fn cancel_stops_what_is_live_once_and_holds_back_what_is_new() {
        for (desired, newest, expected) in [
            (desired("same", None, true), None, Plan::Nothing),
            (desired("same", None, true), Some(newest(Status::Queued, None, false)), Plan::Cancel),
            (desired("same", None, true), Some(newest(Status::InProgress, None, false)), Plan::Cancel),
            (desired("same", None, true), Some(newest(Status::InProgress, None, true)), Plan::Nothing),
            (desired("other", Some("x"), true), Some(newest(Status::Success, None, false)), Plan::Nothing),
            (desired("other", None, true), Some(newest(Status::InProgress, None, false)), Plan::Cancel),
        ] {
            assert_eq!(plan(&desired, newest.as_ref()), expected, "{desired:?} {newest:?}");
        }
    }

    #[test]
    fn a_change_that_is_no_input_reaches_a_live_attempt_and_no_other() {
        let later = |cancel| Desired { generation: 3, ..desired("same", None, cancel) };
        for (desired, status, expected) in [
            (later(false), Status::Queued, Plan::Amend),
            (later(false), Status::InProgress, Plan::Amend),
            (later(false), Status::Failed, Plan::Nothing),
            (later(true), Status::Queued, Plan::Cancel),
            (desired("same", None, false), Status::Queued, Plan::Nothing),
            (Desired { generation: 1, ..desired("same", None, false) }, Status::Queued, Plan::Nothing),
        ] {
            assert_eq!(plan(&desired, Some(&newest(status, None, false))), expected, "{desired:?} {status}");
        }
    }

    #[test]
    fn what_cancel_alone_keeps_from_running_is_held_back() {
        for (desired, newest, expected) in [
            (desired("same", None, true), None, true),
            (desired("same", None, false), None, false),
            (desired("other", None, true), Some(newest(Status::Success, None, false)), true),
            (desired("same", Some("b"), true), Some(newest(Status::Failed, Some("a"), false)), true),
            (desired("same", None, true), Some(newest(Status::Success, Some("a"), false)), false),
            (desired("same", None, true), Some(newest(Status::Cancelled, None, true)), false),
            (desired("other", None, true), Some(newest(Status::InProgress, None, true)), false),
            (desired("other", None, false), Some(newest(Status::Success, None, false)), false),
        ] {
            assert_eq!(is_held_back(&desired, newest.as_ref()), expected, "{desired:?} {newest:?}");
        }
    }
}
