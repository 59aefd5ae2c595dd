//! How an attempt ended: a pure function of its Pod, the reports in it and the end of its log.
//!
//! The Pod is a sequence (`prepare`, `build`, `inspect`); the end is the first container that
//! failed, or else `inspect`. What Kubernetes says (out of memory, evicted) outranks what a
//! report says, and a report outranks what the log looks like. The log is only read for words
//! (why, at which instruction), never for whether an image was pushed or which.

mod build;
mod lifecycle;
mod pod;
mod words;

pub use words::span;

use std::time::Duration;

use crate::{
    inspection::Inspection,
    method::Method,
    reason::{Class, Reason, Stage},
    report::{InspectFailure, PodFailure, PrepareReport},
    status::Status,
};

/// A container of the sequence that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    pub exit_code: i32,
    /// Kubernetes' word: `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// Milliseconds between the container's start and end, to the second (Kubernetes keeps no more).
    pub milliseconds: Option<i64>,
}

/// What is known of an attempt's Pod when it has nothing more to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `prepare` failed, or what brings a buildpack before the builder starts.
    Prepare(ContainerEnd),
    /// `build` failed.
    Build(ContainerEnd),
    /// `build` succeeded and `inspect` ended with `inspect`.
    Inspect { build: ContainerEnd, inspect: ContainerEnd },
    /// The Pod was ended as a whole: `reason` is Kubernetes' (`Evicted`, `DeadlineExceeded`, …).
    Pod { reason: String, message: String },
    /// The Pod is gone without a word.
    Gone,
}

/// Why we told an attempt to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Someone asked for it.
    Cancelled(Reason),
    /// Its Pod could not start in time.
    GivenUp { reason: Reason, message: String },
}

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub method: Method,
    pub ending: &'a Ending,
    /// What `inspect` printed, where it ran.
    pub inspection: Option<&'a str>,
    /// The last lines of the log.
    pub tail: &'a [String],
    /// Why the attempt was told to stop, where it was.
    pub stop: Option<&'a Stop>,
    /// How long the run may take.
    pub timeout: Duration,
    /// Where the image is pushed, without its tag.
    pub repository: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Success, Failed or Cancelled.
    pub status: Status,
    /// Of the failing instruction where the builder names it, otherwise of the process that ended
    /// the attempt; 0 on success; `None` when nothing ended by itself.
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    /// What the registry confirmed, on success.
    pub image: Option<Inspection>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub class: Class,
    pub stage: Stage,
    pub message: String,
}

impl Outcome {
    /// `build_results.status`: a run or queue that took too long is told apart from other failures.
    pub fn result_status(&self) -> &'static str {
        match (self.status, self.failure.as_ref().map(|failure| failure.reason)) {
            (_, Some(Reason::TimedOut | Reason::QueueTimeout)) => "timeout",
            (status, _) => status.as_str(),
        }
    }

    /// One that did not succeed, at the reason's own stage and of its class.
    pub fn failed(reason: Reason, exit_code: Option<i32>, message: impl Into<String>) -> Self {
        let status = if reason.is_cancellation() { Status::Cancelled } else { Status::Failed };
        let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message: message.into() };
        Self { status, exit_code, failure: Some(failure), image: None }
    }

    /// Where more is known than the reason's own stage.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        if let Some(failure) = &mut self.failure {
            failure.stage = stage;
        }
        self
    }

    /// Another attempt may find the other side up again.
    fn infrastructure_if(mut self, unavailable: bool) -> Self {
        if let Some(failure) = self.failure.as_mut().filter(|_| unavailable) {
            failure.class = Class::Infrastructure;
        }
        self
    }
}

/// Decides the outcome of an attempt whose Pod has ended.
pub fn decide(evidence: Evidence<'_>) -> Outcome {
    let success = match evidence.ending {
        Ending::Inspect { inspect, .. } if inspect.exit_code == 0 => Some(confirmed(evidence.inspection)),
        _ => None,
    };
    // What the registry has confirmed is a success, even if a cancellation came meanwhile.
    match (success, evidence.stop) {
        (Some(Ok(image)), _) => {
            Outcome { status: Status::Success, exit_code: Some(0), failure: None, image: Some(image) }
        }
        (_, Some(Stop::Cancelled(reason))) => {
            Outcome::failed(*reason, None, format!("the build was stopped: {}", cancellation(*reason)))
        }
        (_, Some(Stop::GivenUp { reason, message })) => Outcome::failed(*reason, None, message),
        (Some(Err(why)), None) => {
            Outcome::failed(Reason::Internal, None, format!("the inspection of the image could not be read: {why}"))
                .at(Stage::Verification)
        }
        (None, None) => failure(evidence),
    }
}

fn confirmed(document: Option<&str>) -> Result<Inspection, String> {
    let document = document.ok_or("its output is gone")?;
    Inspection::decode(document.as_bytes()).map_err(|error| error.to_string())
}

fn cancellation(reason: Reason) -> &'static str {
    match reason {
        Reason::Superseded => "a newer run takes its place",
        Reason::Deleted => "the Build was deleted",
        _ => "it was cancelled",
    }
}

fn failure(evidence: Evidence<'_>) -> Outcome {
    match evidence.ending {
        Ending::Prepare(end) => prepare_failure(end).at(Stage::Compile),
        Ending::Build(end) => build::failure(evidence, end),
        // Which pushes, too: what it says belongs where it always does.
        Ending::Inspect { inspect, .. } if evidence.method == Method::Packer => inspect_failure(inspect),
        Ending::Inspect { inspect, .. } => inspect_failure(inspect).at(Stage::Verification),
        Ending::Pod { reason, message } => pod::failure(reason, message, evidence.timeout),
        Ending::Gone => {
            Outcome::failed(Reason::JobDeleted, None, "the Job, or its Pod, was deleted before the build had ended")
        }
    }
}

/// Whatever the reason, the builder had not begun.
fn prepare_failure(end: &ContainerEnd) -> Outcome {
    match PrepareReport::decode(end.message.as_bytes()).ok().and_then(|report| report.failure) {
        Some(failure) => reported(end, failure, SOURCE_UNAVAILABLE, Reason::SourceNotFound),
        None => unreported("prepare", end),
    }
}

/// The builder had pushed, or left what is pushed here: what fails now is the confirmation, or the push.
fn inspect_failure(end: &ContainerEnd) -> Outcome {
    match InspectFailure::decode(end.message.as_bytes()) {
        Ok(report) => reported(end, report.failure, REGISTRY_UNAVAILABLE, Reason::PushFailed),
        Err(_) => unreported("inspect", end),
    }
}

/// `unavailable` is our own container's word for a server that is away, `instead` the reason it stands for.
fn reported(end: &ContainerEnd, failure: PodFailure, unavailable: &str, instead: Reason) -> Outcome {
    let away = failure.reason == unavailable;
    let reason = if away { instead } else { failure.reason.parse().unwrap_or(Reason::Internal) };
    Outcome::failed(reason, Some(end.exit_code), failure.message).infrastructure_if(away)
}

fn unreported(container: &str, end: &ContainerEnd) -> Outcome {
    let code = Some(end.exit_code);
    if end.reason == OOM_KILLED {
        return Outcome::failed(Reason::OutOfMemory, code, format!("{container} ran out of memory"));
    }
    without_report(Reason::Internal, container, end)
}

/// Of a container that left no report: where the runtime could not start it, the message is the runtime's.
fn without_report(reason: Reason, container: &str, end: &ContainerEnd) -> Outcome {
    let said = end.message.trim();
    if end.reason == START_ERROR && !said.is_empty() {
        return Outcome::failed(reason, None, format!("{container} could not be started: {said}"));
    }
    let message = format!("{container} {} and left no report", words::exit(end.exit_code));
    Outcome::failed(reason, Some(end.exit_code), message)
}

/// Kubernetes' reason for a container of which the kernel killed a process for its memory.
const OOM_KILLED: &str = "OOMKilled";

/// Its reason for a container that the runtime could not start.
const START_ERROR: &str = "StartError";

/// `prepare`'s word for a Git server that answers 5xx or not at all.
pub const SOURCE_UNAVAILABLE: &str = "SourceUnavailable";

/// `inspect`'s word for a registry that answers 5xx or not at all.
pub const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

#[cfg(test)]
mod tests;
