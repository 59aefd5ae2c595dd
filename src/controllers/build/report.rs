//! The status of a Build as a projection of its newest row, and the Events of its start and end.
//!
//! Every time in it comes from the row, so the same row gives the same status, and nothing is
//! written when nothing has changed.

use image_factory_core::{conditions, ids, status::Status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    ResourceExt,
    runtime::events::{Event, EventType},
};
use tokio::time::Instant;

use super::{
    Error,
    pace::Pace,
    plan::is_held_back,
    told::Told,
    watched::{Guarded, Watched},
};
use crate::{
    clock,
    crd::{
        Build, BuildStatus,
        build_status::{FailureStatus, ImageStatus, Phase, QueueStatus, StepStatus},
    },
    db::builds::Newest,
    failpoint,
    kube_ext::{self, NOTE_BYTES},
    runtime::Context,
};

/// Longest message of a condition in bytes (the API server's own limit is 32,768).
const MESSAGE_BYTES: usize = 2_048;
/// Longest line of `status.failure.logTail` in bytes: a status is no place for a log.
const TAIL_BYTES: usize = 512;
/// Longest name of `status.step.current` in bytes.
const STEP_BYTES: usize = 256;

/// Whether the status stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Stands,
    /// The Build is not as it was when it was looked at: its status may have been written by another operator, from
    /// newer rows. It is to be looked at again.
    Overtaken,
}

/// Patches the status and publishes an Event, each only where something has changed.
pub async fn report(
    context: &Context,
    pace: &Pace,
    build: &Watched,
    newest: Option<&Newest>,
) -> Result<Reported, Error> {
    let Some(status) = status(build, newest) else { return Ok(Reported::Stands) };
    let (before, now) = (build.told.as_ref(), Told::of(&status));
    if before.is_some_and(|before| before.says(&now)) {
        return Ok(Reported::Stands);
    }
    if before.is_some_and(|before| before.says_but_for_steps(&now)) && !pace.allows(build, Instant::now()) {
        return Ok(Reported::Stands);
    }
    failpoint::request("report.before-patch")?;
    let namespace = build.namespace().unwrap_or_default();
    let version = build.metadata.resource_version.as_deref();
    let applied =
        kube_ext::apply_status_to::<Build>(&context.client, &namespace, &build.name_any(), version, &status).await;
    match applied {
        Ok(true) => {}
        // Deleted meanwhile.
        Ok(false) => return Ok(Reported::Stands),
        Err(kube::Error::Api(error)) if error.code == 409 => return Ok(Reported::Overtaken),
        Err(error) => return Err(error.into()),
    }
    failpoint::request("report.after-patch")?;
    if let Some(event) = newest.filter(|newest| is_news(before, newest)).and_then(event) {
        context.publish(build, &event).await;
    }
    Ok(Reported::Stands)
}

/// Whether an Event is due: of a start or an end when the status comes there, of a further attempt when it is made.
fn is_news(before: Option<&Told>, newest: &Newest) -> bool {
    before.is_none_or(|before| match newest.status {
        Status::Queued => !before.is_about(newest.id),
        status => !before.is_of(newest, phase(status)),
    })
}

/// An object that can't be read as a Build has no status that could be written: an Event says it.
pub async fn unreadable(context: &Context, build: &Guarded, error: &str) {
    let event = Event {
        type_: EventType::Warning,
        reason: "Unreadable".to_owned(),
        note: Some(shortened(&format!("this operator can't read it as a Build: {error}"), NOTE_BYTES)),
        action: "Build".to_owned(),
        secondary: None,
    };
    context.publish(build, &event).await;
}

/// The status of a Build whose newest attempt is this; `None` until there is something to say.
pub fn status(build: &Watched, newest: Option<&Newest>) -> Option<BuildStatus> {
    if is_held_back(&build.desired, newest) {
        return Some(held_back(build, newest));
    }
    newest.map(|newest| projection(build, newest))
}

fn projection(build: &Watched, newest: &Newest) -> BuildStatus {
    let failed = newest.status == Status::Failed;
    let (reason, message) = wording(newest);
    // From the queue to a worker no condition changes its status.
    let since = newest.completed_at.unwrap_or(newest.queued_at);
    BuildStatus {
        observed_generation: build.metadata.generation,
        observed_rerun: newest.observed_rerun.clone(),
        phase: Some(phase(newest.status)),
        build_id: Some(newest.id.to_string()),
        build_number: Some(i64::from(newest.number)),
        run: Some(newest.run),
        attempt: Some(newest.attempt),
        queue: newest.queue.as_ref().map(|place| QueueStatus {
            position: Some(place.position),
            waiting_for: Some(place.waiting_for.clone()),
            message: Some(place.message.clone()),
        }),
        worker: newest.worker.clone(),
        // Its name follows from the attempt's id: known before it exists.
        job: (newest.job_created || newest.status == Status::InProgress)
            .then(|| ids::job_name(&build.name_any(), newest.id)),
        queued_at: Some(newest.queued_at),
        started_at: newest.started_at,
        completed_at: newest.completed_at,
        step: newest.steps.as_ref().map(|steps| StepStatus {
            current: steps.current.as_deref().map(|name| shortened(name, STEP_BYTES)),
            done: steps.done,
            total: steps.total,
            cached: steps.cached,
        }),
        image: newest.image.as_ref().map(|image| ImageStatus {
            reference: image.reference.clone(),
            digest: image.digest.clone(),
            size_bytes: Some(image.size_bytes),
        }),
        failure: failed.then(|| FailureStatus {
            stage: newest.failure_stage.clone(),
            reason: reason.clone().unwrap_or_default(),
            message: Some(message.clone()),
            exit_code: newest.exit_code,
            log_tail: newest.log_tail.iter().map(|line| shortened(line, TAIL_BYTES)).collect(),
        }),
        conditions: conditions::of(newest.status, reason.as_deref(), &message)
            .into_iter()
            .map(|condition| stamped(condition, since, build.metadata.generation))
            .collect(),
    }
}

/// A Build that asks for a run and is cancelled: nothing is known of these inputs. Which attempt was
/// the last is said, how it ended is not: that is about other inputs.
fn held_back(build: &Watched, newest: Option<&Newest>) -> BuildStatus {
    let created = build.creation_timestamp().map(|time| time.0);
    let since = newest.and_then(|newest| newest.completed_at).or(created).unwrap_or(Timestamp::UNIX_EPOCH);
    let sentence = "spec.cancel is true: no run is made until it is false";
    BuildStatus {
        observed_generation: build.metadata.generation,
        observed_rerun: newest.and_then(|newest| newest.observed_rerun.clone()),
        build_id: newest.map(|newest| newest.id.to_string()),
        build_number: newest.map(|newest| i64::from(newest.number)),
        run: newest.map(|newest| newest.run),
        attempt: newest.map(|newest| newest.attempt),
        conditions: conditions::of(Status::Queued, Some("HeldBack"), sentence)
            .into_iter()
            .filter(|condition| condition.kind != conditions::RECONCILING)
            .map(|condition| stamped(condition, since, build.metadata.generation))
            .collect(),
        ..BuildStatus::default()
    }
}

/// The reason and the sentence of the conditions.
fn wording(newest: &Newest) -> (Option<String>, String) {
    match newest.status {
        Status::Queued => match &newest.queue {
            Some(place) => (Some(place.waiting_for.clone()), place.message.clone()),
            None => (None, "waiting for the dispatcher".to_owned()),
        },
        Status::InProgress if newest.cancel_requested => {
            (Some("Cancelling".to_owned()), "the run is being stopped".to_owned())
        }
        Status::InProgress if newest.pod_waits.is_some() => {
            let (reason, sentence) = newest.pod_waits.clone().unwrap_or_default();
            let sentence = if newest.pod_given_up { format!("the run is being stopped: {sentence}") } else { sentence };
            (Some(reason), sentence)
        }
        Status::InProgress => (None, format!("the build runs on worker {}", newest.worker.as_deref().unwrap_or("?"))),
        Status::Success => {
            let image = newest.image.as_ref().map(|image| format!("{}@{}", image.reference, image.digest));
            (None, image.unwrap_or_default())
        }
        Status::Failed | Status::Cancelled => {
            (newest.failure_reason.clone(), newest.error_message.clone().unwrap_or_default())
        }
    }
}

fn stamped(condition: conditions::Condition, since: Timestamp, generation: Option<i64>) -> Condition {
    Condition {
        type_: condition.kind.to_owned(),
        status: condition.status.to_owned(),
        reason: condition.reason,
        message: shortened(&condition.message, MESSAGE_BYTES),
        // As Kubernetes keeps times.
        last_transition_time: Time(clock::whole_second(since)),
        observed_generation: generation,
    }
}

fn phase(status: Status) -> Phase {
    match status {
        Status::Queued => Phase::Queued,
        Status::InProgress => Phase::InProgress,
        Status::Success => Phase::Success,
        Status::Failed => Phase::Failed,
        Status::Cancelled => Phase::Cancelled,
    }
}

fn event(newest: &Newest) -> Option<Event> {
    let (_, mut message) = wording(newest);
    let (type_, reason) = match newest.status {
        Status::Queued if newest.attempt > 1 => {
            // Why the attempt before failed, whatever this one waits for.
            message = newest.error_message.clone().unwrap_or(message);
            (EventType::Warning, "Retrying".to_owned())
        }
        Status::Queued => return None,
        Status::InProgress => (EventType::Normal, "Started".to_owned()),
        Status::Success => (EventType::Normal, "Succeeded".to_owned()),
        Status::Failed => (EventType::Warning, newest.failure_reason.clone().unwrap_or_else(|| "Failed".to_owned())),
        Status::Cancelled => {
            (EventType::Normal, newest.failure_reason.clone().unwrap_or_else(|| "Cancelled".to_owned()))
        }
    };
    let Newest { run, attempt, .. } = newest;
    // Events that agree in all but their note are folded into the first: each attempt has its own.
    let (of, action) = match attempt {
        1 => (format!("Run {run}"), format!("Run{run}")),
        _ => (format!("Run {run}, attempt {attempt}"), format!("Run{run}Attempt{attempt}")),
    };
    Some(Event {
        type_,
        reason,
        note: Some(shortened(&format!("{of}: {message}"), NOTE_BYTES)),
        action,
        secondary: None,
    })
}

/// At most so many bytes, an ellipsis included.
fn shortened(text: &str, bytes: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}{MORE}", &text[..text.floor_char_boundary(bytes.saturating_sub(MORE.len()))])
}

#[cfg(test)]
mod tests;
