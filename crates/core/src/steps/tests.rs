use std::{fmt::Write, fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::loglevel::level_of;

/// A recorded log: each line behind the time at which the runtime read it.
fn recorded(method: Method, name: &str) -> Vec<(Timestamp, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/steps/{method}/{name}.log"));
    let log = fs::read_to_string(path).unwrap();
    let lines = log.strip_suffix('\n').unwrap_or(&log).split('\n');
    lines
        .map(|line| {
            let (at, text) = line.split_once(' ').unwrap_or((line, ""));
            (at.parse().unwrap(), text.to_owned())
        })
        .collect()
}

fn feed(steps: &mut Steps, lines: &[(Timestamp, String)]) {
    for (at, text) in lines {
        steps.read(Line { at: *at, level: level_of(text), text });
    }
}

fn lines(text: &str) -> Vec<(Timestamp, String)> {
    (0..).zip(text.lines()).map(|(second, line)| (Timestamp::from_second(second).unwrap(), line.to_owned())).collect()
}

/// The steps as they would be stored, each with what was said of it last.
fn stored(steps: &mut Steps) -> Vec<Change> {
    let changes = steps.take_changes();
    assert!(steps.take_changes().is_empty(), "a change is told once");
    changes
}

/// As a person reads it.
fn table(steps: &mut Steps, end: End<'_>) -> String {
    steps.end(end);
    let mut text = String::new();
    for Change { number, name, instruction, status, cached, stdout, stderr, error, duration_seconds } in stored(steps) {
        let cached = if cached { " cached" } else { "" };
        let took = duration_seconds.map_or_else(String::new, |seconds| format!(" {seconds}s"));
        let instruction = instruction.unwrap_or("-");
        writeln!(text, "{number} {status}{cached}{took} {instruction} | {name}", status = status.as_str()).unwrap();
        for (mark, printed) in [(">", stdout), ("!", stderr)] {
            for line in printed.as_deref().unwrap_or_default().lines() {
                writeln!(text, "    {mark} {}", line.escape_debug()).unwrap();
            }
        }
        if let Some(StepError { message, code }) = error {
            writeln!(text, "    error: {message} (code {})", code.as_deref().unwrap_or("none")).unwrap();
        }
    }
    let Progress { current, done, total, cached } = steps.progress();
    writeln!(text, "{done} of {total} done, {cached} cached, {}", current.as_deref().unwrap_or("none running"))
        .unwrap();
    text
}

fn read(method: Method, name: &str, end: End<'_>) -> String {
    let mut steps = Steps::new(method);
    feed(&mut steps, &recorded(method, name));
    table(&mut steps, end)
}

const SUCCEEDED: [&str; 8] = [
    "two-stages-cold",
    "stages",
    "stages-cached",
    "arg-before-from",
    "kinds",
    "kinds-cached",
    "same-cached",
    "scratch",
];
const FAILED: [&str; 4] = ["copy-missing", "syntax", "missing-base", "fails"];

#[test]
fn steps_of_recorded_builds() {
    for method in [Method::Buildx, Method::Container, Method::Kaniko] {
        for name in SUCCEEDED {
            insta::assert_snapshot!(format!("{method} {name}"), read(method, name, End::Success));
        }
        for name in FAILED {
            let told = read(method, name, End::Failed("what the outcome says"));
            insta::assert_snapshot!(format!("{method} {name}"), told);
        }
    }
    for (method, name, succeeds) in [
        (Method::Buildx, "onbuild", true),
        (Method::Buildx, "platforms", true),
        (Method::Buildx, "heredoc", true),
        (Method::Buildx, "two-stages-cached", true),
        (Method::Buildx, "failed-run", false),
        (Method::Container, "onbuild", false),
        (Method::Container, "heredoc", false),
        (Method::Container, "squashed", true),
        (Method::Kaniko, "onbuild", true),
        (Method::Kaniko, "heredoc", true),
        (Method::Kaniko, "two-stages-cached", true),
        (Method::Kaniko, "squashed", true),
        (Method::Kaniko, "failed-run", false),
        (Method::Paketo, "cold", true),
        (Method::Paketo, "rebuild", true),
        (Method::Paketo, "no-buildpack-detected", false),
        (Method::Paketo, "two-buildpacks", true),
        (Method::Paketo, "two-buildpacks-reused", true),
        (Method::Paketo, "buildpack-fails", false),
        (Method::Paketo, "detection-breaks", false),
        (Method::Paketo, "required-undetected", false),
        (Method::Packer, "sources", true),
        (Method::Packer, "json", true),
        (Method::Packer, "fails", false),
        (Method::Packer, "syntax", false),
    ] {
        let end = if succeeds { End::Success } else { End::Failed("what the outcome says") };
        insta::assert_snapshot!(format!("{method} {name}"), read(method, name, end));
    }
}

fn names(steps: &Steps) -> Vec<&str> {
    steps.all().iter().map(|step| step.name.as_str()).collect()
}

/// A RUN of it prints the progress of every builder, kept as its output.
#[test]
fn a_build_that_imitates_progress_has_no_more_steps_than_it_has() {
    for (method, from) in [
        (
            Method::Buildx,
            "FROM registry.test/busybox:1@sha256:736687c6b5aaa25936ea8e45deb4c3c9ffbcfb8ff96d06d8472b6fa3301870a6",
        ),
        (Method::Container, "FROM registry.test/busybox:1"),
        (Method::Kaniko, "FROM registry.test/busybox:1"),
    ] {
        let mut steps = Steps::new(method);
        feed(&mut steps, &recorded(method, "imitates"));
        steps.end(End::Success);
        let expected = [from, "COPY talk.sh /talk.sh", "RUN sh /talk.sh", "RUN echo \"the end\""];
        assert_eq!(names(&steps), expected, "{method}");
        assert!(steps.all().iter().all(|step| step.status == StepStatus::Success && !step.cached), "{method}");
        let printed = stored(&mut steps)[2].stdout.clone().unwrap();
        for line in ["#99 [stage-1 1/9] RUN a buildkit vertex", "STEP 4/4: RUN echo \"the end\"", "===> BUILDING"] {
            assert!(printed.lines().any(|printed| printed == line), "{method}: {line} is output");
        }
        assert!(
            printed.contains("msg=\"RUN echo imitated\"") && printed.contains("error building image: "),
            "{method}"
        );
    }
}

/// It knows which line comes next. BuildKit's output can't be mistaken; of buildah's steps only one's name, for a
/// while; kaniko's can, and this is the limit that the documentation states.
#[test]
fn a_build_that_knows_its_builder_well_deceives_only_about_itself() {
    let read = |method| {
        let mut steps = Steps::new(method);
        feed(&mut steps, &recorded(method, "imitates-well"));
        steps.end(End::Success);
        let words = |step: &Step| step.name.split(' ').take(3).collect::<Vec<_>>().join(" ");
        steps.all().iter().map(words).collect::<Vec<_>>()
    };
    assert_eq!(read(Method::Buildx)[1..], ["RUN echo \"-->", "RUN echo \"the"]);
    assert_eq!(read(Method::Container)[1..], ["RUN echo \"-->", "RUN echo \"the"]);
    assert_eq!(read(Method::Kaniko)[1..], ["RUN echo \"-->", "RUN echo stolen", "RUN echo \"the"]);
}

#[test]
fn a_buildpack_that_imitates_the_lifecycle_deceives_only_about_itself() {
    let log = "===> ANALYZING\n===> DETECTING\na/one 1\na/two   2.0\n1 of 2 buildpacks participating\n===> RESTORING\n\
        ===> BUILDING\nRunning build for buildpack a/two@2.0\nRunning build for buildpack a/one@1\n===> DETECTING\na/three 3\n\
        Running build for buildpack a/three@3\nFinished running build for buildpack a/two@2.0\n\
        Finished running build for buildpack a/one@1\nRunning build for buildpack a/two@2.0\n\
        Running build for buildpack a/one@1\nFinished running build for buildpack a/two@2.0\n\
        Running build for buildpack imagefactory.dev/labels@1\n===> EXPORTING\nReusing layer 'a/one:x'\n\
        Reusing layer 'a/two:x'\nAdding layer 'a/two:y'\nAdding layer 'buildpacksio/lifecycle:config'";
    let mut steps = Steps::new(Method::Paketo);
    feed(&mut steps, &lines(log));
    steps.end(End::Success);
    let found: Vec<_> = steps.all().iter().map(|step| (step.name.as_str(), step.cached)).collect();
    let expected = [
        ("ANALYZING", false),
        ("DETECTING", false),
        ("RESTORING", false),
        ("BUILDING", false),
        ("a/one@1", true),
        ("a/two@2.0", false),
        ("EXPORTING", false),
    ];
    assert_eq!(found, expected, "one of which a layer was added is not cached");
    assert!(stored(&mut steps)[4].stdout.as_deref().unwrap().contains("===> DETECTING\na/three 3"));
}

#[test]
fn the_buildpack_that_ran_when_the_lifecycle_failed_is_the_step_that_failed() {
    let log = "===> DETECTING\na/one 1\n===> BUILDING\nRunning build for buildpack a/one@1\nwork\nERROR: failed to build: exit status 3";
    let ends = |end: End<'_>| {
        let mut steps = Steps::new(Method::Paketo);
        feed(&mut steps, &lines(log));
        steps.end(end);
        (steps.all().iter().map(|step| step.status).collect::<Vec<_>>(), steps.told("x"))
    };
    let (ended, told) = ends(End::Failed("the outcome's"));
    assert_eq!(ended, [StepStatus::Success, StepStatus::Skipped, StepStatus::Failed]);
    assert_eq!(told, "a/one@1: failed to build: exit status 3");
    assert_eq!(ends(End::Cancelled).0, [StepStatus::Success, StepStatus::Skipped, StepStatus::Skipped]);
}

#[test]
fn the_rest_of_a_line_that_the_agent_cut_is_output_however_it_begins() {
    let long = "x".repeat(MAX_LINE_BYTES - "#6 0.1 ".len() - GOES_ON.len()) + GOES_ON;
    let text =
        format!("#5 [1/2] FROM a\n#5 DONE 0.0s\n#6 [2/2] RUN x\n#6 0.1 {long}\n#6 CACHED\n#6 0.2 y\n#6 DONE 0.3s");
    let mut steps = Steps::new(Method::Buildx);
    feed(&mut steps, &lines(&text));
    let run = &stored(&mut steps)[1];
    assert_eq!((run.status, run.cached), (StepStatus::Success, false));
    assert!(run.stdout.as_deref().unwrap().ends_with("x…\n#6 CACHED\ny"));
}

#[test]
fn steps_are_told_live_and_the_output_of_each_once() {
    let mut steps = Steps::new(Method::Buildx);
    feed(&mut steps, &lines("#5 [1/3] FROM a\n#5 DONE 0.0s\n#6 [2/3] RUN x\n#6 0.1 begun"));
    let told: Vec<_> = steps.take_changes().into_iter().map(|step| (step.number, step.status, step.stdout)).collect();
    assert_eq!(told, [(1, StepStatus::Success, Some(String::new())), (2, StepStatus::Running, None)]);
    let progress = Progress { current: Some("RUN x".to_owned()), done: 1, total: 3, cached: 0 };
    assert_eq!(steps.progress(), progress);
    feed(&mut steps, &lines("#6 0.2 more"));
    assert_eq!(steps.take_changes(), [], "output alone is no change");
    feed(&mut steps, &lines("#6 DONE 0.5s\n#7 [3/3] RUN y\n#7 CACHED"));
    let told: Vec<_> = steps.take_changes().into_iter().map(|step| (step.stdout, step.duration_seconds)).collect();
    assert_eq!(told, [(Some("begun\nmore".to_owned()), Some(1)), (Some(String::new()), None)], "half a second is one");
    assert_eq!(steps.progress(), Progress { current: None, done: 3, total: 3, cached: 1 });
}

#[test]
fn what_ran_when_the_build_ended_ends_as_the_build_did() {
    let log = lines("#5 [a 1/1] FROM a\n#5 DONE 0.0s\n#6 [b 2/2] RUN x\n#6 0.1 begun");
    for (end, status, message) in [
        (End::Success, StepStatus::Success, None),
        (End::Failed("the Pod was evicted"), StepStatus::Failed, Some("the Pod was evicted")),
        (End::Cancelled, StepStatus::Skipped, None),
    ] {
        let mut steps = Steps::new(Method::Buildx);
        feed(&mut steps, &log);
        steps.end(end);
        let run = &stored(&mut steps)[1];
        assert_eq!((run.status, run.error.as_ref().map(|error| error.message.as_str())), (status, message));
        assert_eq!(run.stdout.as_deref(), Some("begun"));
    }
    let mut steps = Steps::new(Method::Buildx);
    feed(&mut steps, &log);
    feed(&mut steps, &lines("#7 [c 2/2] RUN y\n#7 ERROR: exit code: 3"));
    assert_eq!(steps.progress().current.as_deref(), Some("RUN y"));
    steps.end(End::Failed("exit code: 3"));
    let ends: Vec<_> = steps.all().iter().map(|step| step.status).collect();
    assert_eq!(ends, [StepStatus::Success, StepStatus::Skipped, StepStatus::Failed], "another step failed");
    assert_eq!(steps.told("no step"), "RUN y: exit code: 3");
}

#[test]
fn packers_steps_are_what_it_begins_by_source() {
    let log = "==> docker.a: Pulling Docker image: busybox\n    docker.a: digest\n==> docker.b: Creating a folder\n\
        ==> docker.a: Provisioning with shell script: x\n==> docker.a: a warning on stderr\n    docker.a: done\n\
        Build 'docker.a' finished after 1 second.\n==> docker.b: Provisioning with shell script: y\n\
        Build 'docker.b' errored after 2 seconds: Script exited with non-zero exit status: 3.";
    let mut steps = Steps::new(Method::Packer);
    feed(&mut steps, &lines(log));
    insta::assert_snapshot!("packer plain", table(&mut steps, End::Failed("it failed")));
}

#[test]
fn a_hostile_log_makes_no_more_than_the_cap() {
    let mut steps = Steps::new(Method::Buildx);
    for number in 0..5_000 {
        let name = "x".repeat(5_000);
        let text = format!("#{number} [s{number} 1/4000000000] RUN {name}\n#{number} 0.1 {name}\n#{number} DONE 0.1s");
        feed(&mut steps, &lines(&text));
    }
    assert_eq!(steps.all().len(), record::STEPS);
    assert!(stored(&mut steps).iter().all(|step| step.name.len() <= 2_048));
    assert!(steps.progress().total >= record::STEPS);
}

#[test]
fn steps_that_run_at_once_share_what_is_kept_of_output() {
    let mut steps = Steps::new(Method::Buildx);
    let line = "x".repeat(1_000);
    for number in 0..64 {
        let text = format!("#{number} [s{number} 2/2] RUN x\n{}", format!("#{number} 0.1 {line}\n").repeat(80));
        feed(&mut steps, &lines(&text));
    }
    steps.end(End::Success);
    let kept: Vec<usize> = stored(&mut steps).iter().filter_map(|step| Some(step.stdout.as_ref()?.len())).collect();
    assert!(kept[0] > 60_000 && kept[0] < 66_000 && kept[63] > 15_000 && kept[63] < 17_000, "{kept:?}");
}

#[test]
fn a_log_that_was_cut_off_accuses_no_step() {
    for (end, status) in [(End::Success, StepStatus::Success), (End::Failed("it failed"), StepStatus::Skipped)] {
        let mut steps = Steps::new(Method::Container);
        feed(&mut steps, &lines("STEP 1/3: FROM a\nSTEP 2/3: RUN x\nand on"));
        steps.cut_off();
        steps.end(end);
        let run = &stored(&mut steps)[1];
        assert_eq!((run.status, run.duration_seconds, run.error.is_none()), (status, None, true));
        assert_eq!(steps.told("it failed"), "it failed");
    }
}

/// Lines that parsers look at closely, cut and joined at random.
fn fragment() -> impl Strategy<Value = String> {
    let known = [
        "#7 ",
        "#8 [a 1/2] ",
        "[1/2] ",
        "STEP 1/2: ",
        "STEP 2/2: ",
        "RUN x",
        "FROM é",
        "--> ",
        "0123456789ab",
        "DONE 1.5s",
        "ERROR: ",
        "CACHED",
        "0.1 ",
        "time=\"1970-01-01T00:00:01Z\" level=info msg=",
        "\"Building stage 'a' [idx: '0'\"",
        "\"RUN x\"",
        "\"Running: [x]\"",
        "\"Taking snapshot of files...\"",
        "===> BUILDING",
        "==> a: Creating ",
        "\u{1b}[0m",
        "Build 'a' errored after 1s: ",
        "==> a: b: ",
        "  3 | >>> RUN x",
        "\\",
        "\"",
        "#4294967296 ",
        "99999999999.9s",
    ];
    prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn no_log_is_too_strange(
        texts in prop::collection::vec(prop::collection::vec(fragment(), 0..5), 0..40),
        seconds in prop::collection::vec(-5_000_000_000i64..5_000_000_000, 40),
    ) {
        for method in Method::ALL {
            let mut steps = Steps::new(method);
            for (text, second) in texts.iter().zip(&seconds) {
                let text = text.concat();
                let at = Timestamp::from_second(*second).unwrap();
                steps.read(Line { at, level: level_of(&text), text: &text });
                let told = steps.take_changes();
                prop_assert!(told.iter().all(|step| step.duration_seconds.is_none_or(|seconds| seconds >= 0)));
            }
            steps.end(End::Failed("it failed"));
            steps.take_changes();
            prop_assert!(steps.all().iter().all(|step| step.status != StepStatus::Running));
            let progress = steps.progress();
            prop_assert!(progress.done <= progress.total);
        }
    }

    /// Fed again from the table, in whatever batches.
    #[test]
    fn batches_make_no_difference(size in 1..50usize) {
        for (method, name) in [(Method::Buildx, "stages"), (Method::Container, "kinds"), (Method::Kaniko, "stages-cached")] {
            let log = recorded(method, name);
            let mut whole = Steps::new(method);
            feed(&mut whole, &log);
            let mut batched = Steps::new(method);
            let mut rows = std::collections::BTreeMap::new();
            for batch in log.chunks(size) {
                feed(&mut batched, batch);
                for change in batched.take_changes() {
                    let stdout = change.stdout.clone();
                    let row = rows.entry(change.number).insert_entry(change);
                    prop_assert!(stdout.is_some() || row.get().status == StepStatus::Running);
                }
            }
            prop_assert_eq!(whole.take_changes(), rows.into_values().collect::<Vec<_>>());
        }
    }
}
