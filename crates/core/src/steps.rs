//! The steps of a build, read from its builder's log: which instruction ran, whether it came from a
//! cache, how long it took, what it printed, and which one failed.
//!
//! A parser per method is a small state machine over the lines of the container `build`, in their
//! order. It holds nothing that the lines do not say, so it gives the same steps when it is fed
//! again from `build_logs`. Everything in a log may have been written by the build itself: parsers
//! take for a step only what follows from the step before, and what they keep is bounded.

mod buildah;
mod buildkit;
mod kaniko;
mod lifecycle;
mod packer;
mod record;
mod tail;

use jiff::Timestamp;

use self::record::Record;
pub use self::record::{Change, Progress, Step, StepError, StepStatus};
use crate::{
    loglevel::{Level, without_ansi},
    method::Method,
    pod::{GOES_ON, MAX_LINE_BYTES},
};

/// One line of the container `build`.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the container runtime read it.
    pub at: Timestamp,
    pub level: Level,
    pub text: &'a str,
}

/// A line that was cut is at least this long, its mark included: no character is cut.
const CUT_BYTES: usize = MAX_LINE_BYTES - 4;

/// How the build ended, for the steps that still ran then.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Success,
    /// With the sentence that says why.
    Failed(&'a str),
    Cancelled,
}

/// The steps of one attempt so far.
#[derive(Debug)]
pub struct Steps {
    parser: Parser,
    record: Record,
    /// Of the last line read.
    last: Option<Timestamp>,
    /// The last line was cut: the next is its rest.
    cut: bool,
    cut_off: bool,
}

#[derive(Debug)]
enum Parser {
    Buildah(buildah::Buildah),
    BuildKit(buildkit::BuildKit),
    Kaniko(kaniko::Kaniko),
    Lifecycle(lifecycle::Lifecycle),
    Packer(packer::Packer),
}

impl Steps {
    pub fn new(method: Method) -> Self {
        let parser = match method {
            Method::Kaniko => Parser::Kaniko(kaniko::Kaniko::default()),
            Method::Buildx => Parser::BuildKit(buildkit::BuildKit::default()),
            Method::Container => Parser::Buildah(buildah::Buildah::default()),
            Method::Paketo => Parser::Lifecycle(lifecycle::Lifecycle::default()),
            Method::Packer => Parser::Packer(packer::Packer::default()),
        };
        Self { parser, record: Record::default(), last: None, cut: false, cut_off: false }
    }

    /// Reads the next line.
    pub fn read(&mut self, line: Line<'_>) {
        self.last = Some(line.at);
        // How a rest begins is up to whoever printed it.
        if std::mem::replace(&mut self.cut, line.text.len() >= CUT_BYTES && line.text.ends_with(GOES_ON)) {
            self.record.go_on(line.text);
            return;
        }
        let plain = without_ansi(line.text);
        let line = Line { text: &plain, ..line };
        match &mut self.parser {
            Parser::Buildah(buildah) => buildah.read(line, &mut self.record),
            Parser::BuildKit(buildkit) => buildkit.read(line, &mut self.record),
            Parser::Kaniko(kaniko) => kaniko.read(line, &mut self.record),
            Parser::Lifecycle(lifecycle) => lifecycle.read(line, &mut self.record),
            Parser::Packer(packer) => packer.read(line, &mut self.record),
        }
    }

    /// The log was cut off here: how its last steps ended is not known from it.
    pub fn cut_off(&mut self) {
        self.cut_off = true;
    }

    /// The build has ended, and its log with it.
    pub fn end(&mut self, end: End<'_>) {
        if let Parser::Lifecycle(lifecycle) = &mut self.parser {
            lifecycle.end(end, self.last.filter(|_| !self.cut_off), &mut self.record);
        }
        if self.cut_off {
            // Whether these are the steps that failed, and when they ended, nobody knows.
            let end = if matches!(end, End::Success) { end } else { End::Cancelled };
            self.record.end(end, None);
        } else {
            self.record.end(end, self.last);
        }
    }

    /// The steps that changed since this was last asked. The output of an ended step is given once
    /// and forgotten: whoever asks stores it.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.record.take_changes()
    }

    pub fn all(&self) -> &[Step] {
        self.record.steps()
    }

    pub fn progress(&self) -> Progress {
        self.record.progress()
    }

    /// The first step that failed.
    pub fn failed(&self) -> Option<&Step> {
        self.record.steps().iter().find(|step| step.status == StepStatus::Failed)
    }

    /// What a failed build is told with: the step that failed and why, where one is known.
    pub fn told(&self, message: &str) -> String {
        match self.failed().and_then(|step| Some((step, step.error.as_ref()?))) {
            Some((step, error)) => format!("{}: {}", step.name, error.message),
            None => message.to_owned(),
        }
    }
}

/// Every instruction of a Dockerfile: <https://docs.docker.com/reference/dockerfile/#overview>.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The instruction that a text begins with, in capitals.
fn instruction(text: &str) -> Option<&'static str> {
    let word = text.split(' ').next()?;
    INSTRUCTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(word))
}

/// The exit code in a builder's sentence: `exit code: 3` (BuildKit), `exit status 3` (buildah, kaniko), `exit status: 3`
/// (Packer).
fn exit_code(text: &str) -> Option<String> {
    ["exit code: ", "exit status ", "exit status: "].into_iter().find_map(|mark| {
        let (_, rest) = text.rsplit_once(mark)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).take(10).collect();
        (!digits.is_empty()).then_some(digits)
    })
}

/// `2/5`: the second of five.
fn place(text: &str) -> Option<(u32, u32)> {
    let (index, total) = text.split_once('/')?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let (index, total): (u32, u32) = (number(index)?, number(total)?);
    (index >= 1 && index <= total).then_some((index, total))
}

#[cfg(test)]
mod tests;
