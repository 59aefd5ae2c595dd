//! A run: the commands one after another until one fails, each in a process group of its own with its output in one pipe.
//! This file decides when a run is over and what its exit code means. A run ends by itself, by its timeout or by a signal
//! to the agent; the last two ask the command to end (SIGTERM), and kill it after a grace. A second start is refused.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use image_factory_core::pod::{EXIT_AGENT, EXIT_TIMED_OUT};
use image_factory_core::reason::Reason;
use image_factory_core::report::{AgentReport, CommandReport, PodFailure, Usage};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::arguments::Options;
use crate::cgroup::{INTERVAL, Meter};
use crate::daemon;
use crate::lifecycle;
use crate::log::Log;
use crate::mask::Mask;
use crate::process::{self, End, NotStarted, Start, signal_group};
use crate::secrets;

/// How long output is still taken after its command has ended, where a process the command left behind holds the pipe.
const DRAIN: Duration = Duration::from_secs(2);
/// A daemon beside the build that accepts nothing for this long will not.
const SOCKET_PATIENCE: Duration = Duration::from_mins(2);
const SOCKET_INTERVAL: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 64 * 1024;
/// A Secret holds at most 1 MiB.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

enum Event {
    Signal(i32),
    /// The command ended; none where the kernel lost it.
    Ended(Option<End>),
    /// The command's output is at its end; which stream that was.
    Drained(u64),
}

/// Runs everything, writes the report, returns the exit code.
pub fn run(options: &Options) -> i32 {
    let log = Log::new();
    let mut run = Run::new(options, log.clone());
    if options.lifecycle.is_some() {
        // Buildpacks run under the same user: they must not read the credentials out of this process.
        let _ = nix::sys::prctl::set_dumpable(false);
    }
    match claim(&options.marker).and_then(|()| run.listen()).and_then(|()| mask(options)) {
        Ok(mask) => {
            log.hide(mask);
            match options.needed.iter().find(|(path, _)| !path.exists()) {
                Some((_, sentence)) => run.miss(&PodFailure::new(Reason::SecretNotFound.as_str(), sentence)),
                None => match run.commands() {
                    Ok(commands) => run.execute(&commands),
                    Err(failure) => run.miss(&failure),
                },
            }
        }
        Err(sentence) => run.refuse(sentence),
    }
    let report = run.into_report();
    if let Err(error) = fs::write(&options.report, report.encode()) {
        eprintln!("image-factory-agent: failed to write the report to {}: {error}", options.report.display());
    }
    report.exit_code
}

/// The marker is on the volume that the Pod's containers share, so it also outlives a container that is started again.
fn claim(marker: &Path) -> Result<(), String> {
    match OpenOptions::new().write(true).create_new(true).open(marker) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(format!("refused to start a second time: {} is there from the first start", marker.display()))
        }
        Err(error) => Err(format!("failed to create the marker {}: {error}", marker.display())),
    }
}

/// What must not be seen in the log. A file that is not there holds no secret; one that can't be read stops the run.
fn mask(options: &Options) -> Result<Mask, String> {
    let mut values = BTreeSet::new();
    for path in &options.masked_files {
        values.append(&mut secrets::of_file(&read_secret(path)?));
    }
    for path in &options.masked_configs {
        values.append(&mut secrets::of_docker_config(&read_secret(path)?));
    }
    Ok(Mask::new(values))
}

fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_end(&mut content)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("failed to read the secret {}: {error}", path.display()))
        }
        _ => Ok(content),
    }
}

/// Without the file nothing was.
fn spent(path: &Path) -> Duration {
    let milliseconds = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    Duration::from_millis(milliseconds.unwrap_or_default())
}

struct Run<'a> {
    options: &'a Options,
    log: Log,
    report: AgentReport,
    meter: Arc<Meter>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    deadline: Option<Instant>,
    /// Commands that are left out at the beginning.
    skipped: usize,
    /// Set once the run has been asked to end: when what still runs is killed.
    kill_at: Option<Instant>,
    /// The signal that ended the run from outside.
    ended_by: Option<i32>,
    /// The command that runs is the last one.
    is_last: bool,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, log: Log) -> Self {
        let (sender, events) = channel();
        Self {
            deadline: options.timeout.map(|timeout| Instant::now() + timeout.saturating_sub(spent(&options.spent))),
            options,
            log,
            report: AgentReport::default(),
            meter: meter(&options.cgroup_root),
            sender,
            events,
            skipped: usize::from(options.first_if.as_ref().is_some_and(|path| !path.exists())),
            kill_at: None,
            ended_by: None,
            is_last: true,
        }
    }

    fn listen(&self) -> Result<(), String> {
        let mut signals =
            Signals::new([SIGTERM, SIGINT]).map_err(|error| format!("failed to listen for signals: {error}"))?;
        let sender = self.sender.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// What is started one after another. Where it is the lifecycle all that it needs is made ready first.
    fn commands(&self) -> Result<Vec<Start>, PodFailure> {
        match &self.options.lifecycle {
            Some(lifecycle) => lifecycle::prepare(lifecycle, &self.log),
            None => Ok(self.options.commands.iter().cloned().map(Start::plain).collect()),
        }
    }

    fn execute(&mut self, commands: &[Start]) {
        if let Some(socket) = &self.options.wait_for_socket
            && let Err(sentence) = self.wait_for(socket)
        {
            self.refuse(sentence);
        }
        for (index, command) in commands.iter().enumerate().skip(self.skipped) {
            if self.report.exit_code != 0 {
                break;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.report.timed_out = true;
            }
            if self.ending() {
                self.report.exit_code = self.ending_code();
                break;
            }
            self.is_last = index + 1 == commands.len();
            if let Some(heading) = command.heading {
                self.log.print(heading);
            }
            self.report.exit_code = self.execute_one(command);
            if self.options.lifecycle.is_some() {
                process::end_all_others();
            }
            if let Some((path, text)) = command.appends.as_ref().filter(|_| self.report.exit_code == 0)
                && let Err(error) = append(path, text)
            {
                self.refuse(format!("failed to add to {}: {error}", path.display()));
            }
        }
        if self.report.timed_out {
            let seconds = self.options.timeout.unwrap_or_default().as_secs();
            self.log.say(&format!("the run was ended at its timeout of {seconds} s"));
        } else if let Some(signal) = self.ended_by {
            self.log.say(&format!("the run was ended by {}", name_of(signal)));
        }
    }

    /// Until the daemon beside the build accepts connections: a socket file alone may be older than its daemon.
    fn wait_for(&mut self, socket: &Path) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let Err(error) = UnixStream::connect(socket) else {
                return Ok(());
            };
            if begin.elapsed() >= SOCKET_PATIENCE {
                return Err(format!(
                    "nothing accepted connections on {} for {} s: {error}",
                    socket.display(),
                    SOCKET_PATIENCE.as_secs()
                ));
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(()); // the caller sees the deadline
            }
            if let Ok(Event::Signal(signal)) = self.events.recv_timeout(SOCKET_INTERVAL) {
                self.report.terminated = true;
                self.ended_by = Some(signal);
                return Ok(());
            }
        }
    }

    fn execute_one(&mut self, command: &Start) -> i32 {
        let begin = Instant::now();
        let program = &command.argv[0];
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let (code, end) = match self.start(command) {
            Ok((group, stream)) => {
                let end = self.watch(group, stream);
                self.log.close_stream();
                if let Some(end) = end {
                    (end.exit_code(), Some(end))
                } else {
                    self.refuse(format!("lost the end of {name}"));
                    (EXIT_AGENT, None)
                }
            }
            Err(NotStarted { code: EXIT_AGENT, sentence }) => {
                self.refuse(sentence);
                (EXIT_AGENT, None)
            }
            Err(NotStarted { code, sentence }) => {
                self.log.say(&sentence);
                (code, Some(End::Code(code)))
            }
        };
        let (exit_code, signal) = match end {
            Some(End::Code(code)) => (Some(code), None),
            Some(End::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.commands.push(CommandReport { name, exit_code, signal, milliseconds });
        // A command that was asked to end and ended well has still not done what it was started for.
        if code == 0 && self.ending() { self.ending_code() } else { code }
    }

    fn start(&self, command: &Start) -> Result<(Pid, u64), NotStarted> {
        let (group, output) = process::start(command)?;
        let sender = self.sender.clone();
        thread::spawn(move || {
            // A failed send means that the run is over, and nobody asks any more.
            let _ = sender.send(Event::Ended(process::wait(group)));
        });
        let (log, sender, stream) = (self.log.clone(), self.sender.clone(), self.log.open_stream());
        thread::spawn(move || {
            pump(output, &log, stream);
            let _ = sender.send(Event::Drained(stream));
        });
        Ok((group, stream))
    }

    /// Until the command has ended and its output is read to the end, or left to the processes that still hold it.
    fn watch(&mut self, group: Pid, stream: u64) -> Option<End> {
        let mut ended: Option<Option<End>> = None;
        let mut drained = false;
        let mut drain_until = None;
        loop {
            if let Some(end) = ended
                && drained
            {
                return end;
            }
            let timeout = self.deadline.filter(|_| ended.is_none() && !self.ending());
            let next = [timeout, self.kill_at, drain_until].into_iter().flatten().min();
            match self.next_event(next) {
                Some(Event::Signal(signal)) => {
                    if ended.is_none() || !self.is_last {
                        self.report.terminated = true;
                        self.ended_by.get_or_insert(signal);
                    }
                    self.end(group, Signal::try_from(signal).unwrap_or(Signal::SIGTERM));
                }
                Some(Event::Ended(end)) => {
                    ended = Some(end);
                    drain_until = Some(Instant::now() + DRAIN);
                }
                Some(Event::Drained(which)) => drained |= which == stream,
                None => {
                    let now = Instant::now();
                    if timeout.is_some_and(|at| now >= at) {
                        self.report.timed_out = true;
                        self.end(group, Signal::SIGTERM);
                    }
                    if self.kill_at.is_some_and(|at| now >= at) {
                        self.kill_at = None;
                        signal_group(group, Signal::SIGKILL);
                    }
                    if drain_until.is_some_and(|until| now >= until) {
                        if self.ending() {
                            signal_group(group, Signal::SIGKILL);
                        }
                        drained = true;
                    }
                }
            }
        }
    }

    fn next_event(&self, until: Option<Instant>) -> Option<Event> {
        match until {
            None => self.events.recv().ok(),
            Some(until) => self.events.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
        }
    }

    fn end(&mut self, group: Pid, signal: Signal) {
        self.kill_at.get_or_insert_with(|| Instant::now() + self.options.grace);
        signal_group(group, signal);
    }

    fn ending(&self) -> bool {
        self.report.timed_out || self.report.terminated
    }

    fn ending_code(&self) -> i32 {
        self.ended_by.map_or(EXIT_TIMED_OUT, |signal| 128 + signal)
    }

    fn refuse(&mut self, sentence: String) {
        self.log.say(&sentence);
        self.report.exit_code = EXIT_AGENT;
        self.report.error = Some(sentence);
    }

    /// Something that the Build names is not there.
    fn miss(&mut self, failure: &PodFailure) {
        self.log.say(&failure.message);
        self.report.exit_code = EXIT_AGENT;
        self.report.failure = Some(failure.clone());
    }

    fn into_report(self) -> AgentReport {
        let own = self.meter.usage();
        let usage = match &self.options.usage_of {
            // Of the client nothing is of interest but whether it ran out of memory itself.
            Some(path) => {
                let failed = self.report.exit_code != 0;
                let usage = if failed { daemon::read_fresh(path) } else { daemon::read(path) }.unwrap_or_default();
                Usage { oom_kills: usage.oom_kills.max(own.oom_kills), ..usage }
            }
            None => own,
        };
        let written = self.log.written();
        AgentReport {
            lines: written.lines,
            bytes: written.bytes,
            usage,
            error: self.report.error.or(written.failure),
            ..self.report
        }
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn meter(cgroup_root: &Path) -> Arc<Meter> {
    let meter = Arc::new(Meter::start(cgroup_root));
    if meter.is_sampling() {
        let meter = meter.clone();
        thread::spawn(move || {
            loop {
                meter.usage();
                thread::sleep(INTERVAL);
            }
        });
    }
    meter
}

fn pump(mut pipe: PipeReader, log: &Log, stream: u64) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                if !log.accept(stream, &chunk[..length]) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn name_of(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("a signal", Signal::as_str)
}
