//! Kaniko: `time="…" level=info msg="RUN make"` begins a step, and the next such line ends it. Before
//! a stage it says which instructions it will take from its cache. A stage has a step FROM, from
//! `Building stage '…'`: kaniko itself prints none.
//!
//! Between `msg="Running: […]"` and `msg="Taking snapshot of …"` a command runs, and what it prints
//! stands between kaniko's own lines. So then no line begins a step, unless the stage is squashed, which has one
//! snapshot at its end and says so before its first instruction; and kaniko's lines count only
//! where their time is that of the container's clock. What is left: kaniko announces no number of
//! steps, so a RUN that prints kaniko's lines with the time of now can add steps to its own build, up
//! to the cap. A failing COPY whose file is missing is not named by kaniko, unless it is the first
//! instruction of its stage: then the message alone says what was missing.

use std::{borrow::Cow, collections::VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::{
    Line, instruction,
    record::{Id, Record, STEPS},
};
use crate::loglevel::Level;

/// Between a line's own time, which is of a second, and the runtime's reading of it.
const AGREEMENT: SignedDuration = SignedDuration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Kaniko {
    stages: u32,
    /// Instructions of the stage that come from the cache, in their order.
    cached: VecDeque<String>,
    current: Option<Id>,
    /// A command is running.
    running: bool,
    /// The first instruction of the stage that needs its files.
    needs_files: Option<String>,
    at_base: bool,
    /// One snapshot is taken at the stage's end, so a command ends where the next instruction begins.
    squashes: bool,
}

impl Kaniko {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        match said(line.text).filter(|said| said.at.duration_since(line.at).abs() <= AGREEMENT) {
            Some(said) if self.running => self.while_running(&said, line, record),
            Some(said) => self.between(&said, line, record),
            None => self.foreign(line, record),
        }
    }

    fn while_running(&mut self, said: &Said<'_>, line: Line<'_>, record: &mut Record) {
        let is_next = self.squashes && is_instruction(&said.message);
        if is_next || ends_command(&said.message) {
            self.running = false;
            if let Some(id) = self.current
                && !said.before.is_empty()
            {
                record.output(id, said.before);
            }
            if is_next {
                self.between(said, line, record);
            }
        } else if !is_in_the_background(&said.message) {
            // What the command prints may look the same.
            self.foreign(line, record);
        }
    }

    fn between(&mut self, said: &Said<'_>, line: Line<'_>, record: &mut Record) {
        let message = said.message.as_ref();
        if let Some(base) = message.strip_prefix("Building stage '").and_then(|rest| rest.split_once("' [idx: ")) {
            self.finish(line.at, record);
            self.stages = self.stages.saturating_add(1);
            self.cached.clear();
            self.needs_files = None;
            self.at_base = true;
            self.squashes = false;
            self.begin(&format!("FROM {}", base.0), line.at, record);
        } else if let Some(name) = message.strip_prefix("Using caching version of cmd: ") {
            if self.cached.len() < STEPS {
                self.cached.push_back(name.to_owned());
            }
        } else if let Some(name) = message.strip_prefix("Unpacking rootfs as cmd ") {
            self.needs_files = name.strip_suffix(" requires it.").map(str::to_owned);
        } else if message == "Initializing snapshotter ..." && self.at_base {
            self.squashes = true;
        } else if message.starts_with("Running: [") {
            self.running = true;
        } else if ends_stage(message) {
            self.finish(line.at, record);
        } else if is_instruction(message) {
            self.finish(line.at, record);
            self.at_base = false;
            self.begin(message, line.at, record);
            if let Some(id) = self.current
                && self.cached.front().is_some_and(|name| name == message)
            {
                self.cached.pop_front();
                record.cached(id);
            }
        }
    }

    /// Not kaniko's log: what a command prints, or kaniko's last words.
    fn foreign(&mut self, line: Line<'_>, record: &mut Record) {
        if line.level == Level::Error && line.text.contains("failed to get files used from context") && !self.running {
            // The instruction before has ended; of the one that needed the file nothing was printed.
            self.finish(line.at, record);
            if let Some(name) = self.needs_files.take().filter(|_| self.at_base) {
                self.begin(&name, line.at, record);
            }
        }
        let Some(id) = self.current else { return };
        if line.level == Level::Error {
            record.error_line(id, line.text);
        } else {
            record.output(id, line.text);
        }
    }

    fn begin(&mut self, name: &str, at: Timestamp, record: &mut Record) {
        self.current = Some(record.begin(at, name, &self.stages.to_string()));
    }

    fn finish(&mut self, at: Timestamp, record: &mut Record) {
        if let Some(id) = self.current.take() {
            record.succeed(id, at);
        }
    }
}

/// A line of kaniko's own log.
struct Said<'a> {
    /// What a command printed without a newline at its end.
    before: &'a str,
    at: Timestamp,
    message: Cow<'a, str>,
}

/// logrus's text format: <https://pkg.go.dev/github.com/sirupsen/logrus#TextFormatter>.
fn said(text: &str) -> Option<Said<'_>> {
    let begin = if text.starts_with("time=\"") { 0 } else { text.rfind("time=\"")? };
    let (before, rest) = text.split_at(begin);
    let (time, rest) = rest.strip_prefix("time=\"")?.split_once('"')?;
    let (_, message) = rest.strip_prefix(" level=")?.split_once(" msg=")?;
    let message = match message.strip_prefix('"') {
        Some(quoted) => unquoted(quoted.strip_suffix('"')?),
        None => Cow::Borrowed(message),
    };
    Some(Said { before, at: time.parse().ok()?, message })
}

/// Go's quoting: <https://pkg.go.dev/strconv#Quote>. Escapes other than of `\`, `"`, newline and tab are kept.
fn unquoted(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some(escaped @ ('\\' | '"')) => plain.push(escaped),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            (char, false) => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

fn is_instruction(message: &str) -> bool {
    let word = message.split(' ').next().unwrap_or_default();
    // As it stands in the Dockerfile; kaniko's own sentences begin with one capital.
    let one_case =
        word.bytes().all(|byte| byte.is_ascii_uppercase()) || word.bytes().all(|byte| byte.is_ascii_lowercase());
    one_case && message.contains(' ') && instruction(message).is_some()
}

fn ends_command(message: &str) -> bool {
    message.starts_with("Taking snapshot of ") || message.starts_with("No files were changed")
}

/// Layers go to the cache while the next command runs.
fn is_in_the_background(message: &str) -> bool {
    [
        "Pushing layer ",
        "Pushing image to ",
        "Pushed ",
        "Retrying operation",
        "all credential helpers disabled",
        "credential providers by priority",
    ]
    .iter()
    .any(|begin| message.starts_with(begin))
}

fn ends_stage(message: &str) -> bool {
    message.starts_with("Saving file ")
        || message == "Deleting filesystem..."
        // Layers of the cache are tagged with the hash of what they are made from.
        || message.strip_prefix("Pushing image to ").is_some_and(|reference| {
            let tag = reference.rsplit_once(':').map_or("", |(_, tag)| tag);
            !(tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_its_time_and_its_unquoted_message() {
        let line = r#"time="2026-11-24T03:46:41Z" level=info msg="RUN echo \"a\\tb\" > $X""#;
        let said = said(line).unwrap();
        assert_eq!((said.before, said.at.to_string().as_str()), ("", "2026-11-24T03:46:41Z"));
        assert_eq!(said.message, r#"RUN echo "a\tb" > $X"#);
        let glued = super::said("no newlinetime=\"2026-11-24T03:46:41Z\" level=info msg=done").unwrap();
        assert_eq!((glued.before, glued.message.as_ref()), ("no newline", "done"));
        for line in [
            "RUN x",
            "time=\"now\" level=info msg=a",
            "time=\"2026-11-24T03:46:41Z\" msg=a",
            "time=\"",
            "INFO[0001] RUN x",
        ] {
            assert!(super::said(line).is_none(), "{line}");
        }
    }

    #[test]
    fn kanikos_sentences_are_no_instructions() {
        for (message, is) in [
            ("RUN make", true),
            ("run make", true),
            ("ENTRYPOINT [\"/bin/sh\"]", true),
            ("Running: [/bin/sh -c make]", false),
            ("Cmd: USER", false),
            ("User x", false),
            ("RUN", false),
            ("Applying label a=b", false),
        ] {
            assert_eq!(is_instruction(message), is, "{message}");
        }
    }
}
