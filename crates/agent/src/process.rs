//! One command as a process: started in a group of its own with both its streams in one pipe, waited for, signalled.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image_factory_core::pod::{EXIT_AGENT, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// How a command ended.
#[derive(Clone, Copy)]
pub enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    /// As a shell would put it.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Why there is no process, and the exit code that says so.
pub struct NotStarted {
    pub code: i32,
    pub sentence: String,
}

/// What is started, and with what beside this process's own environment.
pub struct Start {
    /// Never empty.
    pub argv: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub folder: Option<PathBuf>,
    /// Printed before its output.
    pub heading: Option<&'static str>,
    /// A file, and what is added to it once the process has ended well.
    pub appends: Option<(PathBuf, String)>,
}

impl Start {
    pub fn plain(argv: Vec<OsString>) -> Self {
        Self { argv, environment: Vec::new(), folder: None, heading: None, appends: None }
    }
}

/// What a command may print before anybody reads it, in bytes: the most that Linux grants to everyone. A builder that has
/// to wait for its own output reads that of its RUN late, and Buildah reads none any more once the RUN has ended.
const PIPE_BYTES: i32 = 1024 * 1024;

/// The process leads its group, so one number names both. The reader is at its end when every process that inherited the
/// pipe has ended.
pub fn start(command: &Start) -> Result<(Pid, PipeReader), NotStarted> {
    let own = |sentence: String| NotStarted { code: EXIT_AGENT, sentence };
    let no_pipe = |error: io::Error| own(format!("failed to make a pipe: {error}"));
    let (reader, writer) = io::pipe().map_err(no_pipe)?;
    // Whoever may not have so much has what a pipe has by itself.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let mut process = Command::new(&command.argv[0]);
    if let Some(folder) = &command.folder {
        process.current_dir(folder);
    }
    let child = process
        .args(&command.argv[1..])
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(no_pipe)?)
        .stderr(writer)
        .process_group(0)
        .spawn()
        .map_err(|error| not_started(&command.argv[0], &error))?;
    let pid =
        i32::try_from(child.id()).map_err(|_| own("failed to name the process: its id is out of range".into()))?;
    Ok((Pid::from_raw(pid), reader))
}

/// Waits for the command. As the container's first process the agent is also given orphans to bury, so it takes every
/// child that ends meanwhile.
pub fn wait(command: Pid) -> Option<End> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Some(End::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Some(End::Signal(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Ends every other process of the container: what a command left behind must not see what the next one is given. Only
/// where the agent is the container's first process; it would reach others elsewhere.
pub fn end_all_others() {
    if std::process::id() == 1 {
        // ESRCH: there are none.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}

pub fn signal_group(group: Pid, signal: Signal) {
    // ESRCH: it has ended by itself, which is what was wanted.
    let _ = killpg(group, signal);
}

fn not_started(program: &OsString, error: &io::Error) -> NotStarted {
    let path = Path::new(program);
    let shown = path.display();
    if error.kind() != io::ErrorKind::NotFound {
        NotStarted { code: EXIT_NOT_EXECUTABLE, sentence: format!("failed to execute {shown}: {error}") }
    } else if path.components().count() > 1 && path.exists() {
        let sentence = format!("failed to execute {shown}: the interpreter or loader it names is not in this image");
        NotStarted { code: EXIT_NOT_FOUND, sentence }
    } else {
        NotStarted { code: EXIT_NOT_FOUND, sentence: format!("command not found: {shown}") }
    }
}
