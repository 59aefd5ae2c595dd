//! The agent's command line. Everything after `--` belongs to the builder and is passed on byte for byte; `--then` there
//! starts the next command of the same run.

mod lifecycle;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use image_factory_core::{lifecycle::BUILDPACKS, pod};
pub use lifecycle::Lifecycle;

pub const USAGE: &str =
    "usage: image-factory-agent run [--timeout-seconds N] [--grace-seconds N] [--wait-for-socket PATH] [--first-if PATH] \
[--needs-secret PATH=SENTENCE]... [--mask-file PATH]... [--mask-docker-config PATH]... [--report PATH] [--marker PATH] [--spent PATH] [--usage-of PATH] [--cgroup-root PATH] -- COMMAND [ARGUMENT]... [--then COMMAND [ARGUMENT]...]...
       image-factory-agent lifecycle [the same]... --image NAME... --source FOLDER [--cache-image NAME] [--cold true] \
[--insecure-registry HOST]... [--label NAME=VALUE]... [--env NAME=VALUE]... [--buildpack IMAGE]... [--registry-auth PATH]
       image-factory-agent bring [--from FOLDER] [--report PATH] --to FOLDER
       image-factory-agent daemon --usage PATH [--cgroup-root PATH] -- COMMAND [ARGUMENT]...
       image-factory-agent install FOLDER";

/// Shorter than Kubernetes' 30 seconds between SIGTERM and SIGKILL, so that the report is still written.
const DEFAULT_GRACE: Duration = Duration::from_secs(20);

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    Run(Box<Options>),
    Bring(Bring),
    Daemon(Daemon),
    Install(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Where what the container uses is kept.
    pub usage: PathBuf,
    pub cgroup_root: PathBuf,
    /// Never empty.
    pub command: Vec<OsString>,
}

/// Buildpacks are copied out of their image.
#[derive(Debug, PartialEq, Eq)]
pub struct Bring {
    pub from: PathBuf,
    pub to: PathBuf,
    pub report: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Of the whole run, from when `prepare` began; none means that only the Pod's own deadline ends it.
    pub timeout: Option<Duration>,
    /// Between asking a command to end and killing it.
    pub grace: Duration,
    /// A socket that must accept connections before the first command starts: the daemon beside the build.
    pub wait_for_socket: Option<PathBuf>,
    /// The file without which the first command is left out.
    pub first_if: Option<PathBuf>,
    /// Files of mounted Secrets without which nothing is started, each with what to say where it is not there: the
    /// operator may not read Secrets, so it is found out here.
    pub needed: Vec<(PathBuf, String)>,
    /// Files whose contents must not be seen in the log.
    pub masked_files: Vec<PathBuf>,
    /// The same for a registry's `config.json`, of which only some values are secret.
    pub masked_configs: Vec<PathBuf>,
    pub report: PathBuf,
    pub marker: PathBuf,
    /// The file with the milliseconds of the timeout that were used up before this container.
    pub spent: PathBuf,
    /// The file in which the daemon that does the work keeps what it uses; none where the builder itself does it.
    pub usage_of: Option<PathBuf>,
    pub cgroup_root: PathBuf,
    /// Never empty, and no command is, unless it is the lifecycle that is run.
    pub commands: Vec<Vec<OsString>>,
    pub lifecycle: Option<Lifecycle>,
}

pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, String> {
    let mut arguments = arguments.into_iter();
    let task = arguments.next().ok_or("nothing to do")?;
    match task.to_str() {
        Some("run") => parse_run(arguments, None).map(Box::new).map(Task::Run),
        Some("lifecycle") => parse_run(arguments, Some(Lifecycle::default())).map(Box::new).map(Task::Run),
        Some("bring") => parse_bring(arguments).map(Task::Bring),
        Some("daemon") => parse_daemon(arguments).map(Task::Daemon),
        Some("install") => match (arguments.next(), arguments.next()) {
            (Some(folder), None) => Ok(Task::Install(folder.into())),
            _ => Err("install takes one folder".into()),
        },
        _ => Err(format!("unknown task {}", task.display())),
    }
}

/// The lifecycle's programs are known: no command follows.
fn parse_run(mut arguments: impl Iterator<Item = OsString>, lifecycle: Option<Lifecycle>) -> Result<Options, String> {
    let mut options = Options {
        timeout: None,
        grace: DEFAULT_GRACE,
        wait_for_socket: None,
        first_if: None,
        needed: Vec::new(),
        masked_files: Vec::new(),
        masked_configs: Vec::new(),
        report: pod::TERMINATION_LOG.into(),
        marker: pod::STARTED_MARKER.into(),
        spent: pod::SPENT.into(),
        usage_of: None,
        cgroup_root: CGROUP_ROOT.into(),
        commands: Vec::new(),
        lifecycle,
    };
    while let Some((flag, value)) = next_flag(&mut arguments)? {
        if let Some(lifecycle) = &mut options.lifecycle
            && lifecycle.set(&flag, &value)?
        {
            continue;
        }
        match &*flag {
            "--timeout-seconds" => options.timeout = Some(seconds(&flag, &value)?),
            "--grace-seconds" => options.grace = seconds(&flag, &value)?,
            "--wait-for-socket" => options.wait_for_socket = Some(value.into()),
            "--first-if" => options.first_if = Some(value.into()),
            "--needs-secret" => options.needed.push(needed(&value)?),
            "--mask-file" => options.masked_files.push(value.into()),
            "--mask-docker-config" => options.masked_configs.push(value.into()),
            "--report" => options.report = value.into(),
            "--marker" => options.marker = value.into(),
            "--spent" => options.spent = value.into(),
            "--usage-of" => options.usage_of = Some(value.into()),
            "--cgroup-root" => options.cgroup_root = value.into(),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    if let Some(lifecycle) = &options.lifecycle {
        lifecycle.check()?;
        return if arguments.next().is_none() { Ok(options) } else { Err("lifecycle takes no command".into()) };
    }
    let mut command = Vec::new();
    for argument in arguments {
        if argument == "--then" {
            options.commands.push(std::mem::take(&mut command));
        } else {
            command.push(argument);
        }
    }
    options.commands.push(command);
    if options.commands.iter().any(Vec::is_empty) {
        return Err("a command is empty".into());
    }
    if options.first_if.is_some() && options.commands.len() == 1 {
        return Err("--first-if leaves nothing to run".into());
    }
    Ok(options)
}

fn parse_daemon(mut arguments: impl Iterator<Item = OsString>) -> Result<Daemon, String> {
    let (mut usage, mut cgroup_root) = (None, PathBuf::from(CGROUP_ROOT));
    while let Some((flag, value)) = next_flag(&mut arguments)? {
        match &*flag {
            "--usage" => usage = Some(value.into()),
            "--cgroup-root" => cgroup_root = value.into(),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    let usage = usage.ok_or("--usage is missing")?;
    let command: Vec<OsString> = arguments.collect();
    if command.is_empty() {
        return Err("a command is empty".into());
    }
    Ok(Daemon { usage, cgroup_root, command })
}

fn parse_bring(mut arguments: impl Iterator<Item = OsString>) -> Result<Bring, String> {
    let mut bring = Bring { from: BUILDPACKS.into(), to: PathBuf::new(), report: PathBuf::from(pod::TERMINATION_LOG) };
    while let Some(flag) = arguments.next() {
        let (flag, value) = valued(&flag, &mut arguments)?;
        match &*flag {
            "--from" => bring.from = value.into(),
            "--to" => bring.to = value.into(),
            "--report" => bring.report = value.into(),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    if bring.to.as_os_str().is_empty() { Err("--to is missing".into()) } else { Ok(bring) }
}

/// A flag with its value, as `--flag value` or `--flag=value`; `None` at the `--` that ends them.
fn next_flag(arguments: &mut impl Iterator<Item = OsString>) -> Result<Option<(String, OsString)>, String> {
    let flag = arguments.next().ok_or("the command is missing: it stands after --")?;
    if flag == "--" {
        return Ok(None);
    }
    valued(&flag, arguments).map(Some)
}

fn valued(flag: &OsStr, arguments: &mut impl Iterator<Item = OsString>) -> Result<(String, OsString), String> {
    let flag = flag.to_str().ok_or("flags are plain text")?;
    let (flag, given) = match flag.split_once('=') {
        Some((flag, value)) => (flag, Some(OsString::from(value))),
        None => (flag, None),
    };
    if !flag.starts_with("--") {
        return Err(format!("unknown flag {flag}"));
    }
    let value = given.or_else(|| arguments.next()).ok_or_else(|| format!("{flag} takes a value"))?;
    Ok((flag.to_owned(), value))
}

fn needed(value: &OsStr) -> Result<(PathBuf, String), String> {
    let pair = value.to_str().and_then(|text| text.split_once('='));
    let (path, sentence) = pair.ok_or("--needs-secret takes PATH=SENTENCE")?;
    Ok((path.into(), sentence.into()))
}

fn seconds(flag: &str, value: &OsStr) -> Result<Duration, String> {
    // u32: 136 years, and no sum of a clock and a timeout can overflow.
    let number = value.to_str().and_then(|text| text.parse::<u32>().ok());
    number
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| format!("{flag} takes whole seconds, not {}", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Task::Run(options)) => *options,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_run_takes_its_places_from_the_pod() {
        let options = options("run -- builder --flag value");
        assert_eq!(options.commands, [["builder", "--flag", "value"]]);
        assert_eq!(options.report, PathBuf::from("/dev/termination-log"));
        assert_eq!(options.marker, PathBuf::from("/image-factory/started"));
        assert_eq!(options.spent, PathBuf::from("/image-factory/spent"));
        assert_eq!((options.timeout, options.grace), (None, Duration::from_secs(20)));
    }

    #[test]
    fn flags_after_the_dashes_are_the_builders() {
        let options =
            options("run --timeout-seconds 60 --wait-for-socket /run/b.sock -- a --timeout-seconds 1 -- b --then c");
        assert_eq!(options.timeout, Some(Duration::from_mins(1)));
        assert_eq!(options.wait_for_socket, Some("/run/b.sock".into()));
        assert_eq!(options.commands, vec![vec!["a", "--timeout-seconds", "1", "--", "b"], vec!["c"]]);
    }

    #[test]
    fn a_value_may_be_joined_to_its_flag() {
        let options = options("run --timeout-seconds=90 --report=/a=b -- c=d");
        assert_eq!(options.timeout, Some(Duration::from_secs(90)));
        assert_eq!(options.report, PathBuf::from("/a=b"));
        assert_eq!(options.commands, [["c=d"]]);
    }

    #[test]
    fn a_daemon_and_the_build_beside_it_share_a_file() {
        let daemon = Daemon {
            usage: "/v/usage".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            command: vec!["buildkitd".into(), "--debug".into()],
        };
        assert_eq!(parsed("daemon --usage=/v/usage -- buildkitd --debug"), Ok(Task::Daemon(daemon)));
        assert_eq!(options("run --usage-of /v/usage -- a").usage_of, Some("/v/usage".into()));
    }

    #[test]
    fn secrets_are_named_one_by_one() {
        let line =
            ["run", "--needs-secret=/a=no b=c", "--mask-file", "/x", "--mask-file=/y", "--mask-docker-config=/z"];
        let line = line.into_iter().chain(["--", "builder"]).map(OsString::from);
        let Ok(Task::Run(options)) = parse(line) else { unreachable!("it is a run") };
        assert_eq!(options.needed, [(PathBuf::from("/a"), "no b=c".to_owned())]);
        assert_eq!(options.masked_files, [PathBuf::from("/x"), "/y".into()]);
        assert_eq!(options.masked_configs, [PathBuf::from("/z")]);
    }

    #[test]
    fn a_build_by_buildpacks_has_the_flags_of_a_run_and_its_own_and_no_command() {
        let options = options(
            "lifecycle --timeout-seconds=9 --image=r/a:1 --image=r/a:2 --source=/s --cold=true --label=a=b=c --env=A= \
             --buildpack=r/x --insecure-registry=r --cache-image=r/c --registry-auth=/k --",
        );
        assert_eq!((options.timeout, options.commands.len()), (Some(Duration::from_secs(9)), 0));
        let lifecycle = options.lifecycle.expect("it is one");
        assert_eq!((lifecycle.source, lifecycle.registry_auth), (PathBuf::from("/s"), Some("/k".into())));
        let request = lifecycle.request;
        assert_eq!(request.images, ["r/a:1", "r/a:2"]);
        assert_eq!((request.is_cold, request.cache_image.as_deref()), (true, Some("r/c")));
        assert_eq!(request.labels, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(request.environment, [("A".to_owned(), String::new())]);
        assert_eq!((request.buildpacks, request.insecure_registries), (vec!["r/x".to_owned()], vec!["r".to_owned()]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_sentence() {
        for (line, sentence) in [
            ("", "nothing to do"),
            ("walk", "unknown task walk"),
            ("install", "install takes one folder"),
            ("install a b", "install takes one folder"),
            ("run", "the command is missing: it stands after --"),
            ("run builder", "unknown flag builder"),
            ("run --timeout-seconds", "--timeout-seconds takes a value"),
            ("run --timeout-seconds 1h -- a", "--timeout-seconds takes whole seconds, not 1h"),
            ("run --grace-seconds -1 -- a", "--grace-seconds takes whole seconds, not -1"),
            ("run --needs-secret /a -- b", "--needs-secret takes PATH=SENTENCE"),
            ("run --", "a command is empty"),
            ("daemon -- a", "--usage is missing"),
            ("daemon --usage /u --", "a command is empty"),
            ("daemon --timeout-seconds 1 -- a", "unknown flag --timeout-seconds"),
            ("run -- a --then", "a command is empty"),
            ("run -- --then a", "a command is empty"),
            ("run --image=a -- a", "unknown flag --image"),
            ("lifecycle --source=/s --", "--image is missing"),
            ("lifecycle --image=a --", "--source is missing"),
            ("lifecycle --image=a --source=/s -- b", "lifecycle takes no command"),
            ("lifecycle --image=a --label=b --", "--label takes NAME=VALUE"),
            ("bring", "--to is missing"),
            ("bring --to", "--to takes a value"),
            ("run --first-if /a -- b", "--first-if leaves nothing to run"),
        ] {
            assert_eq!(parsed(line), Err(sentence.to_owned()), "{line:?}");
        }
    }
}
