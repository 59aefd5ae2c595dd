//! What a builder's own words say: its last error, the exit code of the instruction in it, whether a server refused or
//! was away. And how our own sentences put an exit code and a span of time.

use std::time::Duration;

use crate::loglevel::{Level, level_of, without_ansi};

/// The last line with which the builder itself reports an error, without its level and without the Go structs that
/// buildah 1.28 prints after the sentence.
pub fn last_error(tail: &[String]) -> Option<String> {
    let line = tail.iter().rev().find(|line| level_of(line) == Level::Error)?;
    let plain = without_ansi(line);
    let text = plain.trim();
    let text =
        ["ERROR: ", "Error: ", "error: "].into_iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    Some(without_structs(text))
}

/// `Unknown instruction: "RUNN" &imagebuilder.Step{Env:[]string{"…"}, …}` → `Unknown instruction: "RUNN"`.
fn without_structs(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" &") {
        kept.push_str(before);
        if let Some(length) = struct_length(after) {
            rest = &after[length..];
        } else {
            kept.push_str(" &");
            rest = after;
        }
    }
    kept + rest
}

/// The bytes of `package.Type{…}` at the beginning of the text, its braces balanced and those in quotes left out.
fn struct_length(text: &str) -> Option<usize> {
    let open = text.find('{')?;
    let (package, kind) = text[..open].split_once('.')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    if !is_name(package) || !is_name(kind) {
        return None;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, letter) in text[open..].char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some(open + at + 1);
                }
            }
            _ => {}
        }
    }
    // The line was cut in the midst of it.
    Some(text.len())
}

/// The exit code of the instruction: `exit code: 3` (BuildKit), `exit status 3` (buildah, kaniko), `exit status: 3`
/// (Packer's script).
pub fn instruction_exit_code(text: &str) -> Option<i32> {
    ["exit code: ", "exit status ", "exit status: "].into_iter().find_map(|mark| {
        let (_, rest) = text.rsplit_once(mark)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// A registry refuses. That a file may not be touched (`permission denied`) is no word of a registry.
pub fn is_denial(text: &str) -> bool {
    let text = text.to_lowercase().replace("permission denied", "");
    contains_any(&text, &["unauthorized", "denied", "authentication required", "403 forbidden"])
}

/// A server answers 5xx or not at all.
pub fn is_unavailable(text: &str) -> bool {
    let answers = ["500 internal server error", "502 bad gateway", "503 service unavailable", "504 gateway timeout"];
    let silence =
        ["connection refused", "connection reset by peer", "i/o timeout", "tls handshake timeout", "no route to host"];
    contains_any(text, &answers) || contains_any(text, &silence)
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// `ended with exit code 3`; of a code that stands for a signal also which.
pub fn exit(code: i32) -> String {
    match code.checked_sub(128).and_then(signal) {
        Some(name) => format!("ended with exit code {code} ({name})"),
        None => format!("ended with exit code {code}"),
    }
}

/// The signals that end processes: <https://man7.org/linux/man-pages/man7/signal.7.html>.
pub fn signal(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// As a spec writes it: `1h30m`, `90s` is `1m30s`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: Vec<String> =
        parts.into_iter().filter(|(amount, _)| *amount > 0).map(|(amount, unit)| format!("{amount}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text.concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error_of(log: &str) -> Option<String> {
        last_error(&log.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_go_struct_in_a_real_log_of_buildah_is_left_out_of_the_sentence() {
        let log = include_str!("../../../../tests/fixtures/container/unknown-instruction.log");
        let sentence = "building at STEP \"RUNN \": Build error: Unknown instruction: \"RUNN\"";
        assert_eq!(error_of(log).as_deref(), Some(sentence));
    }

    #[test]
    fn only_structs_are_left_out() {
        for (text, kept) in [
            ("a &p.T{B:\"}{\", C:[]q.D{}} b", "a b"),
            ("a &p.T{B:\"\\\"}\"} b &p.T{} c", "a b c"),
            ("a &p.T{B:\"cut", "a"),
            ("make all && ./run &", "make all && ./run &"),
            ("cat x & {y}", "cat x & {y}"),
            ("a &b{c}", "a &b{c}"),
            ("a & b.c {d}", "a & b.c {d}"),
        ] {
            assert_eq!(without_structs(text), kept, "{text}");
        }
    }

    #[test]
    fn spans_and_exits_read_as_people_write_them() {
        for (seconds, text) in [(0, "0s"), (3, "3s"), (90, "1m30s"), (1_800, "30m"), (3_600, "1h"), (5_400, "1h30m")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(exit(3), "ended with exit code 3");
        assert_eq!(exit(139), "ended with exit code 139 (SIGSEGV)");
        assert_eq!(exit(i32::MIN), format!("ended with exit code {}", i32::MIN));
    }

    #[test]
    fn a_server_that_is_away_is_told_from_one_that_refuses() {
        for (text, denied, away) in [
            ("failed to push registry.test/a: 401 Unauthorized", true, false),
            ("unexpected status: 503 Service Unavailable", false, true),
            ("dial tcp 10.0.0.1:9: connect: connection refused", false, true),
            ("reading manifest 7 in registry.test/a: manifest unknown", false, false),
            ("open /var/lib/containers/storage/layer: permission denied", false, false),
            ("wrote 1401 bytes", false, false),
        ] {
            assert_eq!((is_denial(text), is_unavailable(text)), (denied, away), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,200}", more in "[ &a.{}\"\\\\é]{0,60}") {
            prop_assert!(without_structs(&text).len() <= text.len());
            prop_assert!(without_structs(&more).len() <= more.len());
        }
    }
}
