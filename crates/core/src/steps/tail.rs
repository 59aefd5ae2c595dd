//! The end of what a step printed: of a long output the end is kept, for that is where an error is told, in whole
//! lines behind a mark.

/// Stands where output was cut.
const CUT: &str = "[… cut]\n";

/// The end of a text that is written line by line.
#[derive(Clone, Debug)]
pub struct Tail {
    text: String,
    /// About how many are kept.
    pub bytes: usize,
    cut: bool,
}

impl Tail {
    pub fn new(bytes: usize) -> Self {
        Self { text: String::new(), bytes, cut: false }
    }

    /// Keeps up to twice as much, so that a long output is not moved with every line.
    pub fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > 2 * self.bytes {
            self.cut_down();
        }
    }

    fn cut_down(&mut self) {
        if self.text.len() > self.bytes {
            let from = self.text.ceil_char_boundary(self.text.len() - self.bytes);
            self.text.drain(..from);
            self.cut = true;
        }
    }

    /// The last whole line.
    pub fn last(&self) -> Option<&str> {
        self.text.trim_end_matches('\n').rsplit('\n').next().filter(|line| !line.is_empty())
    }

    /// `None` where nothing was written. A line that was cut into is left out, unless it is all there is.
    pub fn finish(mut self) -> Option<String> {
        self.cut_down();
        if self.text.ends_with('\n') {
            self.text.pop();
        }
        if self.text.is_empty() {
            return None;
        }
        if !self.cut {
            return Some(self.text);
        }
        let whole = self.text.split_once('\n').map_or(self.text.as_str(), |(_, rest)| rest);
        Some(format!("{CUT}{whole}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_output_the_end_is_kept_in_whole_lines_behind_a_mark() {
        let mut tail = Tail::new(20);
        for number in 1..=1_000 {
            tail.line(&format!("line {number}"));
            assert!(tail.text.len() <= 60);
        }
        assert_eq!(tail.finish().unwrap(), "[… cut]\nline 999\nline 1000");
        let mut short = Tail::new(20);
        short.line("a");
        short.line("");
        assert_eq!(short.finish().unwrap(), "a\n");
        assert_eq!(Tail::new(20).finish(), None);
        let mut one = Tail::new(4);
        one.line(&"é".repeat(50));
        assert_eq!(one.finish().unwrap(), "[… cut]\né", "one long line is cut at a character");
    }
}
