//! The agent as a container runs it: the real binary, a real command under it, real signals.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use image_factory_core::report::{AgentReport, Usage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const AGENT: &str = env!("CARGO_BIN_EXE_image-factory-agent");

/// A volume of its own for every test.
struct Volume(PathBuf);

impl Volume {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("agent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("makes the volume");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }

    fn agent(&self, flags: &[&str], commands: &[&str]) -> Command {
        let mut command = Command::new(AGENT);
        command
            .args([
                "run",
                "--marker",
                &self.path("started"),
                "--spent",
                &self.path("spent"),
                "--report",
                &self.path("report"),
            ])
            .args(flags)
            .arg("--")
            .args(commands)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, flags: &[&str], commands: &[&str]) -> Output {
        self.agent(flags, commands).output().expect("the agent runs")
    }

    fn sh(&self, script: &str) -> Output {
        self.run(&[], &["sh", "-c", script])
    }

    fn report(&self) -> AgentReport {
        let bytes = fs::read(self.0.join("report")).expect("there is a report");
        AgentReport::decode(&bytes).expect("the report decodes")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn first_line(child: &mut Child) -> (String, impl BufRead + use<>) {
    let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("reads a line");
    (line, output)
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("signals the agent");
}

fn rest(mut output: impl Read) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).expect("reads to the end");
    text
}

#[test]
fn both_streams_come_out_in_the_order_they_were_written() {
    let volume = Volume::new();
    let output = volume.sh("for n in 1 2 3 4 5 6 7 8 9; do echo out $n; echo err $n >&2; done");
    let expected = (1..10).fold(String::new(), |text, n| text + &format!("out {n}\nerr {n}\n"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.stderr, b"");
    assert_eq!(output.status.code(), Some(0));
    let report = volume.report();
    assert_eq!((report.lines, report.bytes), (18, expected.len() as u64));
    assert_eq!(report.commands[0].name, "sh");
    assert_eq!(report.commands[0].exit_code, Some(0));
}

#[test]
fn a_line_is_visible_before_the_command_ends() {
    let volume = Volume::new();
    let gate = volume.path("gate");
    let script = format!("echo begun; until test -e {gate}; do sleep 0.02; done; echo over");
    let mut child = volume.agent(&[], &["sh", "-c", &script]).spawn().expect("starts");
    // The command waits for the gate, which opens only after its first line has been read here.
    let (line, output) = first_line(&mut child);
    assert_eq!(line, "begun\n");
    fs::write(&gate, "").expect("opens the gate");
    assert_eq!(rest(output), "over\n");
    assert!(child.wait().expect("ends").success());
}

#[test]
fn long_lines_are_cut_and_counted_as_written() {
    let volume = Volume::new();
    let output = volume.sh("head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no newline'");
    let lengths: Vec<usize> = output.stdout.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lengths, [15_360, 15_360, 9_286, 10, 0], "40,000 and two marks");
    let report = volume.report();
    assert_eq!((report.lines, report.bytes), (4, output.stdout.len() as u64));
}

#[test]
fn bytes_that_are_no_text_pass_untouched() {
    let volume = Volume::new();
    let output = volume.sh(r"printf 'a\000b\377\376\n\033[31mred\033[0m\r\n'");
    assert_eq!(output.stdout, b"a\0b\xff\xfe\n\x1b[31mred\x1b[0m\r\n");
    assert_eq!(volume.report().lines, 2);
}

#[test]
fn a_great_deal_of_output_arrives_whole() {
    let volume = Volume::new();
    let output = volume.sh("seq 1 300000");
    let expected = (1..=300_000).fold(String::new(), |text, n| text + &format!("{n}\n"));
    assert!(output.stdout == expected.as_bytes());
    let report = volume.report();
    assert_eq!((report.lines, report.bytes), (300_000, expected.len() as u64));
}

/// A builder that waits for its output reads that of its RUN too late.
#[test]
fn a_command_need_not_wait_for_whoever_reads_the_log() {
    let volume = Volume::new();
    let printed = volume.path("printed");
    let script = format!("seq 1 140000; : > {printed}");
    let mut agent = volume.agent(&[], &["sh", "-c", &script]).spawn().expect("the agent starts");
    let begun = Instant::now();
    while !PathBuf::from(&printed).exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it waits");
        thread::sleep(Duration::from_millis(20));
    }
    let log = rest(agent.stdout.take().expect("a pipe"));
    assert!(agent.wait().expect("it ends").success());
    assert_eq!((log.lines().count(), log.lines().last()), (140_000, Some("140000")));
}

#[test]
fn commands_run_in_sequence_and_stop_at_the_first_failure() {
    let volume = Volume::new();
    let commands = ["echo", "one", "--then", "sh", "-c", "echo two; exit 7", "--then", "echo", "three"];
    let output = volume.run(&[], &commands);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
    assert_eq!(output.status.code(), Some(7));
    let report = volume.report();
    let ends: Vec<_> = report.commands.iter().map(|command| (command.name.as_str(), command.exit_code)).collect();
    assert_eq!(ends, [("echo", Some(0)), ("sh", Some(7))]);
    assert_eq!((report.exit_code, report.error), (7, None));
}

#[test]
fn the_first_command_is_left_out_where_a_file_is_not_there() {
    for (there, expected) in [(false, "second\n"), (true, "first\nsecond\n")] {
        let volume = Volume::new();
        let file = volume.path("wanted");
        if there {
            fs::write(&file, "").expect("writes");
        }
        let output = volume.run(&["--first-if", &file], &["echo", "first", "--then", "echo", "second"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert_eq!(volume.report().commands.len(), expected.lines().count());
    }
}

#[test]
fn a_commands_last_line_never_runs_into_the_next_command() {
    let volume = Volume::new();
    let output = volume.run(&[], &["printf", "partial", "--then", "echo", "next"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "partial\nnext\n");
}

#[test]
fn a_command_killed_by_a_signal_is_reported_as_such() {
    let volume = Volume::new();
    let output = volume.sh("kill -9 $$");
    assert_eq!(output.status.code(), Some(137));
    let report = volume.report();
    assert_eq!((report.commands[0].exit_code, report.commands[0].signal), (None, Some(9)));
    assert!(!report.terminated);
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let volume = Volume::new();
    let output = volume.run(&[], &["no-such-builder", "--secret=hunter2"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "image-factory-agent: command not found: no-such-builder\n");
    let report = volume.report();
    assert_eq!((report.lines, report.bytes), (1, output.stdout.len() as u64));
    assert_eq!(report.commands[0].name, "no-such-builder");
}

#[test]
fn a_file_that_cannot_be_executed_is_named() {
    let volume = Volume::new();
    fs::write(volume.path("plain"), "text").expect("writes");
    let output = volume.run(&[], &[&volume.path("plain")]);
    assert_eq!(output.status.code(), Some(126));
    fs::write(volume.path("script"), "#!/no/such/shell\n").expect("writes");
    fs::set_permissions(volume.path("script"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_file(volume.path("started")).expect("the marker is there");
    let output = volume.run(&[], &[&volume.path("script")]);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stdout).contains("interpreter or loader"));
}

#[test]
fn a_second_start_is_refused() {
    let volume = Volume::new();
    assert!(volume.sh("echo first").status.success());
    let output = volume.sh(&format!("touch {}", volume.path("ran-again")));
    assert_eq!(output.status.code(), Some(125));
    assert!(!volume.0.join("ran-again").exists());
    let report = volume.report();
    let error = report.error.expect("the report says why");
    assert!(error.starts_with("refused to start a second time"), "{error}");
    assert_eq!((report.exit_code, report.commands.len(), report.lines), (125, 0, 1));
}

#[test]
fn the_timeout_ends_the_whole_process_group() {
    let volume = Volume::new();
    let begin = Instant::now();
    let output = volume
        .run(&["--timeout-seconds", "1"], &["sh", "-c", "echo begun; sleep 60 | sleep 60", "--then", "echo", "never"]);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "begun\nimage-factory-agent: the run was ended at its timeout of 1 s\n"
    );
    assert_eq!(output.status.code(), Some(143));
    let report = volume.report();
    assert!(report.timed_out && !report.terminated);
    assert_eq!(report.commands.len(), 1);
}

#[test]
fn what_was_used_up_before_counts_into_the_timeout() {
    let volume = Volume::new();
    fs::write(volume.path("spent"), "3599500\n").expect("writes the file");
    let began = Instant::now();
    volume.run(&["--timeout-seconds", "3600"], &["sleep", "60"]);
    assert!(volume.report().timed_out);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_command_that_ignores_the_timeout_is_killed_after_the_grace() {
    let volume = Volume::new();
    let flags = ["--timeout-seconds", "1", "--grace-seconds", "1"];
    let begin = Instant::now();
    let output = volume.run(&flags, &["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(137));
    assert!(volume.report().timed_out);
}

#[test]
fn a_command_that_ends_well_at_the_timeout_is_still_no_success() {
    let volume = Volume::new();
    let script = "trap 'echo tidied; exit 0' TERM; while :; do sleep 0.1; done";
    let output = volume.run(&["--timeout-seconds", "1"], &["sh", "-c", script]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("tidied\n"));
    assert_eq!(output.status.code(), Some(124));
    let report = volume.report();
    assert_eq!((report.exit_code, report.commands[0].exit_code), (124, Some(0)));
}

#[test]
fn a_signal_is_passed_on_and_what_the_command_says_then_is_kept() {
    let volume = Volume::new();
    let script = "trap 'echo cleaning up; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = volume.agent(&[], &["sh", "-c", script]).spawn().expect("starts");
    let (line, output) = first_line(&mut child);
    assert_eq!(line, "ready\n");
    signal(&child, Signal::SIGTERM);
    let output = rest(output); // some shells add that their `sleep` was terminated
    let end = "cleaning up
image-factory-agent: the run was ended by SIGTERM
";
    assert!(output.ends_with(end), "{output}");
    assert_eq!(child.wait().expect("ends").code(), Some(3));
    let report = volume.report();
    assert!(report.terminated && !report.timed_out);
    assert_eq!(report.lines, 1 + output.lines().count() as u64);
}

#[test]
fn no_further_command_starts_after_a_signal() {
    let volume = Volume::new();
    let script = "trap 'exit 0' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = volume.agent(&[], &["sh", "-c", script, "--then", "echo", "never"]).spawn().expect("starts");
    let (_, output) = first_line(&mut child);
    signal(&child, Signal::SIGINT);
    let output = rest(output);
    assert!(output.ends_with("image-factory-agent: the run was ended by SIGINT\n"), "{output}");
    assert!(!output.contains("never"), "{output}");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn a_process_left_behind_with_the_pipe_does_not_hold_the_run() {
    let volume = Volume::new();
    let pid_file = volume.path("pid");
    let begin = Instant::now();
    // setsid: outside the group, as a daemon would be.
    let script = format!("setsid sleep 60 & echo $! > {pid_file}; printf done");
    let output = volume.sh(&script);
    let elapsed = begin.elapsed();
    let pid: i32 = fs::read_to_string(&pid_file).expect("reads").trim().parse().expect("a number");
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(volume.report().lines, 1);
}

#[test]
fn output_that_comes_too_late_is_neither_written_nor_counted() {
    let volume = Volume::new();
    let gate = volume.path("gate");
    let late = format!("(until test -e {gate}; do sleep 0.05; done; echo late) & echo first");
    // The second command opens the gate, and outlives the late line by a little.
    let second = format!("touch {gate}; sleep 0.5; echo second");
    let output = volume.run(&[], &["sh", "-c", &late, "--then", "sh", "-c", &second]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\nsecond\n");
    assert_eq!(volume.report().lines, 2);
}

#[test]
fn the_first_command_waits_for_the_socket() {
    let volume = Volume::new();
    let path = volume.path("daemon.sock");
    let mut child = volume.agent(&["--wait-for-socket", &path], &["test", "-S", &path]).spawn().expect("starts");
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("asks").is_none(), "it waits");
    let listener = UnixListener::bind(&path).expect("binds");
    assert!(child.wait().expect("ends").success());
    drop(listener);
}

#[test]
fn a_timeout_also_ends_the_wait_for_the_socket() {
    let volume = Volume::new();
    let flags = ["--wait-for-socket", &volume.path("never.sock"), "--timeout-seconds", "1"];
    let output = volume.run(&flags, &["echo", "never"]);
    assert_eq!(output.status.code(), Some(124));
    let report = volume.report();
    assert!(report.timed_out);
    assert_eq!(report.commands, []);
}

#[test]
fn the_containers_counters_are_in_the_report() {
    let volume = Volume::new();
    let groups = volume.0.join("cgroup");
    fs::create_dir_all(&groups).expect("makes");
    for (file, text) in [
        ("cgroup.controllers", "cpu io memory\n"),
        ("memory.peak", "4096\n"),
        ("cpu.stat", "usage_usec 12\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=0 wios=0\n"),
    ] {
        fs::write(groups.join(file), text).expect("writes");
    }
    volume.run(&["--cgroup-root", &volume.path("cgroup")], &["true"]);
    let report = volume.report();
    let usage = Usage { milliseconds: None, ..report.usage };
    let expected = Usage {
        memory_peak_bytes: Some(4_096),
        cpu_microseconds: Some(12),
        disk_read_bytes: Some(1),
        disk_write_bytes: Some(2),
        ..Usage::default()
    };
    assert_eq!(usage, expected);
    assert!(report.usage.milliseconds >= Some(report.commands[0].milliseconds));
}

#[test]
fn a_daemons_counters_are_in_the_report_of_the_build_beside_it() {
    let volume = Volume::new();
    let groups = volume.0.join("cgroup");
    fs::create_dir_all(&groups).expect("makes");
    fs::write(groups.join("cgroup.controllers"), "memory\n").expect("writes");
    fs::write(groups.join("memory.peak"), "4096\n").expect("writes");
    let script = "trap 'echo stopped; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let mut daemon = Command::new(AGENT)
        .args(["daemon", "--usage", &volume.path("usage"), "--cgroup-root", &volume.path("cgroup")])
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (line, output) = first_line(&mut daemon);
    assert_eq!(line, "ready\n");
    fs::write(groups.join("memory.peak"), "8192\n").expect("writes");
    let peak = format!("until grep -q 8192 {}; do sleep 0.02; done", volume.path("usage"));
    volume.run(&["--usage-of", &volume.path("usage"), "--cgroup-root", "/nowhere"], &["sh", "-c", &peak]);
    let usage = volume.report().usage;
    assert_eq!((usage.memory_peak_bytes, usage.cpu_microseconds), (Some(8_192), None));
    assert!(usage.milliseconds.is_some());
    // The kernel counts it in the moment of the failure.
    let killed = format!("echo 'oom_kill 1' > {}/memory.events; exit 1", groups.display());
    let flags = ["--marker", &volume.path("other"), "--usage-of", &volume.path("usage"), "--cgroup-root", "/nowhere"];
    volume.run(&flags, &["sh", "-c", &killed]);
    assert_eq!(volume.report().usage.oom_kills, Some(1));
    signal(&daemon, Signal::SIGTERM);
    assert!(rest(output).ends_with("stopped\n"), "it ends in its own way");
    assert_eq!(daemon.wait().expect("ends").code(), Some(4));
}

#[test]
fn where_the_daemon_left_no_counters_there_are_none() {
    let volume = Volume::new();
    volume.run(&["--usage-of", &volume.path("nowhere"), "--cgroup-root", "/nowhere"], &["true"]);
    assert_eq!(volume.report().usage, Usage::default());
}

#[test]
fn a_wrong_command_line_is_refused_with_the_usage() {
    let output = Command::new(AGENT).args(["run", "builder"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("image-factory-agent: unknown flag builder\nusage: "), "{text}");
}

#[test]
fn installing_leaves_an_executable_copy() {
    let volume = Volume::new();
    let folder = volume.path("bin");
    for _ in 0..2 {
        let status = Command::new(AGENT).args(["install", &folder]).status().expect("runs");
        assert!(status.success());
    }
    let copy = volume.0.join("bin/image-factory-agent");
    let mode = fs::metadata(&copy).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert!(fs::read(&copy).expect("reads") == fs::read(AGENT).expect("reads"));
    assert_eq!(fs::read_dir(volume.0.join("bin")).expect("lists").count(), 1);
}

#[test]
fn what_is_secret_is_not_seen_even_where_a_command_prints_it() {
    let volume = Volume::new();
    fs::write(volume.path("token"), "hunter2-hunter2\n").expect("writes");
    let auth = "cm9ib3Q6c2VzYW1lLW9wZW4="; // robot:sesame-open
    fs::write(volume.path("config.json"), format!(r#"{{"auths": {{"r.test": {{"auth": "{auth}"}}}}}}"#))
        .expect("writes");
    let (token, config) = (volume.path("token"), volume.path("config.json"));
    let script = format!("cat {token}; printf 'auth=%s pass=sesame-open user=robot\\n' {auth}; base64 <{token}");
    let output = volume.run(&["--mask-file", &token, "--mask-docker-config", &config], &["sh", "-c", &script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "***\nauth=*** pass=*** user=robot\n***\n");
    let report = volume.report();
    assert_eq!((report.lines, report.bytes), (3, output.stdout.len() as u64), "what was written is counted");
}

#[test]
fn without_a_secret_that_is_needed_nothing_starts() {
    let volume = Volume::new();
    fs::write(volume.path("there"), "").expect("writes");
    let needs = |name: &str| format!("--needs-secret={}=no key {name}", volume.path(name));
    let output = volume.run(&[&needs("there"), &needs("missing")], &["echo", "started"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "image-factory-agent: no key missing\n");
    assert_eq!(output.status.code(), Some(125));
    let report = volume.report();
    let failure = report.failure.expect("the report says why");
    assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("SecretNotFound", "no key missing"));
    assert!(report.error.is_none() && report.commands.is_empty());
}
