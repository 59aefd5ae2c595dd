//! Packer: `==> docker.web: Provisioning with shell script: …` begins what one source does next, and
//! ends what it did before; `    docker.web: …` is output. `Build 'docker.web' finished after …`
//! and `… errored after …: why` end the last. Sources take turns. No step is an instruction.
//!
//! What a provisioner prints to its standard error begins with the same arrow, so a step is only what begins with a verb
//! of packer's own. With `-machine-readable` the two are told apart, but then people read a log of
//! `1614000000,,ui,say,==> …`.

use std::collections::HashMap;

use super::{
    Line,
    record::{Id, Record, STEPS},
};
use crate::loglevel::Level;

/// With these words packer's own sentences begin.
const VERBS: [&str; 16] = [
    "Provisioning with ",
    "Running post-processor",
    "Running local shell ",
    "Creating ",
    "Starting ",
    "Pulling ",
    "Using ",
    "Committing ",
    "Killing ",
    "Exporting ",
    "Uploading ",
    "Waiting ",
    "Connected ",
    "Stopping ",
    "Deleting ",
    "Launching ",
];

#[derive(Debug, Default)]
pub(super) struct Packer {
    /// What each source does.
    current: HashMap<String, Id>,
    /// Who spoke last.
    speaker: Option<Id>,
}

impl Packer {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        let text = line.text;
        if let Some((source, words)) = heading(text).filter(|_| line.level != Level::Error) {
            let begins = VERBS.iter().any(|verb| words.starts_with(verb));
            if begins && (self.current.len() < STEPS || self.current.contains_key(source)) {
                let id = record.begin(line.at, &name(words), source);
                record.classify(id, None);
                if let Some(before) = self.current.insert(source.to_owned(), id) {
                    record.succeed(before, line.at);
                }
                self.speaker = Some(id);
                return;
            }
        }
        if let Some((source, why)) = ended(text)
            && let Some(id) = self.current.remove(source)
        {
            match why {
                Some(why) => {
                    record.error_line(id, text);
                    record.fail(id, line.at, why);
                }
                None => record.succeed(id, line.at),
            }
            self.speaker = None;
            return;
        }
        let said = text.trim_start_matches("==> ").trim_start();
        if let Some((source, words)) = said.split_once(": ")
            && let Some(id) = self.current.get(source)
        {
            self.speaker = Some(*id);
            record.output(*id, words);
        } else if let Some(id) = self.speaker {
            record.output(id, text);
        }
    }
}

/// `==> docker.web: Provisioning …`.
fn heading(text: &str) -> Option<(&str, &str)> {
    let (source, words) = text.strip_prefix("==> ")?.split_once(": ")?;
    (!source.is_empty() && !source.contains(' ')).then_some((source, words))
}

/// What packer begins, without what is another at each run: the script that it makes of lines of the template.
fn name(words: &str) -> String {
    let is_made = |word: &str| word.starts_with('/') && word.contains("/packer-shell");
    let words: Vec<&str> = words.split_whitespace().filter(|word| !is_made(word)).collect();
    words.join(" ").trim_end_matches(':').to_owned()
}

/// `Build 'docker.web' finished after 3 seconds.`, `Build 'docker.web' errored after 1 second: why`.
fn ended(text: &str) -> Option<(&str, Option<&str>)> {
    let (source, rest) = text.trim_start_matches("==> ").strip_prefix("Build '")?.split_once("' ")?;
    if rest.starts_with("finished after ") {
        return Some((source, None));
    }
    let (_, why) = rest.strip_prefix("errored after ")?.split_once(": ")?;
    Some((source, Some(why)))
}
