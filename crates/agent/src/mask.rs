//! Takes secret values out of a builder's output: wherever one of them stands, `***` stands instead. A value is found
//! however the output arrives in pieces, and where values overlap all of what they cover goes. Which values there are
//! is decided in [`crate::secrets`]; none of them has a newline, so a line that is whole can always be passed on.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

pub const MARK: &[u8] = b"***";
/// Shorter values are in no list: they would take half of a log's words with them.
pub const MIN_BYTES: usize = 4;
/// Longer values are looked for in pieces of this length, so that a part of one is found too, and little has to be
/// held back.
const PIECE_BYTES: usize = 256;
/// So much of a line is waited for; of a longer one the beginning is passed on.
const PATIENCE_BYTES: usize = 64 * 1024;

/// The values, found by their beginning.
#[derive(Default)]
pub struct Mask {
    by_beginning: HashMap<[u8; MIN_BYTES], Vec<Vec<u8>>>,
    longest: usize,
}

impl Mask {
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let pieces: BTreeSet<Vec<u8>> = values.into_iter().flat_map(|value| pieces(&value)).collect();
        let mut mask = Self::default();
        for piece in pieces {
            if let Some(beginning) = piece.first_chunk::<MIN_BYTES>() {
                mask.longest = mask.longest.max(piece.len());
                mask.by_beginning.entry(*beginning).or_default().push(piece);
            }
        }
        for alike in mask.by_beginning.values_mut() {
            alike.sort_by_key(|value| std::cmp::Reverse(value.len()));
        }
        mask
    }

    pub fn is_empty(&self) -> bool {
        self.by_beginning.is_empty()
    }

    /// The longest value that begins where `text` does.
    fn length_at(&self, text: &[u8]) -> Option<usize> {
        let alike = self.by_beginning.get(text.first_chunk::<MIN_BYTES>()?)?;
        alike.iter().find(|value| text.starts_with(value)).map(Vec::len)
    }

    /// What of `text` goes: ranges in order that neither overlap nor touch. `known` bytes go in any case, as what is
    /// before them did.
    fn covered(&self, text: &[u8], known: Option<usize>) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = known.into_iter().map(|known| 0..known).collect();
        for at in 0..text.len() {
            let Some(length) = self.length_at(&text[at..]) else { continue };
            match ranges.last_mut() {
                Some(last) if at <= last.end => last.end = last.end.max(at + length),
                _ => ranges.push(at..at + length),
            }
        }
        ranges
    }
}

fn pieces(value: &[u8]) -> Vec<Vec<u8>> {
    if value.len() <= PIECE_BYTES {
        return vec![value.to_vec()];
    }
    let mut pieces: Vec<Vec<u8>> = value.chunks_exact(PIECE_BYTES).map(<[u8]>::to_vec).collect();
    pieces.push(value[value.len() - PIECE_BYTES..].to_vec());
    pieces
}

/// One stream of output on its way through the mask.
pub struct Masked {
    mask: Arc<Mask>,
    /// Of the current line, what is not yet passed on.
    pending: Vec<u8>,
    /// Where a mark is the last that was passed on: so many bytes of `pending` belong to its value.
    known: Option<usize>,
    patience: usize,
}

impl Masked {
    pub fn new(mask: Arc<Mask>) -> Self {
        Self { mask, pending: Vec::new(), known: None, patience: PATIENCE_BYTES }
    }

    /// Appends to `out` what of the stream can be passed on with `input`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let newline = input.iter().rposition(|byte| *byte == b'\n').map(|at| self.pending.len() + at);
        self.pending.extend_from_slice(input);
        if let Some(newline) = newline {
            self.pass(newline + 1, newline + 1, out);
        }
        if self.pending.len() > self.patience + self.mask.longest {
            // A value that begins in what is held back may still be unfinished.
            self.pass(self.pending.len(), self.pending.len() - self.mask.longest.saturating_sub(1), out);
        }
    }

    /// The stream is at its end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.pass(self.pending.len(), self.pending.len(), out);
    }

    /// Looks at the first `seen` bytes of what is pending and passes the first `end` of them on.
    fn pass(&mut self, seen: usize, end: usize, out: &mut Vec<u8>) {
        if end == 0 {
            return;
        }
        let mut at = 0;
        let mut known = None;
        for range in self.mask.covered(&self.pending[..seen], self.known) {
            if range.start >= end {
                break;
            }
            out.extend_from_slice(&self.pending[at..range.start]);
            if range.start > 0 || self.known.is_none() {
                out.extend_from_slice(MARK);
            }
            known = range.end.checked_sub(end);
            at = range.end.min(end);
        }
        out.extend_from_slice(&self.pending[at..end]);
        self.pending.drain(..end);
        self.known = known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(values: &[&str]) -> Arc<Mask> {
        Arc::new(Mask::new(values.iter().map(|value| value.as_bytes().to_vec())))
    }

    fn masked(mask: &Arc<Mask>, patience: usize, pieces: &[&[u8]]) -> String {
        let mut stream = Masked { patience, ..Masked::new(mask.clone()) };
        let mut out = Vec::new();
        for piece in pieces {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        String::from_utf8(out).expect("these tests are ASCII")
    }

    #[test]
    fn a_mark_stands_where_a_value_stood() {
        for (values, text, expected) in [
            (vec!["hunter2"], "password=hunter2\n", "password=***\n"),
            (vec!["hunter2"], "hunter2hunter2 hunter\n", "*** hunter\n"),
            (vec!["hunter2", "hunter2-long"], "a hunter2-long b", "a *** b"),
            (vec!["abcd", "cdef"], "xabcdefx", "x***x"),
            (vec!["aaaa"], "aaa aaaaa", "aaa ***"),
            (vec!["abc", ""], "abc", "abc"),
            (vec!["hunter2"], "hunt\ner2\n", "hunt\ner2\n"),
            (vec![], "nothing\n", "nothing\n"),
        ] {
            assert_eq!(masked(&mask(&values), 64, &[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn a_value_that_arrives_in_pieces_is_found_and_whole_lines_do_not_wait() {
        let mask = mask(&["hunter2"]);
        assert_eq!(masked(&mask, 64, &[b"x hun", b"te", b"r2 y\nz"]), "x *** y\nz");
        let mut stream = Masked::new(mask);
        let mut out = Vec::new();
        stream.push(b"whole\nhunt", &mut out);
        assert_eq!(out, b"whole\n");
    }

    #[test]
    fn a_long_value_is_found_in_parts_too() {
        let value: String = (0..300).map(|n| char::from(b'a' + u8::try_from(n * n % 23).unwrap())).collect();
        let mask = mask(&[&value]);
        assert_eq!(masked(&mask, 64, &[format!("<{value}>").as_bytes()]), "<***>");
        assert_eq!(masked(&mask, 64, &[format!("<{}>", &value[..PIECE_BYTES]).as_bytes()]), "<***>");
        assert!(mask.longest <= PIECE_BYTES);
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let mask = mask(&["aaaa"]);
        let mut stream = Masked { patience: 100, ..Masked::new(mask) };
        let mut out = Vec::new();
        for _ in 0..1_000 {
            stream.push(&[b'a'; 90], &mut out);
            assert!(stream.pending.len() <= 200);
        }
        stream.finish(&mut out);
        assert_eq!(out, MARK, "one value without end has one mark");
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_the_output_arrives(
            values in proptest::collection::vec("[ab]{4,7}", 0..4),
            text in "[ab \n]{0,200}",
            piece in 1..50_usize,
            patience in 0..20_usize,
        ) {
            let mask = Arc::new(Mask::new(values.iter().map(|value| value.as_bytes().to_vec())));
            let whole = masked(&mask, usize::MAX / 2, &[text.as_bytes()]);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
            prop_assert_eq!(&masked(&mask, patience, &pieces), &whole);
            for value in &values {
                prop_assert!(!whole.contains(value.as_str()), "{value} in {whole:?}");
            }
            let kept = |text: &str| text.matches('\n').count();
            prop_assert_eq!(kept(&whole), kept(&text));
        }
    }
}
