//! How an attempt ended: a pure function of its Pod, the reports in it and the end of its log.
//!
//! The Pod is a sequence (`prepare`, `build`, `inspect`); the end is the first container that
//! failed, or else `inspect`. What Kubernetes says (out of memory, evicted) outranks what a
//! report says, and a report outranks what the log looks like. The log is only read for words
//! (why, at which instruction), never for whether an image was pushed or which.

use crate::{
    inspection::Inspection,
    loglevel::{Level, level_of, without_ansi},
    method::Method,
    reason::{Class, Reason, Stage},
    report::{AgentReport, InspectFailure, PrepareReport},
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
    /// `prepare` failed.
    Prepare(ContainerEnd),
    /// `build` failed.
    Build(ContainerEnd),
    /// `build` succeeded and `inspect` ended with `inspect`.
    Inspect { build: ContainerEnd, inspect: ContainerEnd },
    /// The Pod was ended as a whole: `reason` is Kubernetes' (`Evicted`, `DeadlineExceeded`, …).
    Pod { reason: String, message: String },
    /// The Pod, and its Job, are gone.
    Gone,
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
    /// Why the attempt was asked to stop, where it was.
    pub cancelled: Option<Reason>,
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

    fn failed(reason: Reason, exit_code: Option<i32>, message: String) -> Self {
        let status = if reason.is_cancellation() { Status::Cancelled } else { Status::Failed };
        let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message };
        Self { status, exit_code, failure: Some(failure), image: None }
    }
}

/// Decides the outcome of an attempt whose Pod has ended.
pub fn decide(evidence: Evidence<'_>) -> Outcome {
    let success = match evidence.ending {
        Ending::Inspect { inspect, .. } if inspect.exit_code == 0 => Some(confirmed(evidence.inspection)),
        _ => None,
    };
    // What the registry has confirmed is a success, even if a cancellation came meanwhile.
    match (success, evidence.cancelled) {
        (Some(Ok(image)), _) => {
            Outcome { status: Status::Success, exit_code: Some(0), failure: None, image: Some(image) }
        }
        (_, Some(reason)) => Outcome::failed(reason, None, format!("the build was stopped: {}", cancellation(reason))),
        (Some(Err(why)), None) => {
            Outcome::failed(Reason::Internal, None, format!("the inspection of the image could not be read: {why}"))
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
        Ending::Prepare(end) => prepare_failure(end),
        Ending::Build(end) => build_failure(evidence.method, end, evidence.tail),
        Ending::Inspect { inspect, .. } => inspect_failure(inspect),
        Ending::Pod { reason, message } => pod_failure(reason, message),
        Ending::Gone => {
            Outcome::failed(Reason::JobDeleted, None, "the Job was deleted before the build had ended".to_owned())
        }
    }
}

fn prepare_failure(end: &ContainerEnd) -> Outcome {
    let report = PrepareReport::decode(end.message.as_bytes()).ok().and_then(|report| report.failure);
    let mut outcome = match report {
        Some(failure) => {
            let unavailable = failure.reason == SOURCE_UNAVAILABLE;
            let reason =
                if unavailable { Reason::SourceNotFound } else { failure.reason.parse().unwrap_or(Reason::Internal) };
            let mut outcome = Outcome::failed(reason, Some(end.exit_code), failure.message);
            if let Some(failure) = outcome.failure.as_mut().filter(|_| unavailable) {
                failure.class = Class::Infrastructure;
            }
            outcome
        }
        None if end.reason == "OOMKilled" => {
            Outcome::failed(Reason::OutOfMemory, Some(end.exit_code), "prepare ran out of memory".to_owned())
        }
        None => {
            let message = format!("prepare ended with exit code {} and left no report", end.exit_code);
            Outcome::failed(Reason::Internal, Some(end.exit_code), message)
        }
    };
    if let Some(failure) = &mut outcome.failure {
        // Whatever the reason, the builder had not begun.
        failure.stage = Stage::Compile;
    }
    outcome
}

fn build_failure(method: Method, end: &ContainerEnd, tail: &[String]) -> Outcome {
    let code = Some(end.exit_code);
    if end.reason == "OOMKilled" {
        let message = "the build container ran out of memory: raise spec.resources.limits.memory".to_owned();
        return Outcome::failed(Reason::OutOfMemory, code, message);
    }
    let Ok(report) = AgentReport::decode(end.message.as_bytes()) else {
        let message = format!("the build container ended with exit code {} and left no report", end.exit_code);
        return Outcome::failed(Reason::AgentLost, code, message);
    };
    if report.timed_out {
        return Outcome::failed(Reason::TimedOut, None, "the build ran longer than spec.timeout".to_owned());
    }
    if let Some(failure) = report.failure {
        // Nothing was started: there is no exit code of a builder.
        return Outcome::failed(failure.reason.parse().unwrap_or(Reason::Internal), None, failure.message);
    }
    if report.terminated {
        // Not asked for by us: then it would be a cancellation, decided before.
        let message = "the Pod was ended from outside before the build had: its Job or Pod was deleted".to_owned();
        return Outcome::failed(Reason::JobDeleted, None, message);
    }
    if let Some(error) = report.error {
        return Outcome::failed(Reason::AgentLost, code, error);
    }
    let said = last_error(tail);
    let message = said.clone().unwrap_or_else(|| format!("the builder ended with exit code {}", end.exit_code));
    let pushing = match method {
        // Its second command is the push.
        Method::Container => report.commands.len() > 1,
        // Its right to push is asked for before the build, too.
        Method::Kaniko => said.as_deref().is_some_and(|text| {
            text.starts_with("error pushing image: ") || text.starts_with("error checking push permissions: ")
        }),
        _ => said.as_deref().is_some_and(|text| text.contains("failed to push")),
    };
    if pushing {
        let reason = if is_denial(&message) { Reason::PushDenied } else { Reason::PushFailed };
        return Outcome::failed(reason, code, message);
    }
    Outcome::failed(Reason::BuildFailed, said.as_deref().and_then(instruction_exit_code).or(code), message)
}

fn inspect_failure(end: &ContainerEnd) -> Outcome {
    let Ok(report) = InspectFailure::decode(end.message.as_bytes()) else {
        let message = format!("inspect ended with exit code {} and left no report", end.exit_code);
        return Outcome::failed(Reason::Internal, Some(end.exit_code), message);
    };
    let unavailable = report.failure.reason == REGISTRY_UNAVAILABLE;
    let reason =
        if unavailable { Reason::PushFailed } else { report.failure.reason.parse().unwrap_or(Reason::Internal) };
    let mut outcome = Outcome::failed(reason, Some(end.exit_code), report.failure.message);
    if let Some(failure) = &mut outcome.failure {
        // The builder had pushed: what fails now is the confirmation.
        failure.stage = Stage::Verification;
        if unavailable {
            failure.class = Class::Infrastructure;
        }
    }
    outcome
}

/// `prepare`'s word for a Git server that answers 5xx or not at all.
pub const SOURCE_UNAVAILABLE: &str = "SourceUnavailable";

/// `inspect`'s word for a registry that answers 5xx or not at all.
pub const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

fn pod_failure(reason: &str, message: &str) -> Outcome {
    let text = |fallback: &str| if message.is_empty() { fallback.to_owned() } else { message.to_owned() };
    match reason {
        "Evicted" | "Preempting" | "Terminated" | "TerminationByKubelet" => {
            Outcome::failed(Reason::Evicted, None, text("the Pod was evicted from its node"))
        }
        "DeadlineExceeded" => {
            Outcome::failed(Reason::TimedOut, None, "the Pod ran longer than spec.timeout allows".to_owned())
        }
        "NodeLost" | "NodeShutdown" | "DeletionByPodGC" | "DeletionByTaintManager" => {
            Outcome::failed(Reason::NodeLost, None, text("the node of the Pod was lost"))
        }
        "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "NodeAffinity" => {
            Outcome::failed(Reason::Evicted, None, text("the node refused the Pod"))
        }
        other => Outcome::failed(Reason::Internal, None, text(&format!("the Pod failed: {other}"))),
    }
}

/// The last line with which the builder itself reports an error, without its level.
fn last_error(tail: &[String]) -> Option<String> {
    let line = tail.iter().rev().find(|line| level_of(line) == Level::Error)?;
    let plain = without_ansi(line);
    let text = plain.trim();
    let text =
        ["ERROR: ", "Error: ", "error: "].into_iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    Some(text.to_owned())
}

/// The exit code of the instruction: `exit code: 3` (BuildKit), `exit status 3` (buildah, kaniko).
fn instruction_exit_code(text: &str) -> Option<i32> {
    ["exit code: ", "exit status "].into_iter().find_map(|mark| {
        let (_, rest) = text.rsplit_once(mark)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

fn is_denial(text: &str) -> bool {
    let text = text.to_lowercase();
    ["unauthorized", "denied", "authentication required", "403 forbidden", "401 "]
        .iter()
        .any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inspection::{ImageFacts, ManifestKind},
        report::{CommandReport, PodFailure},
    };

    fn end(exit_code: i32, reason: &str, message: String) -> ContainerEnd {
        ContainerEnd { exit_code, reason: reason.to_owned(), message, milliseconds: None }
    }

    fn agent(exit_code: i32, commands: usize) -> AgentReport {
        let command = CommandReport { name: "x".to_owned(), exit_code: Some(exit_code), signal: None, milliseconds: 1 };
        AgentReport { exit_code, commands: vec![command; commands], ..AgentReport::default() }
    }

    fn built(report: &AgentReport) -> Ending {
        Ending::Build(end(report.exit_code, "Error", report.encode()))
    }

    fn outcome(method: Method, ending: &Ending, tail: &[&str]) -> Outcome {
        let tail: Vec<String> = tail.iter().map(|line| (*line).to_owned()).collect();
        decide(Evidence { method, ending, inspection: None, tail: &tail, cancelled: None })
    }

    fn short(outcome: &Outcome) -> (Status, &'static str, &'static str, Option<i32>) {
        let failure = outcome.failure.as_ref().unwrap();
        (outcome.status, failure.reason.as_str(), failure.stage.as_str(), outcome.exit_code)
    }

    fn inspected(code: i32, message: String) -> Ending {
        Ending::Inspect { build: end(0, "Completed", String::new()), inspect: end(code, "Error", message) }
    }

    fn document() -> String {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image = ImageFacts { manifest_digest: digest.clone(), ..ImageFacts::default() };
        Inspection::new(
            "registry.test/a/b:1".to_owned(),
            digest,
            "application/vnd.oci.image.manifest.v1+json".to_owned(),
            ManifestKind::Image,
            vec![image],
        )
        .encode()
        .unwrap()
    }

    #[test]
    fn a_failing_instruction_gives_its_own_exit_code_and_the_builders_sentence() {
        for (method, report, line, code) in [
            (
                Method::Buildx,
                agent(1, 2),
                "ERROR: failed to solve: process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3",
                3,
            ),
            (
                Method::Container,
                agent(125, 1),
                "Error: building at STEP \"RUN exit 3\": while running runtime: exit status 3",
                3,
            ),
            (Method::Container, agent(125, 1), "Error: no FROM statement found", 125),
        ] {
            let outcome = outcome(method, &built(&report), &["a line", line, "another line"]);
            assert_eq!(short(&outcome), (Status::Failed, "BuildFailed", "build", Some(code)), "{line}");
            assert!(line.ends_with(&outcome.failure.unwrap().message));
        }
    }

    #[test]
    fn what_kubernetes_says_outranks_the_report_and_a_missing_report_is_the_agents() {
        let report = agent(137, 1);
        let ending = Ending::Build(end(137, "OOMKilled", report.encode()));
        assert_eq!(short(&outcome(Method::Buildx, &ending, &[])), (Status::Failed, "OutOfMemory", "build", Some(137)));
        let ending = Ending::Build(end(1, "Error", String::new()));
        assert_eq!(short(&outcome(Method::Buildx, &ending, &[])), (Status::Failed, "AgentLost", "build", Some(1)));
    }

    #[test]
    fn a_push_that_fails_is_told_from_a_build_that_fails() {
        for (method, commands, line, reason) in [
            (
                Method::Buildx,
                2,
                "ERROR: failed to solve: failed to push registry.test/a: 500 Internal Server Error",
                "PushFailed",
            ),
            (
                Method::Buildx,
                2,
                "ERROR: failed to solve: failed to push registry.test/a: 401 Unauthorized",
                "PushDenied",
            ),
            (Method::Container, 2, "Error: pushing image: requested access to the resource is denied", "PushDenied"),
            (Method::Container, 2, "Error: pushing image: connection refused", "PushFailed"),
        ] {
            let outcome = outcome(method, &built(&agent(1, commands)), &[line]);
            assert_eq!(short(&outcome), (Status::Failed, reason, "push", Some(1)), "{line}");
        }
    }

    #[test]
    fn kanikos_own_words_tell_the_base_image_from_the_push() {
        for (line, reason, code) in [
            (
                "error building image: error building stage: failed to execute command: waiting for process to exit: exit status 127",
                "BuildFailed",
                127,
            ),
            (
                "error building image: failed to retrieve image: GET http://registry.test/v2/base/manifests/1: UNAUTHORIZED: authentication required",
                "BuildFailed",
                1,
            ),
            (
                "error checking push permissions: checking push permission for \"registry.test/a:1\": POST http://registry.test/v2/a/blobs/uploads/: UNAUTHORIZED: authentication required",
                "PushDenied",
                1,
            ),
            (
                "error pushing image: failed to push to destination registry.test/a:1: DENIED: requested access to the resource is denied",
                "PushDenied",
                1,
            ),
            (
                "error pushing image: failed to push to destination registry.test/a:1: dial tcp: connection refused",
                "PushFailed",
                1,
            ),
        ] {
            let found = outcome(Method::Kaniko, &built(&agent(code, 1)), &["Error: what a RUN printed", line]);
            let stage = if reason == "BuildFailed" { "build" } else { "push" };
            assert_eq!(short(&found), (Status::Failed, reason, stage, Some(code)), "{line}");
            assert_eq!(found.failure.unwrap().message, line);
        }
    }

    #[test]
    fn of_a_real_log_of_kaniko_its_last_words_are_the_failure() {
        let log: Vec<&str> = include_str!("../../../tests/fixtures/kaniko/failed-run.log").lines().collect();
        let found = outcome(Method::Kaniko, &built(&agent(127, 1)), &log);
        assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(127)));
        let message = found.failure.unwrap().message;
        assert!(message.starts_with("error building image: ") && message.ends_with("exit status 127"), "{message}");
        let errors: Vec<_> = log.iter().filter(|line| level_of(line) != Level::Info).collect();
        assert_eq!(errors, [log.last().unwrap()]);
    }

    #[test]
    fn a_secret_that_is_not_there_fails_before_the_builder_starts() {
        let failure = Some(PodFailure::new("SecretNotFound", "Secret push has no key .dockerconfigjson"));
        let report = AgentReport { exit_code: 125, failure, ..AgentReport::default() };
        let found = outcome(Method::Kaniko, &built(&report), &[]);
        assert_eq!(short(&found), (Status::Failed, "SecretNotFound", "compile", None));
        assert_eq!(found.failure.unwrap().message, "Secret push has no key .dockerconfigjson");
    }

    #[test]
    fn a_run_over_its_timeout_is_a_timeout_in_the_results() {
        let mut report = agent(143, 1);
        report.timed_out = true;
        let outcome = outcome(Method::Buildx, &built(&report), &[]);
        assert_eq!(short(&outcome), (Status::Failed, "TimedOut", "build", None));
        assert_eq!(outcome.result_status(), "timeout");
    }

    #[test]
    fn a_build_whose_pod_was_told_to_end_by_someone_else_is_not_the_builders_failure() {
        let mut report = agent(143, 1);
        report.terminated = true;
        let outcome =
            outcome(Method::Container, &built(&report), &["Error: building at STEP \"RUN x\": exit status 143"]);
        assert_eq!(short(&outcome), (Status::Failed, "JobDeleted", "build", None));
    }

    #[test]
    fn prepare_names_its_own_reason() {
        let report = PrepareReport::failed(PodFailure::new("DockerfileNotFound", "no spec.dockerfile here"));
        let ending = Ending::Prepare(end(1, "Error", report.encode()));
        assert_eq!(
            short(&outcome(Method::Buildx, &ending, &[])),
            (Status::Failed, "DockerfileNotFound", "compile", Some(1))
        );
    }

    #[test]
    fn a_git_server_that_is_away_is_infrastructure_and_all_of_prepare_is_before_the_build() {
        for (word, reason, class) in [
            ("SourceNotFound", "SourceNotFound", Class::User),
            (SOURCE_UNAVAILABLE, "SourceNotFound", Class::Infrastructure),
            ("TimedOut", "TimedOut", Class::User),
            ("OutOfMemory", "OutOfMemory", Class::User),
        ] {
            let ending = Ending::Prepare(end(1, "Error", PrepareReport::failed(PodFailure::new(word, "m")).encode()));
            let outcome = outcome(Method::Buildx, &ending, &[]);
            assert_eq!(short(&outcome), (Status::Failed, reason, "compile", Some(1)));
            assert_eq!(outcome.failure.unwrap().class, class, "{word}");
        }
    }

    #[test]
    fn a_registry_that_disagrees_fails_at_verification_and_one_that_is_away_is_infrastructure() {
        for (word, reason, class) in [
            ("DigestMismatch", "DigestMismatch", Class::User),
            ("PushFailed", "PushFailed", Class::User),
            (REGISTRY_UNAVAILABLE, "PushFailed", Class::Infrastructure),
        ] {
            let report = InspectFailure::new(PodFailure::new(word, "m"));
            let outcome = outcome(Method::Buildx, &inspected(1, report.encode()), &[]);
            assert_eq!(short(&outcome), (Status::Failed, reason, "verification", Some(1)));
            assert_eq!(outcome.failure.unwrap().class, class, "{word}");
        }
    }

    #[test]
    fn pods_that_end_as_a_whole_say_why() {
        for (reason, expected) in
            [("Evicted", "Evicted"), ("DeadlineExceeded", "TimedOut"), ("NodeLost", "NodeLost"), ("Odd", "Internal")]
        {
            let ending = Ending::Pod { reason: reason.to_owned(), message: String::new() };
            assert_eq!(outcome(Method::Buildx, &ending, &[]).failure.unwrap().reason.as_str(), expected);
        }
        assert_eq!(outcome(Method::Buildx, &Ending::Gone, &[]).failure.unwrap().reason, Reason::JobDeleted);
    }

    #[test]
    fn a_confirmed_image_is_a_success_even_when_a_cancellation_came_meanwhile() {
        let document = document();
        for cancelled in [None, Some(Reason::Cancelled)] {
            let ending = inspected(0, String::new());
            let evidence =
                Evidence { method: Method::Buildx, ending: &ending, inspection: Some(&document), tail: &[], cancelled };
            let outcome = decide(evidence);
            assert_eq!((outcome.status, outcome.exit_code), (Status::Success, Some(0)));
            assert!(outcome.image.is_some());
        }
        let ending = inspected(0, String::new());
        let evidence =
            Evidence { method: Method::Buildx, ending: &ending, inspection: Some("{}"), tail: &[], cancelled: None };
        assert_eq!(decide(evidence).failure.unwrap().reason, Reason::Internal);
    }

    #[test]
    fn a_cancelled_attempt_is_cancelled_whatever_its_pod_says() {
        for (asked, ending) in [
            (Reason::Superseded, Ending::Gone),
            (Reason::Cancelled, built(&agent(143, 1))),
            (Reason::Deleted, Ending::Pod { reason: "Evicted".to_owned(), message: String::new() }),
        ] {
            let evidence = Evidence {
                method: Method::Buildx,
                ending: &ending,
                inspection: None,
                tail: &[],
                cancelled: Some(asked),
            };
            let outcome = decide(evidence);
            assert_eq!(outcome.status, Status::Cancelled);
            assert_eq!((outcome.failure.as_ref().unwrap().reason, outcome.result_status()), (asked, "cancelled"));
        }
    }
}
