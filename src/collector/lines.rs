//! Cuts what comes over the wire into lines, and a line into its timestamp and text. Pure.

use image_factory_core::{loglevel::level_of, storable};
use jiff::Timestamp;

use crate::db::logs::Line;

/// Longest line that is taken whole; the agent cuts at 15 KiB, so only foreign output is longer.
const LONGEST: usize = 64 * 1024;

/// Collects bytes until they are lines.
#[derive(Debug, Default)]
pub struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Adds bytes; gives the lines that are whole now, without their newline.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                lines.push(std::mem::take(&mut self.partial));
            } else {
                while self.partial.len() > LONGEST {
                    let rest = self.partial.split_off(LONGEST);
                    lines.push(std::mem::replace(&mut self.partial, rest));
                }
            }
        }
        lines
    }

    /// What came after the last newline.
    pub fn end(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }
}

/// Takes a line of the Kubernetes log API apart: `<RFC 3339 timestamp> <text>`. NUL, which Postgres
/// can't hold, and bytes that are no UTF-8 become U+FFFD. A line without a timestamp (the rest of
/// one that was too long) gets `fallback`.
pub fn parse(bytes: &[u8], fallback: Timestamp) -> Line {
    let text = String::from_utf8_lossy(bytes);
    let (logged_at, content) = match text.split_once(' ').map(|(stamp, rest)| (stamp.parse(), rest)) {
        Some((Ok(stamp), rest)) => (microseconds(stamp), rest),
        _ => match text.parse() {
            Ok(stamp) => (microseconds(stamp), ""),
            Err(_) => (fallback, text.as_ref()),
        },
    };
    let content = storable::text(content.strip_suffix('\r').unwrap_or(content));
    Line { level: level_of(&content), content, logged_at }
}

/// Postgres keeps microseconds; a cursor that came back from it must compare equal to its lines.
fn microseconds(stamp: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(stamp.as_microsecond()).unwrap_or(stamp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_timestamp_and_its_text() {
        let fallback = Timestamp::UNIX_EPOCH;
        for (bytes, at, content) in [
            (&b"2026-11-24T10:00:00.123456789Z hello world"[..], "2026-11-24T10:00:00.123456Z", "hello world"),
            (b"2026-11-24T10:00:00Z ", "2026-11-24T10:00:00Z", ""),
            (b"2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z", ""),
            (b"2026-11-24T10:00:00Z a\0b\xff\r", "2026-11-24T10:00:00Z", "a\u{fffd}b\u{fffd}"),
            (b"no timestamp here", "1970-01-01T00:00:00Z", "no timestamp here"),
        ] {
            let line = parse(bytes, fallback);
            assert_eq!((line.logged_at.to_string(), line.content.as_str()), (at.to_owned(), content));
        }
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_arrive(
            text in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'\n', 0xff]), 0..200),
            cuts in prop::collection::vec(1..20usize, 1..30),
        ) {
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            let mut rest = &text[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                lines.extend(splitter.push(piece));
                rest = after;
            }
            lines.extend(splitter.end());
            let mut expected: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) { expected.pop(); }
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = Splitter::default();
        let lines = splitter.push(&vec![b'x'; 2 * LONGEST + 1]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, LONGEST]);
        assert_eq!(splitter.end().unwrap().len(), 1);
    }
}
