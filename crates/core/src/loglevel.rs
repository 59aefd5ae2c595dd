//! The level of a log line, from the builder's own format. What a builder's child prints has no
//! level of its own and counts as INFO.

use std::borrow::Cow;

/// `build_logs.log_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// The level of one line of any builder.
///
/// Known formats: logrus with colours or text (`ERRO[0001] …`, `level=error`: kaniko, buildah,
/// buildkitd), BuildKit's plain progress (`#7 ERROR: …`, `WARNING: …`), buildah and the lifecycle
/// (`Error: …`, `ERROR: …`, `Warning: …`), kaniko's last words (`error building image: …`), and Packer's end of a source
/// (`Build 'null.web' errored after 2 seconds: …`, which a newer one begins with `==> `).
pub fn level_of(line: &str) -> Level {
    let plain = without_ansi(line);
    let text = after_buildkit_vertex(plain.trim_start());
    for (prefix, level) in [
        ("ERRO[", Level::Error),
        ("FATA[", Level::Error),
        ("WARN[", Level::Warn),
        ("DEBU[", Level::Debug),
        ("TRAC[", Level::Debug),
        ("ERROR:", Level::Error),
        ("Error:", Level::Error),
        ("error:", Level::Error),
        ("error building image: ", Level::Error),
        ("error pushing image: ", Level::Error),
        ("error checking push permissions: ", Level::Error),
        ("fatal:", Level::Error),
        ("WARNING:", Level::Warn),
        ("Warning:", Level::Warn),
        ("warning:", Level::Warn),
        ("WARN:", Level::Warn),
        ("Failed to parse template: ", Level::Error),
    ] {
        if text.starts_with(prefix) {
            return level;
        }
    }
    if text.trim_start_matches("==> ").starts_with("Build '") && text.contains("' errored after ") {
        return Level::Error;
    }
    if text.starts_with("time=") {
        for (mark, level) in [
            (" level=error", Level::Error),
            (" level=fatal", Level::Error),
            (" level=warning", Level::Warn),
            (" level=debug", Level::Debug),
        ] {
            if text.contains(mark) {
                return level;
            }
        }
    }
    Level::Info
}

/// `#7 ERROR: …` → `ERROR: …`: only a step's own verdict, not the output of its RUN
/// (which BuildKit prints as `#7 0.123 text`).
fn after_buildkit_vertex(line: &str) -> &str {
    match line.strip_prefix('#').and_then(|rest| rest.split_once(' ')) {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    }
}

/// Removes ANSI control sequences (`ESC [ … letter`), which rows keep but no rule reads.
pub fn without_ansi(line: &str) -> Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\u{1b}' {
            plain.push(char);
        } else if chars.peek() == Some(&'[') {
            chars.next();
            for code in chars.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&code) {
                    break;
                }
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_from_each_builders_own_words() {
        for (line, level) in [
            ("#8 0.211 ERROR: printed by the RUN itself", Level::Info),
            ("#8 ERROR: process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3", Level::Error),
            ("ERROR: failed to solve: process …", Level::Error),
            ("WARNING: No output specified", Level::Warn),
            ("\u{1b}[36mINFO\u{1b}[0m[0000] Resolved base name a", Level::Info),
            ("\u{1b}[33mWARN\u{1b}[0m[0001] Error while retrieving image", Level::Warn),
            ("\u{1b}[31mERRO\u{1b}[0m[0001] boom", Level::Error),
            ("time=\"2026-08-02T10:00:00Z\" level=warning msg=\"slow\"", Level::Warn),
            ("time=\"2026-08-02T10:00:00Z\" level=error msg=\"gone\"", Level::Error),
            ("Error: building at STEP \"RUN false\": exit status 1", Level::Error),
            ("STEP 1/4: FROM scratch", Level::Info),
            ("time=\"2026-11-24T03:46:41Z\" level=info msg=\"Taking snapshot of files...\"", Level::Info),
            ("error building image: error building stage: failed to execute command: …", Level::Error),
            ("error checking push permissions: checking push permission for …", Level::Error),
            ("Build 'null.web' errored after 24 milliseconds 948 microseconds: Script exited …", Level::Error),
            ("==> Build 'null.web' errored after 1 second: Script exited …", Level::Error),
            ("Build 'null.web' finished after 9 milliseconds 649 microseconds.", Level::Info),
            ("==> null.web: Error: printed by a provisioner to its standard error", Level::Info),
            ("Failed to parse template: Error parsing JSON: unexpected end of JSON input", Level::Error),
            ("no errors found", Level::Info),
            ("", Level::Info),
        ] {
            assert_eq!(level_of(line), level, "{line}");
        }
    }
}
