//! How git is run: with an environment of our own making and nothing of anybody else's, under the build's deadline and a
//! cap on what it may bring. Its lines are the build's log, with every password taken out.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use image_factory_core::git::{Protocol, Url};

use super::{Wanted, credentials, ssh};

/// The end of what a command said, to understand its failure by.
const KEPT_LINES: usize = 100;
/// As the agent's: under the runtime's 16 KiB.
const MAX_LINE_BYTES: usize = 15 * 1024;
/// Of a command whose output is read, not shown.
pub const MAX_CAPTURED_BYTES: u64 = 1024 * 1024;
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub enum Failure {
    Exit { code: i32, lines: Vec<String> },
    Killed(i32),
    TimedOut,
    TooLarge,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// git in one folder, with one environment.
pub struct Command {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    hidden: Arc<Vec<Vec<u8>>>,
    deadline: Instant,
    max_bytes: u64,
}

impl Command {
    pub fn new(folder: &Path, wanted: &Wanted, url: &Url, hidden: Vec<Vec<u8>>) -> Self {
        Self {
            folder: folder.to_owned(),
            environment: environment(folder, wanted, url),
            hidden: Arc::new(hidden),
            deadline: wanted.deadline,
            max_bytes: wanted.max_bytes,
        }
    }

    /// Gives what the command wrote to stdout; its errors are shown.
    pub fn capture(&self, argv: &[&str]) -> Result<String, Failure> {
        self.run(argv, true)
    }

    /// Shows all that the command writes.
    pub fn echo(&self, argv: &[&str]) -> Result<String, Failure> {
        self.run(argv, false)
    }

    fn run(&self, argv: &[&str], capture: bool) -> Result<String, Failure> {
        let mut child = process::Command::new("git")
            .args(argv)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let captured = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            readers.push(self.show(stderr, &said));
        }
        match child.stdout.take() {
            Some(stdout) if capture => readers.push(keep(stdout, &captured)),
            Some(stdout) => readers.push(self.show(stdout, &said)),
            None => {}
        }
        let status = match self.wait(&mut child) {
            Ok(status) => status,
            Err(failure) => {
                // What git had started may hold the pipes: nobody waits for its last lines.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failure);
            }
        };
        for reader in readers {
            let _ = reader.join();
        }
        if status.success() {
            let captured = captured.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(String::from_utf8_lossy(&captured).into_owned());
        }
        let lines = said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        Err(match (status.code(), status.signal()) {
            (Some(code), _) => Failure::Exit { code, lines },
            (None, signal) => Failure::Killed(signal.unwrap_or_default()),
        })
    }

    fn wait(&self, child: &mut process::Child) -> Result<process::ExitStatus, Failure> {
        let mut look_at = Instant::now() + Duration::from_secs(1);
        loop {
            if let Some(status) = child.try_wait()? {
                // What was quick to come counts too.
                return if status.success() && size(&self.folder) > self.max_bytes {
                    Err(Failure::TooLarge)
                } else {
                    Ok(status)
                };
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(Failure::TimedOut);
            }
            if now >= look_at {
                if size(&self.folder) > self.max_bytes {
                    return Err(Failure::TooLarge);
                }
                // A large tree takes a while to measure: most of the time is git's.
                look_at = Instant::now() + Duration::from_secs(1).max(now.elapsed() * 10);
            }
            thread::sleep(POLL);
        }
    }

    /// Prints lines as they come, and keeps the last.
    fn show(&self, stream: impl Read + Send + 'static, said: &Arc<Mutex<VecDeque<String>>>) -> thread::JoinHandle<()> {
        let (hidden, said) = (self.hidden.clone(), said.clone());
        thread::spawn(move || {
            each_line(stream, |line| {
                let line = shown(line, &hidden);
                println!("{line}");
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() == KEPT_LINES {
                    said.pop_front();
                }
                said.push_back(line);
            });
        })
    }
}

fn keep(stream: impl Read + Send + 'static, captured: &Arc<Mutex<Vec<u8>>>) -> thread::JoinHandle<()> {
    let captured = captured.clone();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.take(MAX_CAPTURED_BYTES).read_to_end(&mut bytes);
        *captured.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    })
}

/// Lines end with a line feed or a carriage return, or where they become too long.
fn each_line(mut stream: impl Read, mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; 8 * 1024];
    let mut line: Vec<u8> = Vec::new();
    let mut flush = |line: &mut Vec<u8>| {
        if !line.is_empty() {
            take(line);
            line.clear();
        }
    };
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        for &byte in &buffer[..count] {
            if matches!(byte, b'\n' | b'\r') {
                flush(&mut line);
            } else {
                line.push(byte);
                if line.len() == MAX_LINE_BYTES {
                    flush(&mut line);
                }
            }
        }
    }
    flush(&mut line);
}

/// A line as it may be seen: without the passwords that are known, and without any that stands in an address (a
/// submodule's, which is not ours to choose).
fn shown(line: &[u8], hidden: &[Vec<u8>]) -> String {
    let line = hidden.iter().fold(line.to_vec(), |line, secret| without(&line, secret));
    let line = String::from_utf8_lossy(&line);
    let mut clean = String::new();
    let mut rest = &*line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after.find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"').unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let name = user.split(':').next().unwrap_or_default();
                // Over http a name alone may be a token.
                let keep = before.ends_with("ssh://") && name == user;
                clean.push_str(if keep { name } else { "***" });
                clean.push('@');
                clean.push_str(host);
            }
            None => clean.push_str(authority),
        }
        rest = &after[end..];
    }
    clean.push_str(rest);
    clean
}

/// Each place where the secret stands, as `***`.
fn without(line: &[u8], secret: &[u8]) -> Vec<u8> {
    let (mut clean, mut rest) = (Vec::with_capacity(line.len()), line);
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(secret).filter(|_| !secret.is_empty()) {
            clean.extend_from_slice(b"***");
            rest = after;
        } else {
            clean.push(*first);
            rest = after;
        }
    }
    clean
}

/// Bytes of all files below a folder; links are not followed.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn environment(folder: &Path, wanted: &Wanted, url: &Url) -> Vec<(String, String)> {
    let allowed: Vec<Protocol> = Protocol::ALL
        .into_iter()
        .filter(|protocol| protocol.is_secure() || wanted.insecure_protocols.contains(protocol))
        .collect();
    let mut config: Vec<(String, String)> = [
        ("protocol.allow", "never"),
        // What a repository brings is files, never commands.
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("submodule.recurse", "false"),
        ("fetch.recurseSubmodules", "false"),
        // A password is asked for anew where a redirect leads; the helper knows for whom it is.
        ("http.followRedirects", "initial"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "60"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("pack.threads", "1"),
        ("color.ui", "false"),
        ("advice.detachedHead", "false"),
        ("init.defaultBranch", "main"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    config.extend(allowed.iter().map(|protocol| (format!("protocol.{protocol}.allow"), "always".to_owned())));
    if let Some(helper) = credentials::helper(wanted, url) {
        config.push(("credential.helper".to_owned(), helper));
    }
    if let Some(authorities) = &wanted.authorities {
        config.push(("http.sslCAInfo".to_owned(), authorities.display().to_string()));
    }
    // What lies around the folder is no repository of ours.
    let ceiling = folder.parent().unwrap_or(folder).display().to_string();
    let names: Vec<&str> = allowed.iter().map(|protocol| protocol.as_str()).collect();
    let mut environment: Vec<(String, String)> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_CEILING_DIRECTORIES", &ceiling),
        // The same as protocol.allow; it reaches every process that git starts.
        ("GIT_ALLOW_PROTOCOL", &names.join(":")),
        ("GIT_SSH_VARIANT", "ssh"),
        ("GIT_SSH_COMMAND", &ssh::command(wanted, url)),
        ("GIT_CONFIG_COUNT", &config.len().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    for (index, (key, value)) in config.into_iter().enumerate() {
        environment.push((format!("GIT_CONFIG_KEY_{index}"), key));
        environment.push((format!("GIT_CONFIG_VALUE_{index}"), value));
    }
    environment
}

#[cfg(test)]
mod tests;
