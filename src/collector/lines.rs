//! Cuts what comes over the wire into lines, and a line into its timestamp and text. Pure.

use image_factory_core::{loglevel::level_of, storable};
use jiff::Timestamp;

use crate::db::logs::Line;

/// Longest line that is kept whole; the agent cuts at 15 KiB, so only foreign output is longer.
const LONGEST: usize = 64 * 1024;

/// Collects bytes until they are lines. What a line has over [`LONGEST`] is left out.
#[derive(Debug, Default)]
pub struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Adds bytes; gives the lines that are whole now, without their newline.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = LONGEST - self.partial.len();
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                lines.push(std::mem::take(&mut self.partial));
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
/// can't hold, and bytes that are no UTF-8 become U+FFFD.
///
/// # Errors
/// Every line that a container printed has its timestamp. One without is the kubelet's own word, such as
/// `unable to retrieve container logs for …`, which it puts into the stream of an answer that began well.
pub fn parse(bytes: &[u8]) -> Result<Line, String> {
    let text = String::from_utf8_lossy(bytes);
    let (stamp, content) = text.split_once(' ').unwrap_or((&text, ""));
    let Ok(stamp) = stamp.parse() else { return Err(text.into_owned()) };
    let content = storable::text(content.strip_suffix('\r').unwrap_or(content));
    Ok(Line { level: level_of(&content), content, logged_at: microseconds(stamp) })
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
        for (bytes, at, content) in [
            (&b"2026-11-24T10:00:00.123456789Z hello world"[..], "2026-11-24T10:00:00.123456Z", "hello world"),
            (b"2026-11-24T10:00:00Z ", "2026-11-24T10:00:00Z", ""),
            (b"2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z", ""),
            (b"2026-11-24T10:00:00Z a\0b\xff\r", "2026-11-24T10:00:00Z", "a\u{fffd}b\u{fffd}"),
        ] {
            let line = parse(bytes).unwrap();
            assert_eq!((line.logged_at.to_string(), line.content.as_str()), (at.to_owned(), content));
        }
    }

    #[test]
    fn what_the_kubelet_says_is_no_line_of_the_container() {
        for said in ["unable to retrieve container logs for containerd://7f", "", "2026-11-24 is a day"] {
            assert_eq!(parse(said.as_bytes()).unwrap_err(), said);
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
    fn of_a_line_without_end_the_beginning_is_kept() {
        let mut splitter = Splitter::default();
        assert!(splitter.push(&vec![b'x'; 2 * LONGEST + 1]).is_empty());
        assert_eq!(splitter.push(b"x\nnext\n").iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, 4]);
        assert_eq!(splitter.end(), None);
    }
}
