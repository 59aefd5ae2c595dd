//! Outcomes of whole attempts, from endings as they come.

use super::*;
use crate::{
    inspection::{ImageFacts, ManifestKind},
    loglevel::{Level, level_of},
    report::{AgentReport, CommandReport, Usage},
};

const TIMEOUT: Duration = Duration::from_mins(30);

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
    decide(Evidence { method, ending, inspection: None, tail: &tail, stop: None, timeout: TIMEOUT, repository: None })
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
fn a_container_that_the_runtime_could_not_start_is_told_in_its_words() {
    let said = "failed to create containerd task: exec: \"/image-factory/bin/image-factory-agent\": exec format error";
    let end = || end(128, "StartError", said.to_owned());
    for (ending, reason, container) in [
        (Ending::Build(end()), "AgentLost", "the build container"),
        (Ending::Prepare(end()), "Internal", "prepare"),
        (Ending::Inspect { build: ContainerEnd::default(), inspect: end() }, "Internal", "inspect"),
    ] {
        let found = outcome(Method::Container, &ending, &[]);
        assert_eq!((short(&found).1, found.exit_code), (reason, None));
        assert_eq!(found.failure.unwrap().message, format!("{container} could not be started: {said}"));
    }
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
        (Method::Buildx, 2, "ERROR: failed to solve: failed to push registry.test/a: 401 Unauthorized", "PushDenied"),
        (Method::Container, 2, "Error: pushing image: requested access to the resource is denied", "PushDenied"),
        (Method::Container, 2, "Error: pushing image: connection refused", "PushFailed"),
    ] {
        let outcome = outcome(method, &built(&agent(1, commands)), &[line]);
        assert_eq!(short(&outcome), (Status::Failed, reason, "push", Some(1)), "{line}");
    }
    // What an instruction says of a push is its own affair, and Packer pushes nothing.
    for (method, line) in [
        (
            Method::Buildx,
            "ERROR: failed to solve: process \"/bin/sh -c ship || (echo failed to push; false)\" did not complete successfully: exit code: 1",
        ),
        (Method::Packer, "Error: the script says that it failed to push"),
    ] {
        let outcome = outcome(method, &built(&agent(1, 1)), &[line]);
        assert_eq!(short(&outcome), (Status::Failed, "BuildFailed", "build", Some(1)), "{line}");
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
    let log: Vec<&str> = include_str!("../../../../tests/fixtures/kaniko/failed-run.log").lines().collect();
    let found = outcome(Method::Kaniko, &built(&agent(127, 1)), &log);
    assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(127)));
    let message = found.failure.unwrap().message;
    assert!(message.starts_with("error building image: ") && message.ends_with("exit status 127"), "{message}");
    let errors: Vec<_> = log.iter().filter(|line| level_of(line) != Level::Info).collect();
    assert_eq!(errors, [log.last().unwrap()]);
}

#[test]
fn of_real_logs_of_packer_its_own_sentence_is_the_failure_and_the_code_is_the_scripts() {
    let log = |text: &'static str| -> Vec<&str> {
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, line)| line)).collect()
    };
    let fails = log(include_str!("../../tests/fixtures/steps/packer/fails.log"));
    let found = outcome(Method::Packer, &built(&agent(1, 1)), &fails);
    assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(3)));
    assert!(found.failure.unwrap().message.contains("Script exited with non-zero exit status: 3"));

    let syntax = log(include_str!("../../tests/fixtures/steps/packer/syntax.log"));
    let found = outcome(Method::Packer, &built(&agent(1, 1)), &syntax);
    assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(1)));
    assert_eq!(found.failure.unwrap().message, "Invalid expression");

    let usage = ["Usage: packer [--version] [--help] <command> [<args>]", "", "Available commands are:"];
    let found = outcome(Method::Packer, &built(&agent(127, 1)), &usage);
    assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(127)));
    assert!(found.failure.unwrap().message.contains("`packer init`"));
}

#[test]
fn what_inspect_says_of_packers_push_belongs_where_a_push_does() {
    for (word, reason, stage, class) in [
        ("PushDenied", "PushDenied", "push", Class::User),
        (REGISTRY_UNAVAILABLE, "PushFailed", "push", Class::Infrastructure),
        ("BuildFailed", "BuildFailed", "build", Class::User),
        ("DigestMismatch", "DigestMismatch", "verification", Class::User),
    ] {
        let ending = inspected(1, InspectFailure::new(PodFailure::new(word, "m")).encode());
        let found = outcome(Method::Packer, &ending, &[]);
        assert_eq!(short(&found), (Status::Failed, reason, stage, Some(1)));
        assert_eq!(found.failure.unwrap().class, class, "{word}");
    }
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
    assert!(outcome.failure.unwrap().message.contains("after its timeout of 30m"));
}

#[test]
fn a_build_whose_pod_was_told_to_end_by_someone_else_is_not_the_builders_failure() {
    let mut report = agent(143, 1);
    report.terminated = true;
    let outcome = outcome(Method::Container, &built(&report), &["Error: building at STEP \"RUN x\": exit status 143"]);
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
fn a_pod_that_is_gone_was_deleted_with_its_job() {
    assert_eq!(short(&outcome(Method::Buildx, &Ending::Gone, &[])), (Status::Failed, "JobDeleted", "build", None));
}

#[test]
fn a_pod_that_could_not_start_in_time_fails_with_the_reason_it_was_given_up_for() {
    for (reason, class) in [(Reason::ImagePull, Class::Infrastructure), (Reason::Unschedulable, Class::User)] {
        let stop = Stop::GivenUp { reason, message: "it waited".to_owned() };
        let (ending, stop) = (Ending::Gone, Some(&stop));
        let evidence = Evidence {
            method: Method::Buildx,
            ending: &ending,
            inspection: None,
            tail: &[],
            stop,
            timeout: TIMEOUT,
            repository: None,
        };
        let outcome = decide(evidence);
        assert_eq!(short(&outcome), (Status::Failed, reason.as_str(), "compile", None));
        let failure = outcome.failure.unwrap();
        assert_eq!((failure.class, failure.message.as_str()), (class, "it waited"));
    }
}

#[test]
fn a_process_killed_for_memory_is_the_cause_whatever_the_builder_says() {
    let line = "ERROR: failed to solve: process \"/bin/sh -c eat\" did not complete successfully: exit code: 137";
    let mut report = agent(1, 2);
    report.usage = Usage { oom_kills: Some(1), ..Usage::default() };
    let found = outcome(Method::Buildx, &built(&report), &[line]);
    assert_eq!(short(&found), (Status::Failed, "OutOfMemory", "build", Some(1)));
    let message = found.failure.unwrap().message;
    assert!(message.contains("spec.resources.limits.memory") && message.contains("exit code: 137"), "{message}");
    // None was killed.
    report.usage.oom_kills = Some(0);
    assert_eq!(short(&outcome(Method::Buildx, &built(&report), &[line])).1, "BuildFailed");
    // It was ended for its time, before it was for its memory.
    report = AgentReport { timed_out: true, usage: Usage { oom_kills: Some(1), ..Usage::default() }, ..report };
    assert_eq!(short(&outcome(Method::Buildx, &built(&report), &[line])).1, "TimedOut");
}

#[test]
fn a_builder_that_was_killed_by_a_signal_says_which_where_it_has_no_words_of_its_own() {
    let mut report = agent(139, 1);
    report.commands[0] = CommandReport { exit_code: None, signal: Some(11), ..report.commands[0].clone() };
    let found = outcome(Method::Container, &built(&report), &["a line"]);
    assert_eq!(short(&found), (Status::Failed, "BuildFailed", "build", Some(139)));
    assert_eq!(found.failure.unwrap().message, "x was ended by SIGSEGV");
    let ending = Ending::Build(end(137, "Error", String::new()));
    let message = outcome(Method::Container, &ending, &[]).failure.unwrap().message;
    assert_eq!(message, "the build container ended with exit code 137 (SIGKILL) and left no report");
}

#[test]
fn a_registry_that_is_away_is_infrastructure_unless_an_instruction_spoke_of_it() {
    for (line, reason, class) in [
        ("Error: pushing image: connection refused", "PushFailed", Class::Infrastructure),
        ("Error: pushing image: denied: 503 Service Unavailable", "PushDenied", Class::User),
    ] {
        let failure = outcome(Method::Container, &built(&agent(1, 2)), &[line]).failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.class), (reason, class), "{line}");
    }
    for (line, class) in [
        (
            "ERROR: failed to solve: registry.test/base:1: unexpected status: 503 Service Unavailable",
            Class::Infrastructure,
        ),
        (
            "ERROR: failed to solve: process \"/bin/sh -c echo connection refused\" did not complete successfully: exit code: 3",
            Class::User,
        ),
    ] {
        let failure = outcome(Method::Buildx, &built(&agent(1, 2)), &[line]).failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.class), ("BuildFailed", class), "{line}");
    }
}

#[test]
fn a_confirmed_image_is_a_success_even_when_a_cancellation_came_meanwhile() {
    let document = document();
    let given_up = Stop::GivenUp { reason: Reason::ImagePull, message: "m".to_owned() };
    for stop in [None, Some(&Stop::Cancelled(Reason::Cancelled)), Some(&given_up)] {
        let ending = inspected(0, String::new());
        let evidence = Evidence {
            method: Method::Buildx,
            ending: &ending,
            inspection: Some(&document),
            tail: &[],
            stop,
            timeout: TIMEOUT,
            repository: None,
        };
        let outcome = decide(evidence);
        assert_eq!((outcome.status, outcome.exit_code), (Status::Success, Some(0)));
        assert!(outcome.image.is_some());
    }
    let ending = inspected(0, String::new());
    let evidence = Evidence {
        method: Method::Buildx,
        ending: &ending,
        inspection: Some("{}"),
        tail: &[],
        stop: None,
        timeout: TIMEOUT,
        repository: None,
    };
    let failure = decide(evidence).failure.unwrap();
    assert_eq!((failure.reason, failure.stage), (Reason::Internal, Stage::Verification));
}

#[test]
fn a_cancelled_attempt_is_cancelled_whatever_its_pod_says() {
    for (asked, ending) in [
        (Reason::Superseded, Ending::Gone),
        (Reason::Cancelled, built(&agent(143, 1))),
        (Reason::Deleted, Ending::Pod { reason: "Evicted".to_owned(), message: String::new() }),
    ] {
        let stop = Stop::Cancelled(asked);
        let evidence = Evidence {
            method: Method::Buildx,
            ending: &ending,
            inspection: None,
            tail: &[],
            stop: Some(&stop),
            timeout: TIMEOUT,
            repository: None,
        };
        let outcome = decide(evidence);
        assert_eq!(outcome.status, Status::Cancelled);
        assert_eq!((outcome.failure.as_ref().unwrap().reason, outcome.result_status()), (asked, "cancelled"));
    }
}
