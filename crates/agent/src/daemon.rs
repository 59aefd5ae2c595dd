//! A daemon beside the build, which does the build's work in a container of its own. It keeps its terminal and gets every
//! signal; what its container has used is kept in a file on the shared volume, from which the build's agent takes it
//! into its report. A daemon that is started again goes on counting where the one before it had come to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use image_factory_core::pod::{EXIT_AGENT, EXIT_NOT_EXECUTABLE};
use image_factory_core::report::Usage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::arguments::Daemon;
use crate::cgroup::{INTERVAL, Meter};
use crate::process;

/// More than the numbers ever take. The file has always this size, so that it is written in place, by one call.
const FILE_BYTES: usize = 512;
/// A daemon that writes nothing for so long has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the daemon until it ends, and gives its exit code.
pub fn run(options: &Daemon) -> i32 {
    let meter = Meter::start(&options.cgroup_root);
    let before = read(&options.usage).unwrap_or_default();
    let mut complain = true;
    let mut keep = |usage: Usage| {
        if let Err(error) = write(&options.usage, plus(before, usage))
            && std::mem::take(&mut complain)
        {
            eprintln!("image-factory-agent: failed to keep counters in {}: {error}", options.usage.display());
        }
    };
    let mut signals = match Signals::new([SIGTERM, SIGINT, SIGQUIT]) {
        Ok(signals) => signals,
        Err(error) => return refused(&format!("failed to listen for signals: {error}"), EXIT_AGENT),
    };
    let (program, arguments) = (&options.command[0], &options.command[1..]);
    let child = match Command::new(program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            return refused(&format!("failed to execute {}: {error}", program.display()), EXIT_NOT_EXECUTABLE);
        }
    };
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else {
        return refused("failed to name the process: its id is out of range", EXIT_AGENT);
    };
    thread::spawn(move || {
        for signal in signals.forever() {
            // ESRCH: it has ended by itself.
            let _ = Signal::try_from(signal).and_then(|signal| kill(pid, signal));
        }
    });
    let (sender, ended) = channel();
    thread::spawn(move || sender.send(process::wait(pid)));
    loop {
        keep(meter.usage());
        match ended.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Some(end)) => {
                keep(meter.usage());
                return end.exit_code();
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return refused("lost the end of the daemon", EXIT_AGENT),
        }
    }
}

fn refused(sentence: &str, code: i32) -> i32 {
    eprintln!("image-factory-agent: {sentence}");
    code
}

/// What a daemon's agent has kept; `None` where nothing of it can be read.
pub fn read(path: &Path) -> Option<Usage> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES as u64).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The same, counted after this call began: whether a command failed for want of memory is known only a moment later.
/// As it was last, where the daemon is gone.
pub fn read_fresh(path: &Path) -> Option<Usage> {
    let begin = Instant::now();
    let mut usage = read(path)?;
    // The next writing may have counted before; the one after it can't.
    for _ in 0..2 {
        let last = usage.milliseconds;
        while usage.milliseconds == last && begin.elapsed() < PATIENCE {
            thread::sleep(INTERVAL / 10);
            usage = read(path).unwrap_or(usage);
        }
    }
    Some(usage)
}

fn write(path: &Path, usage: Usage) -> io::Result<()> {
    let text = format!("{:<FILE_BYTES$}", serde_json::to_string(&usage)?);
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all_at(text.as_bytes(), 0)
}

/// What two lives of one container have used.
fn plus(before: Usage, now: Usage) -> Usage {
    let sum = |before: Option<u64>, now: Option<u64>| match (before, now) {
        (Some(before), Some(now)) => Some(before.saturating_add(now)),
        (known, None) | (None, known) => known,
    };
    Usage {
        memory_peak_bytes: before.memory_peak_bytes.max(now.memory_peak_bytes),
        cpu_microseconds: sum(before.cpu_microseconds, now.cpu_microseconds),
        milliseconds: sum(before.milliseconds, now.milliseconds),
        disk_read_bytes: sum(before.disk_read_bytes, now.disk_read_bytes),
        disk_write_bytes: sum(before.disk_write_bytes, now.disk_write_bytes),
        oom_kills: sum(before.oom_kills, now.oom_kills),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_daemon_that_is_started_again_goes_on_counting() {
        let path = std::env::temp_dir().join(format!("agent-usage-{}", std::process::id()));
        let first = Usage {
            memory_peak_bytes: Some(100),
            cpu_microseconds: Some(7),
            milliseconds: Some(1_000),
            disk_read_bytes: None,
            disk_write_bytes: Some(1),
            oom_kills: Some(1),
        };
        write(&path, first).expect("writes");
        assert_eq!(read(&path), Some(first));
        let second = Usage { memory_peak_bytes: Some(60), disk_read_bytes: Some(5), ..first };
        write(&path, plus(first, second)).expect("writes over it");
        let expected = Usage {
            memory_peak_bytes: Some(100),
            cpu_microseconds: Some(14),
            milliseconds: Some(2_000),
            disk_read_bytes: Some(5),
            disk_write_bytes: Some(2),
            oom_kills: Some(2),
        };
        assert_eq!(read(&path), Some(expected));
        fs::remove_file(&path).expect("removes");
        assert_eq!(read(&path), None);
    }
}
