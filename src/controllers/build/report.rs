//! The status of a Build as a projection of its newest row, and the Events of its start and end.
//!
//! Every time in it comes from the row, so the same row gives the same status, and nothing is
//! written when nothing has changed.

use image_factory_core::{conditions, ids, status::Status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;

use super::{Error, plan::RERUN};
use crate::{
    crd::{
        Build, BuildStatus,
        build_status::{FailureStatus, ImageStatus, Phase, QueueStatus},
    },
    db::builds::Newest,
    runtime::Context,
};

const MANAGER: &str = "image-factory";
/// Longest message of a condition (the API server's own limit is 32,768 bytes).
const MESSAGE_CHARS: usize = 2_000;
/// Longest line of `status.failure.logTail`: a status is no place for a log.
const TAIL_CHARS: usize = 500;

/// Patches the status and publishes an Event, each only where something has changed.
pub async fn report(context: &Context, build: &Build, newest: Option<&Newest>) -> Result<(), Error> {
    let status = match newest {
        Some(newest) => projection(build, newest),
        None if build.spec.cancel => held_back(build),
        None => return Ok(()),
    };
    if build.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<Build> = Api::namespaced(context.client.clone(), &build.namespace().unwrap_or_default());
    let patch = json!({"apiVersion": Build::api_version(&()), "kind": Build::kind(&()), "status": status});
    let written =
        api.patch_status(&build.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    match written {
        Ok(_) => {}
        // Deleted meanwhile.
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let before = build.status.as_ref().and_then(|status| status.phase);
    if before != status.phase
        && let Some(event) = newest.and_then(|newest| event(newest, &status))
    {
        context.recorder.publish(&event, &build.object_ref(&())).await?;
    }
    Ok(())
}

fn projection(build: &Build, newest: &Newest) -> BuildStatus {
    let failed = newest.status == Status::Failed;
    let (reason, message) = wording(newest);
    let since = newest.completed_at.or(newest.started_at).unwrap_or(newest.queued_at);
    BuildStatus {
        observed_generation: build.metadata.generation,
        observed_rerun: newest.observed_rerun.clone().or_else(|| build.annotations().get(RERUN).cloned()),
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
        step: None,
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
            log_tail: newest.log_tail.iter().map(|line| shortened(line, TAIL_CHARS)).collect(),
        }),
        conditions: conditions::of(newest.status, reason.as_deref(), &message)
            .into_iter()
            .map(|condition| stamped(condition, since, build.metadata.generation))
            .collect(),
    }
}

/// A Build that was cancelled before it ever ran.
fn held_back(build: &Build) -> BuildStatus {
    let since = build.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let held =
        conditions::of(Status::Queued, Some("HeldBack"), "spec.cancel is true: no run is made until it is false")
            .into_iter()
            .filter(|condition| condition.kind != conditions::RECONCILING)
            .map(|condition| stamped(condition, since, build.metadata.generation))
            .collect();
    BuildStatus { observed_generation: build.metadata.generation, conditions: held, ..BuildStatus::default() }
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
        message: shortened(&condition.message, MESSAGE_CHARS),
        // Kubernetes keeps whole seconds.
        last_transition_time: Time(Timestamp::from_second(since.as_second()).unwrap_or(since)),
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

fn event(newest: &Newest, status: &BuildStatus) -> Option<Event> {
    let (_, message) = wording(newest);
    let (type_, reason) = match newest.status {
        Status::Queued => return None,
        Status::InProgress => (EventType::Normal, "Started".to_owned()),
        Status::Success => (EventType::Normal, "Succeeded".to_owned()),
        Status::Failed => (EventType::Warning, newest.failure_reason.clone().unwrap_or_else(|| "Failed".to_owned())),
        Status::Cancelled => {
            (EventType::Normal, newest.failure_reason.clone().unwrap_or_else(|| "Cancelled".to_owned()))
        }
    };
    let run = status.run.unwrap_or_default();
    Some(Event {
        type_,
        reason,
        note: Some(shortened(&format!("Run {run}: {message}"), 1_000)),
        action: "Build".to_owned(),
        secondary: None,
    })
}

fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
