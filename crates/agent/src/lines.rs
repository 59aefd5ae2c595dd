//! Cuts a builder's output into lines no longer than the container runtime keeps in one piece (16 KiB). Bytes are passed
//! on as they are, NUL and invalid UTF-8 included; only a line that is too long goes on in the next, with a mark at its
//! end, and is never cut inside a character.

use image_factory_core::pod::{GOES_ON, MAX_LINE_BYTES};

/// Collects bytes until they are a line. What has no newline yet waits in it, at most [`MAX_LINE_BYTES`].
#[derive(Default)]
pub struct LineCutter {
    pending: Vec<u8>,
}

impl LineCutter {
    /// Appends the lines that `input` completes to `out`, each with its newline; says how many they are.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        let mut parts = input.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.pending.extend_from_slice(part);
            lines += self.cut(out);
            if parts.peek().is_some() {
                out.append(&mut self.pending);
                out.push(b'\n');
                lines += 1;
            }
        }
        lines
    }

    /// At the end of the stream: a last line without a newline gets one.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> u64 {
        if self.pending.is_empty() {
            return 0;
        }
        out.append(&mut self.pending);
        out.push(b'\n');
        1
    }

    fn cut(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        let mut start = 0;
        while self.pending.len() - start > MAX_LINE_BYTES {
            let end = boundary(&self.pending, start + MAX_LINE_BYTES - GOES_ON.len());
            out.extend_from_slice(&self.pending[start..end]);
            out.extend_from_slice(GOES_ON.as_bytes());
            out.push(b'\n');
            start = end;
            lines += 1;
        }
        self.pending.drain(..start);
        lines
    }
}

/// The nearest place at or before `at` where a UTF-8 character begins; `at` itself where there is none, as in binary data.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let begins_character = |place: &usize| bytes[*place] & 0b1100_0000 != 0b1000_0000;
    (at.saturating_sub(3)..=at).rev().find(begins_character).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let mut cutter = LineCutter::default();
        let mut out = Vec::new();
        let mut lines = 0;
        for piece in pieces {
            lines += cutter.push(piece, &mut out);
        }
        lines += cutter.finish(&mut out);
        let mut written: Vec<Vec<u8>> = out.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        assert_eq!(written.pop(), Some(vec![]), "the output ends with a newline or is empty");
        (written, lines)
    }

    /// What was printed, without the newlines and the marks of lines that were cut.
    fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
        lines.iter().flat_map(|line| line.strip_suffix(GOES_ON.as_bytes()).unwrap_or(line).to_vec()).collect()
    }

    #[test]
    fn pieces_become_lines() {
        for (pieces, expected) in [
            (vec![], vec![]),
            (vec!["a\n"], vec!["a"]),
            (vec!["a"], vec!["a"]),
            (vec!["a", "b\nc", "\n"], vec!["ab", "c"]),
            (vec!["\n\n"], vec!["", ""]),
            (vec!["a\r\nb\0c\n"], vec!["a\r", "b\0c"]),
        ] {
            let bytes: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let expected: Vec<Vec<u8>> = expected.iter().map(|line| line.as_bytes().to_vec()).collect();
            let count = expected.len() as u64;
            assert_eq!(cut(&bytes), (expected, count), "{pieces:?}");
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_not_cut() {
        let exact = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(cut(&[&exact, b"\n"]), (vec![exact.clone()], 1));
        let over = vec![b'x'; MAX_LINE_BYTES + 1];
        let first = [&exact[..MAX_LINE_BYTES - 3], "…".as_bytes()].concat();
        assert_eq!(cut(&[&over]), (vec![first, b"xxxx".to_vec()], 2));
    }

    #[test]
    fn a_cut_never_falls_inside_a_character() {
        for character in ["é", "€", "🐳"] {
            for shift in 0..4 {
                let text = format!("{}{}", "a".repeat(shift), character.repeat(2 * MAX_LINE_BYTES / character.len()));
                let (lines, _) = cut(&[text.as_bytes()]);
                assert!(lines.len() >= 2);
                for line in &lines {
                    assert!(line.len() <= MAX_LINE_BYTES);
                    assert!(std::str::from_utf8(line).is_ok(), "{character} shifted by {shift}");
                }
                assert_eq!(joined(&lines), text.as_bytes());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_at_the_limit() {
        let (lines, _) = cut(&[&vec![0x80; 2 * MAX_LINE_BYTES]]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, MAX_LINE_BYTES, 6]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_changed_however_the_stream_arrives(
            line_lengths in proptest::collection::vec(0..2 * MAX_LINE_BYTES, 0..6),
            byte in any::<u8>().prop_filter("newlines are counted apart", |byte| *byte != b'\n'),
            piece in 1..70_000_usize,
        ) {
            let mut input = Vec::new();
            for length in &line_lengths {
                input.resize(input.len() + length, byte);
                input.push(b'\n');
            }
            let pieces: Vec<&[u8]> = input.chunks(piece).collect();
            let (lines, count) = cut(&pieces);
            prop_assert_eq!(count, lines.len() as u64);
            prop_assert!(lines.iter().all(|line| line.len() <= MAX_LINE_BYTES));
            prop_assert_eq!(joined(&lines).len(), line_lengths.iter().sum::<usize>());
            prop_assert_eq!(cut(&[&input]).0, lines);
        }
    }
}
