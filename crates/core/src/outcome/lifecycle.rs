//! Why the lifecycle failed: from the phase that failed and its exit code, which tell more than its words.
//! <https://github.com/buildpacks/lifecycle/blob/main/platform/exit.go>

use super::{Outcome, build::without_words, words};
use crate::{
    lifecycle::Phase,
    loglevel::without_ansi,
    reason::{Reason, Stage},
    report::AgentReport,
};

/// Nothing was detected; nothing was, and a buildpack failed at it; the detection itself failed.
const NOT_DETECTED: i32 = 20;
const NOT_DETECTED_WITH_ERRORS: i32 = 21;
const DETECTION_FAILED: i32 = 22;
/// How many buildpacks a sentence names.
const MAX_TRIED: usize = 16;

/// `said` is its last error, `repository` where the image is pushed.
pub fn failure(
    report: &AgentReport,
    exit_code: i32,
    said: Option<String>,
    tail: &[String],
    repository: Option<&str>,
) -> Outcome {
    let code = Some(exit_code);
    let phase =
        report.commands.last().and_then(|last| Phase::ALL.into_iter().find(|phase| phase.program() == last.name));
    match (phase, exit_code) {
        (_, NOT_DETECTED | NOT_DETECTED_WITH_ERRORS) => Outcome::failed(Reason::DetectFailed, code, undetected(tail)),
        (_, DETECTION_FAILED) => {
            let message = said.unwrap_or_else(|| without_words(report, exit_code));
            Outcome::failed(Reason::DetectFailed, code, message)
        }
        (Some(phase), _) if is_push(phase, said.as_deref(), repository) => {
            let message = said.unwrap_or_else(|| without_words(report, exit_code));
            let denied = words::is_denial(&message);
            let reason = if denied { Reason::PushDenied } else { Reason::PushFailed };
            let unavailable = words::is_unavailable(&message);
            Outcome::failed(reason, code, message).at(Stage::Push).infrastructure_if(unavailable && !denied)
        }
        _ => {
            // A buildpack that ended by itself: its own code.
            let instruction =
                said.as_deref().filter(|_| phase == Some(Phase::Build)).and_then(words::instruction_exit_code);
            let unavailable = instruction.is_none() && said.as_deref().is_some_and(words::is_unavailable);
            let message = said.unwrap_or_else(|| without_words(report, exit_code));
            Outcome::failed(Reason::BuildFailed, instruction.or(code), message).infrastructure_if(unavailable)
        }
    }
}

/// The exporter pushes; whether it will be allowed to, the analyzer asks before anything is built: by `failed to ensure
/// registry read/write access to registry.test/a/b:1`, and, since it reads the image that was there before, without the
/// writing.
fn is_push(phase: Phase, said: Option<&str>, repository: Option<&str>) -> bool {
    let of_analyzer = |said: &str| {
        let place = said.split_once("read access to ").zip(repository);
        let is_its = place.is_some_and(|((_, image), repository)| {
            image.strip_prefix(repository).is_some_and(|rest| rest.starts_with([':', '@']))
        });
        said.contains("write access to ") || is_its
    };
    phase == Phase::Export || phase == Phase::Analyze && said.is_some_and(of_analyzer)
}

/// `fail: demo/hello@0.1.0`, `err:  demo/own@1 (3)`: what the lifecycle lists where nothing was detected.
fn undetected(tail: &[String]) -> String {
    let mut tried: Vec<String> = Vec::new();
    for line in tail {
        let plain = without_ansi(line);
        let found = ["pass", "skip", "fail", "err"].into_iter().find_map(|word| {
            let name = plain.strip_prefix(word)?.strip_prefix(": ")?.trim_start();
            name.contains('@').then(|| format!("{name} {}", told(word)))
        });
        if let Some(found) = found.filter(|found| !tried.contains(found)) {
            tried.push(found);
        }
    }
    let none = "no group of buildpacks knows this source";
    if tried.is_empty() {
        return none.to_owned();
    }
    let more = tried.len().saturating_sub(MAX_TRIED);
    tried.truncate(MAX_TRIED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{none}; tried: {}{more}", tried.join(", "))
}

fn told(word: &str) -> &'static str {
    match word {
        "pass" => "would have",
        "skip" => "did not and may be missing",
        "fail" => "did not",
        _ => "failed at it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reason::Class, report::CommandReport};

    fn outcome(program: &str, exit_code: i32, said: Option<&str>, tail: &str) -> Outcome {
        let command =
            CommandReport { name: program.to_owned(), exit_code: Some(exit_code), signal: None, milliseconds: 1 };
        let report = AgentReport { exit_code, commands: vec![command], ..AgentReport::default() };
        let tail: Vec<String> = tail.lines().map(str::to_owned).collect();
        failure(&report, exit_code, said.map(str::to_owned), &tail, Some("r.test/a/b"))
    }

    #[test]
    fn each_exit_code_of_each_phase_has_its_reason() {
        for (program, code, said, reason, stage, exit_code, class) in [
            ("detector", 22, "failed to detect: open buildpack.toml", "DetectFailed", "build", 22, Class::User),
            ("builder", 51, "failed to build: exit status 3", "BuildFailed", "build", 3, Class::User),
            ("builder", 51, "failed to build: signal: killed", "BuildFailed", "build", 51, Class::User),
            ("builder", 52, "failed to build: failed to decode layer", "BuildFailed", "build", 52, Class::User),
            (
                "exporter",
                62,
                "failed to export: failed to write image: POST x: UNAUTHORIZED: y",
                "PushDenied",
                "push",
                62,
                Class::User,
            ),
            (
                "exporter",
                62,
                "failed to export: PUT x: 503 Service Unavailable",
                "PushFailed",
                "push",
                62,
                Class::Infrastructure,
            ),
            ("exporter", 62, "failed to export: determining entrypoint", "PushFailed", "push", 62, Class::User),
            (
                "analyzer",
                1,
                "failed to initialize analyzer: validating registry write access: failed to ensure registry read/write access to x: UNAUTHORIZED",
                "PushDenied",
                "push",
                1,
                Class::User,
            ),
            (
                "analyzer",
                1,
                "failed to initialize analyzer: validating registry read access: connection refused",
                "BuildFailed",
                "build",
                1,
                Class::Infrastructure,
            ),
            (
                "analyzer",
                32,
                "failed to initialize analyzer: validating registry read access: failed to ensure registry read access to r.test/a/b:1: x: connection refused",
                "PushFailed",
                "push",
                32,
                Class::Infrastructure,
            ),
            (
                "analyzer",
                32,
                "failed to initialize analyzer: validating registry read access: failed to ensure registry read access to r.test/a/b-run:1: UNAUTHORIZED",
                "BuildFailed",
                "build",
                32,
                Class::User,
            ),
            ("restorer", 42, "failed to restore: x", "BuildFailed", "build", 42, Class::User),
            ("restorer", 12, "failed to set API for buildpack: incompatible", "BuildFailed", "build", 12, Class::User),
            ("builder", 11, "failed to set platform API", "BuildFailed", "build", 11, Class::User),
        ] {
            let outcome = outcome(program, code, Some(said), "");
            let failure = outcome.failure.expect("it failed");
            let found = (failure.reason.as_str(), failure.stage.as_str(), outcome.exit_code, failure.class);
            assert_eq!(found, (reason, stage, Some(exit_code), class), "{program} {code} {said}");
        }
    }

    #[test]
    fn where_nothing_was_detected_the_message_says_what_was_tried() {
        let tail = "======== Results ========\nfail: demo/hello@0.1.0\nskip: demo/proc@2\n\
            ======== Results ========\n\u{1b}[0mfail: demo/hello@0.1.0\nerr:  demo/odd@1 (3)\nfail: no viable buildpacks in group";
        for code in [20, 21] {
            let failure = outcome("detector", code, Some("failed to detect: x"), tail).failure.expect("it failed");
            assert_eq!(failure.reason, Reason::DetectFailed);
            assert_eq!(
                failure.message,
                "no group of buildpacks knows this source; tried: demo/hello@0.1.0 did not, demo/proc@2 did not and may \
                 be missing, demo/odd@1 (3) failed at it"
            );
        }
        let many = (0..40).map(|number| format!("fail: a/{number}@1")).collect::<Vec<_>>().join("\n");
        let message = outcome("detector", 20, None, &many).failure.expect("it failed").message;
        assert!(message.ends_with("a/15@1 did not and 24 more"), "{message}");
        let none = outcome("detector", 20, None, "").failure.expect("it failed").message;
        assert_eq!(none, "no group of buildpacks knows this source");
    }
}
