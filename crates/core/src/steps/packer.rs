//! Packer: `==> docker.web: Provisioning with shell script: …` begins what one source does next, and
//! ends what it did before; `    docker.web: …` is output. `Build 'docker.web' finished after …`
//! and `… errored after …: why` end the last. Sources take turns. No step is an instruction.
//!
//! With `-machine-readable` a line is `timestamp,target,ui,say,text`: there, what a provisioner prints
//! to its standard error (`ui,error`) is told from what packer begins (`ui,say`). In the plain format
//! both look alike, so a step is only what begins with a verb of packer's own.
//! <https://developer.hashicorp.com/packer/docs/commands#machine-readable-output>

use std::{borrow::Cow, collections::HashMap};

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
        let machine = machine(line.text);
        let (is_error, text) = match &machine {
            Some((kind, text)) => (*kind == "error", text.as_ref()),
            None => (line.level == Level::Error, line.text),
        };
        if let Some((source, words)) = heading(text).filter(|_| !is_error) {
            let begins = machine.is_some() || VERBS.iter().any(|verb| words.starts_with(verb));
            if begins && (self.current.len() < STEPS || self.current.contains_key(source)) {
                let id = record.begin(line.at, words, source);
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

/// The kind and the text of a machine-readable line for people.
fn machine(text: &str) -> Option<(&str, Cow<'_, str>)> {
    let mut fields = text.splitn(5, ',');
    let (time, _target) = (fields.next()?, fields.next()?);
    if time.is_empty() || !time.bytes().all(|byte| byte.is_ascii_digit()) || fields.next()? != "ui" {
        return None;
    }
    let (kind, text) = (fields.next()?, fields.next()?);
    let text = if text.contains("%!(PACKER_COMMA)") {
        Cow::Owned(text.replace("%!(PACKER_COMMA)", ","))
    } else {
        Cow::Borrowed(text)
    };
    Some((kind, text))
}

/// `==> docker.web: Provisioning …`.
fn heading(text: &str) -> Option<(&str, &str)> {
    let (source, words) = text.strip_prefix("==> ")?.split_once(": ")?;
    (!source.is_empty() && !source.contains(' ')).then_some((source, words))
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
