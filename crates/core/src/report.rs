//! What the containers of a build's Pod say about themselves when they end: one small versioned JSON document each, left
//! as the termination message. This file decides their fields and holds them under the size Kubernetes keeps, whatever
//! a builder called its commands or an error says: texts are shortened here, never the document cut by someone else.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of every document in this file. A reader refuses one it does not know rather than guess.
pub const VERSION: u32 = 1;

/// The messages of a Pod's containers share 12 KiB; at this size each of them surely arrives whole.
pub const MAX_BYTES: usize = 2_048;

/// A run has two or three commands; the last ones are those that explain how it ended.
const MAX_COMMANDS: usize = 8;
const MAX_COMMAND_NAME_BYTES: usize = 64;
const MAX_REASON_BYTES: usize = 64;
const MAX_SOURCE_NAME_BYTES: usize = 256;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReportError {
    #[error("failed to read the report: it has {found} bytes, at most {limit} are accepted")]
    TooLarge { found: usize, limit: usize },
    #[error("failed to read the report: {0}")]
    Malformed(String),
    #[error("failed to read the report: its version is {found}, this program reads version {expected}")]
    UnknownVersion { found: u64, expected: u32 },
    #[error("failed to write the report: it has {found} bytes, at most {limit} are allowed")]
    Unwritable { found: usize, limit: usize },
}

/// How the agent's run ended: what it ran, how long, how much it wrote and what that cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    pub version: u32,
    pub commands: Vec<CommandReport>,
    pub exit_code: i32,
    /// The agent ended the run at its timeout.
    pub timed_out: bool,
    /// The run was ended from outside: SIGTERM or SIGINT reached the agent.
    pub terminated: bool,
    /// Lines the agent wrote, each with its newline.
    pub lines: u64,
    /// Bytes the agent wrote, newlines included.
    pub bytes: u64,
    /// What the container that did the work has used: the builder's own, or the daemon's beside it.
    #[serde(flatten)]
    pub usage: Usage,
    /// Set when the agent itself failed or refused: the builder is not to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Set when something the build needs was not there, so that no builder was started: the Build is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<PodFailure>,
}

/// What a container has used since its agent started, by the counters of its control group. A number the kernel does
/// not offer is absent, never zero or guessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Page cache included, as the kernel charges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Processor time of all processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_microseconds: Option<u64>,
    /// Over so many milliseconds by the clock: the average in percent of one core is
    /// `cpu_microseconds / (10 × milliseconds)`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "usage_milliseconds")]
    pub milliseconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes: Option<u64>,
    /// Processes the kernel killed because the container was at its memory limit, or times it ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// The file name of the program, without its arguments: those may hold secrets.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub milliseconds: u64,
}

impl Default for AgentReport {
    fn default() -> Self {
        Self {
            version: VERSION,
            commands: Vec::new(),
            exit_code: 0,
            timed_out: false,
            terminated: false,
            lines: 0,
            bytes: 0,
            usage: Usage::default(),
            error: None,
            failure: None,
        }
    }
}

impl AgentReport {
    /// At most [`MAX_BYTES`], whatever the report holds: early commands and the ends of long texts go first.
    pub fn encode(&self) -> String {
        let mut report = self.clone();
        let surplus = report.commands.len().saturating_sub(MAX_COMMANDS);
        report.commands.drain(..surplus);
        for command in &mut report.commands {
            command.name = shortened(&command.name, MAX_COMMAND_NAME_BYTES);
        }
        let (error, failure) = (report.error.take(), report.failure.take());
        report.error = error.as_ref().map(|_| String::new());
        report.failure = failure.as_ref().map(PodFailure::without_message);
        let room = MAX_BYTES.saturating_sub(json(&report).len());
        if let (Some(kept), Some(failure)) = (&mut report.failure, &failure) {
            kept.message = shortened(&failure.message, room);
        }
        let room = MAX_BYTES.saturating_sub(json(&report).len());
        report.error = error.map(|error| shortened(&error, room));
        json(&report)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        decode(bytes, MAX_BYTES)
    }
}

/// Why a step of the Pod failed, in the words that reach the person who applied the Build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFailure {
    /// Stable CamelCase, e.g. `DockerfileNotFound`.
    pub reason: String,
    /// One sentence that reads alone.
    pub message: String,
}

impl PodFailure {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }

    /// The reason alone, to see what room a document leaves for the message.
    fn without_message(&self) -> Self {
        Self { reason: shortened(&self.reason, MAX_REASON_BYTES), message: String::new() }
    }
}

/// What `prepare` leaves: either why it failed, or where the source came from (git only; inline has no history).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    pub version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<PodFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFacts>,
}

/// The commit that was checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Its full id.
    pub commit: String,
    /// The branch or tag it was found by; none where the revision was a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// `Name <address>`.
    pub author: String,
    /// Subject and body.
    pub message: String,
}

impl PrepareReport {
    pub fn succeeded(source: Option<SourceFacts>) -> Self {
        Self { version: VERSION, failure: None, source }
    }

    pub fn failed(failure: PodFailure) -> Self {
        Self { version: VERSION, failure: Some(failure), source: None }
    }

    /// At most [`MAX_BYTES`]: names are held to a fixed length, what room is left goes to the failure, then the commit message.
    pub fn encode(&self) -> String {
        let mut report = self.clone();
        let mut commit_message = String::new();
        if let Some(source) = &mut report.source {
            source.commit = shortened(&source.commit, MAX_SOURCE_NAME_BYTES);
            source.branch = source.branch.as_deref().map(|branch| shortened(branch, MAX_SOURCE_NAME_BYTES));
            source.author = shortened(&source.author, MAX_SOURCE_NAME_BYTES);
            commit_message = std::mem::take(&mut source.message);
        }
        if let Some(failure) = report.failure.take() {
            report.failure = Some(failure.without_message());
            let room = MAX_BYTES.saturating_sub(json(&report).len());
            if let Some(kept) = &mut report.failure {
                kept.message = shortened(&failure.message, room);
            }
        }
        let room = MAX_BYTES.saturating_sub(json(&report).len());
        if let Some(source) = &mut report.source {
            source.message = shortened(&commit_message, room);
        }
        json(&report)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        decode(bytes, MAX_BYTES)
    }
}

/// What `inspect` leaves when it fails; when it succeeds its result is the line it printed ([`crate::inspection`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectFailure {
    pub version: u32,
    pub failure: PodFailure,
}

impl InspectFailure {
    pub fn new(failure: PodFailure) -> Self {
        Self { version: VERSION, failure }
    }

    /// At most [`MAX_BYTES`]: the end of a long message goes.
    pub fn encode(&self) -> String {
        let mut report = Self { version: self.version, failure: self.failure.without_message() };
        let room = MAX_BYTES.saturating_sub(json(&report).len());
        report.failure.message = shortened(&self.failure.message, room);
        json(&report)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        decode(bytes, MAX_BYTES)
    }
}

/// Reads a document of this version and of at most `limit` bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, ReportError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    if bytes.len() > limit {
        return Err(ReportError::TooLarge { found: bytes.len(), limit });
    }
    // The version first: a later document may lack or rename any other field.
    let malformed = |error: serde_json::Error| ReportError::Malformed(error.to_string());
    let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version != u64::from(VERSION) {
        return Err(ReportError::UnknownVersion { found: version, expected: VERSION });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

#[expect(
    clippy::expect_used,
    reason = "these documents are structs of strings, numbers and maps with string keys: nothing in them can fail"
)]
pub(crate) fn json<T: Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("documents of plain fields always serialize")
}

/// The longest beginning of `text` that takes at most `limit` bytes inside a JSON string, marked with `…` where it was shortened.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    const MARK: char = '…';
    let mut used = 0;
    let mut end_with_mark = 0;
    for (at, character) in text.char_indices() {
        if used + MARK.len_utf8() <= limit {
            end_with_mark = at;
        }
        used += json_len(character);
        if used > limit {
            let mut kept = text[..end_with_mark].to_owned();
            if MARK.len_utf8() <= limit {
                kept.push(MARK);
            }
            return kept;
        }
    }
    text.to_owned()
}

/// How many bytes `serde_json` writes for a character of a string.
fn json_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_survives_the_way_through_the_termination_message() {
        let report = AgentReport {
            commands: vec![
                CommandReport { name: "buildctl".into(), exit_code: Some(0), signal: None, milliseconds: 1_234 },
                CommandReport { name: "push".into(), exit_code: None, signal: Some(9), milliseconds: 5 },
            ],
            exit_code: 137,
            timed_out: true,
            lines: 10,
            bytes: 2_000,
            usage: Usage { memory_peak_bytes: Some(1 << 30), milliseconds: Some(1_300), ..Usage::default() },
            error: Some("failed to write the log".into()),
            ..AgentReport::default()
        };
        assert_eq!(AgentReport::decode(report.encode().as_bytes()), Ok(report));
    }

    #[test]
    fn an_unknown_version_is_named_not_guessed_at() {
        let newer = br#"{"version":2,"everything":"else"}"#;
        let refused = Err(ReportError::UnknownVersion { found: 2, expected: 1 });
        assert_eq!(AgentReport::decode(newer), refused);
        assert_eq!(
            AgentReport::decode(newer).map_err(|error| error.to_string()),
            Err("failed to read the report: its version is 2, this program reads version 1".into())
        );
    }

    #[test]
    fn an_oversized_or_truncated_document_is_refused() {
        let long = vec![b' '; MAX_BYTES + 1];
        assert_eq!(AgentReport::decode(&long), Err(ReportError::TooLarge { found: 2_049, limit: 2_048 }));
        let whole = AgentReport::default().encode();
        assert!(matches!(AgentReport::decode(&whole.as_bytes()[..40]), Err(ReportError::Malformed(_))));
    }

    #[test]
    fn of_too_many_commands_the_last_are_kept() {
        let commands = (0..20)
            .map(|n| CommandReport { name: n.to_string(), exit_code: Some(0), signal: None, milliseconds: 0 })
            .collect();
        let report = AgentReport { commands, ..AgentReport::default() };
        let kept = AgentReport::decode(report.encode().as_bytes()).expect("decodes");
        assert_eq!(kept.commands.len(), MAX_COMMANDS);
        assert_eq!(kept.commands.last().map(|command| command.name.as_str()), Some("19"));
    }

    #[test]
    fn text_is_shortened_at_a_character_and_marked() {
        for (text, limit, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "lo…"),
            ("ééé", 6, "ééé"),
            ("éééé", 6, "é…"),
            ("\n\n\n\n", 7, "\n\n…"),
            ("\u{1}\u{1}", 11, "\u{1}…"),
            ("abc", 2, ""),
            ("", 0, ""),
        ] {
            assert_eq!(shortened(text, limit), expected, "{text:?} in {limit}");
        }
    }

    prop_compose! {
        fn any_command()(name in ".{0,400}", exit_code in any::<Option<i32>>(), signal in any::<Option<i32>>(), milliseconds in any::<u64>()) -> CommandReport {
            CommandReport { name, exit_code, signal, milliseconds }
        }
    }

    prop_compose! {
        fn any_usage()(numbers in any::<[Option<u64>; 6]>()) -> Usage {
            let [memory_peak_bytes, cpu_microseconds, milliseconds, disk_read_bytes, disk_write_bytes, oom_kills] = numbers;
            Usage { memory_peak_bytes, cpu_microseconds, milliseconds, disk_read_bytes, disk_write_bytes, oom_kills }
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        // `any` makes control characters and quotes too, which JSON writes longer than they are.
        proptest::collection::vec(any::<char>(), 0..4_000).prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_agent_report_always_fits(
            commands in proptest::collection::vec(any_command(), 0..30),
            exit_code in any::<i32>(),
            (lines, bytes) in any::<(u64, u64)>(),
            usage in any_usage(),
            error in proptest::option::of(any_text()),
            failure in proptest::option::of((any_text(), any_text())),
        ) {
            let failure = failure.map(|(reason, message)| PodFailure { reason, message });
            let report = AgentReport {
                commands, exit_code, timed_out: false, terminated: false,
                lines, bytes, usage, error, failure, version: VERSION,
            };
            let encoded = report.encode();
            prop_assert!(encoded.len() <= MAX_BYTES, "{} bytes", encoded.len());
            let decoded = AgentReport::decode(encoded.as_bytes()).expect("decodes");
            prop_assert_eq!((decoded.lines, decoded.usage), (report.lines, report.usage));
            prop_assert_eq!(decoded.error.is_some(), report.error.is_some());
            prop_assert_eq!(decoded.failure.is_some(), report.failure.is_some());
        }

        #[test]
        fn the_other_reports_always_fit(texts in proptest::collection::vec(any_text(), 6)) {
            let failure = PodFailure::new(&*texts[0], &*texts[1]);
            let source = SourceFacts { commit: texts[2].clone(), branch: Some(texts[3].clone()), author: texts[4].clone(), message: texts[5].clone() };
            for report in [
                PrepareReport { version: VERSION, failure: Some(failure.clone()), source: Some(source.clone()) },
                PrepareReport::succeeded(Some(source)),
            ] {
                let encoded = report.encode();
                prop_assert!(encoded.len() <= MAX_BYTES, "{} bytes", encoded.len());
                prop_assert!(PrepareReport::decode(encoded.as_bytes()).is_ok());
            }
            let encoded = InspectFailure::new(failure).encode();
            prop_assert!(encoded.len() <= MAX_BYTES, "{} bytes", encoded.len());
            prop_assert!(InspectFailure::decode(encoded.as_bytes()).is_ok());
        }
    }
}
