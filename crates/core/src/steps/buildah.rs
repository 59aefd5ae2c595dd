//! Buildah: `[1/2] STEP 3/5: RUN make` begins a step (without the brackets where there is one stage),
//! `--> ea7f810e67d`, its image's id, ends it. A step from the cache says `--> Using cache <id>`, and
//! then that same id. Instructions that only change the configuration are steps too. In a stage that is squashed only
//! the last step has an id, and the others end where the next begins.
//!
//! Buildah prints what a command prints between its own lines, so a RUN can imitate them. A step is
//! therefore only what comes next: the following number of the same count, or the first of a later
//! stage, right after the end of the step before, once a step of the stage has told its id. So no
//! build has more steps than buildah announced with the first of each stage. A step that is told of a
//! second time began the second time. What is left: a RUN that prints an id and then the next step's beginning can give that step another name
//! until the real one comes, and take from its own output.

use jiff::Timestamp;

use super::{
    Line, place,
    record::{Id, Record},
};
use crate::loglevel::Level;

#[derive(Debug, Default)]
pub(super) struct Buildah {
    current: Option<Current>,
    /// The stage tells the ids of its steps. One that is squashed has none but its last.
    tells_ids: bool,
    /// The last stage is built; what follows is about its image.
    over: bool,
}

#[derive(Debug)]
struct Current {
    id: Id,
    stage: Option<(u32, u32)>,
    place: (u32, u32),
    /// When its end was told; it holds if the next line follows from it.
    committed: Option<Timestamp>,
    /// The id of the image it says it takes from the cache; only before anything is printed.
    cached: Option<String>,
    /// Its own turned out to be the same.
    hit: bool,
    printed: bool,
}

impl Current {
    fn new(id: Id, heading: &Heading<'_>) -> Self {
        let (stage, place) = (heading.stage, heading.place);
        Self { id, stage, place, committed: None, cached: None, hit: false, printed: false }
    }

    fn prints(&mut self, text: &str, record: &mut Record) {
        (self.committed, self.cached, self.hit, self.printed) = (None, None, false, true);
        record.output(self.id, text);
    }

    fn succeed(&self, at: Timestamp, record: &mut Record) {
        if self.hit {
            record.cached(self.id);
        }
        record.succeed(self.id, at);
    }
}

/// `[1/2] STEP 3/5: RUN make`.
#[derive(Debug, PartialEq, Eq)]
struct Heading<'a> {
    stage: Option<(u32, u32)>,
    place: (u32, u32),
    name: &'a str,
}

impl Buildah {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        if self.over {
            return;
        }
        if let Some(heading) = heading(line.text)
            && self.begins(&heading, line.at, record)
        {
            return;
        }
        let Some(current) = &mut self.current else { return };
        if let Some((before, id)) = committed(line.text) {
            if !before.is_empty() {
                current.prints(before, record);
            }
            current.committed = Some(line.at);
            current.hit = current.cached.as_deref().is_some_and(|cached| cached.starts_with(id));
        } else if let Some(id) = line.text.strip_prefix("--> Using cache ").filter(|id| is_hex(id) && !current.printed)
        {
            current.cached = Some(id.to_owned());
        } else if is_about_images(line.text) || is_commit(line.text, current) {
            // Its own talk.
        } else if line.level == Level::Error {
            record.error_line(current.id, line.text);
        } else if let Some(at) = current.committed.filter(|_| is_end(line.text)) {
            current.succeed(at, record);
            self.current = None;
            self.over = true;
        } else {
            // It was not the end: the command goes on.
            current.prints(line.text, record);
        }
    }

    /// Begins the step, if it can come now.
    fn begins(&mut self, heading: &Heading<'_>, at: Timestamp, record: &mut Record) -> bool {
        let stage = heading.stage.map_or_else(String::new, |(number, _)| number.to_string());
        if let Some(current) = &mut self.current {
            let same_stage = current.stage == heading.stage && current.place.1 == heading.place.1;
            let (now, of) = current.place;
            // The base of a stage has no id of its own, and where the second step has none, the others have none either.
            let ended = current.committed.or((now == 1 || !self.tells_ids).then_some(at));
            self.tells_ids |= current.committed.is_some();
            if same_stage && heading.place.0 == now && now > 1 && ended.is_some() {
                record.restart(current.id, at, heading.name);
                *current = Current::new(current.id, heading);
                return true;
            }
            let follows = same_stage && heading.place.0 == now + 1;
            let later = match (current.stage, heading.stage) {
                (Some((before, count)), Some((after, same))) => count == same && after > before,
                _ => false,
            };
            let Some(ended) = ended.filter(|_| follows || (later && now == of && heading.place.0 == 1)) else {
                return false;
            };
            current.succeed(ended, record);
        } else if heading.place.0 != 1 {
            return false;
        }
        if heading.place.0 == 1 {
            self.tells_ids = false;
        }
        record.announce(&stage, heading.place.1);
        self.current = Some(Current::new(record.begin(at, heading.name, &stage), heading));
        true
    }
}

fn heading(text: &str) -> Option<Heading<'_>> {
    let (stage, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (stage, rest) = rest.split_once("] ")?;
            (Some(place(stage)?), rest)
        }
        None => (None, text),
    };
    let (at, name) = rest.strip_prefix("STEP ")?.split_once(": ")?;
    Some(Heading { stage, place: place(at)?, name })
}

/// `--> ea7f810e67d`, behind what the command printed without a newline at its end.
fn committed(text: &str) -> Option<(&str, &str)> {
    let (before, id) = text.rsplit_once("--> ")?;
    ((10..=64).contains(&id.len()) && is_hex(id)).then_some((before, id))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What buildah says of its remote cache between a step and its end.
fn is_about_images(text: &str) -> bool {
    text.starts_with("--> Pushing cache ") || text.starts_with("--> Cache pulled from remote ")
}

/// `[2/2] COMMIT registry.test/a/b:1`, when the last step of a stage is the current one.
fn is_commit(text: &str, current: &Current) -> bool {
    let name = text.split_once("COMMIT ").filter(|(before, _)| before.is_empty() || before.ends_with("] "));
    current.place.0 == current.place.1 && name.is_some_and(|(_, name)| !name.is_empty() && !name.contains(' '))
}

/// What follows the end of the last step: the tags, the whole id of the image.
fn is_end(text: &str) -> bool {
    text.starts_with("Successfully tagged ") || (text.len() == 64 && is_hex(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_and_ids_are_recognised_by_their_whole_form() {
        let at = |stage, place, name| Some(Heading { stage, place, name });
        for (line, expected) in [
            ("STEP 1/4: FROM a", at(None, (1, 4), "FROM a")),
            ("[1/2] STEP 2/2: RUN a: b", at(Some((1, 2)), (2, 2), "RUN a: b")),
            ("STEP 5/4: RUN a", None),
            ("STEP 0/4: RUN a", None),
            ("STEP 1/4 RUN a", None),
            (" STEP 1/4: RUN a", None),
            ("[1/2 STEP 1/4: RUN a", None),
            ("[a/2] STEP 1/4: RUN a", None),
        ] {
            assert_eq!(heading(line), expected, "{line}");
        }
        assert_eq!(committed("--> ea7f810e67d"), Some(("", "ea7f810e67d")));
        assert_eq!(committed("no newline--> ea7f810e67d"), Some(("no newline", "ea7f810e67d")));
        for line in ["--> Using cache ea7f810e67d", "--> done", "--> ea7f810e67d ", "ea7f810e67d"] {
            assert_eq!(committed(line), None, "{line}");
        }
    }
}
