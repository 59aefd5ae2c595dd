//! The lifecycle of buildpacks: `===> BUILDING` begins a phase, each of which is a step that is no instruction. While it
//! builds, each buildpack is a step of its own beside that of the phase: detection names those that take part, in their
//! order, and `Running build for buildpack demo/hello@0.1.0` begins the next of them. One whose layers were all reused
//! from the image before counts as cached, which the export tells.
//!
//! What buildpacks print stands between the lifecycle's own lines. Phases come in one order, each once, and buildpacks in
//! the order of detection; a line that says otherwise was printed by a buildpack. A step that a buildpack imitates is
//! begun anew when the real one comes.

use jiff::Timestamp;

use super::{
    End, Line,
    record::{Id, Record, STEPS},
};
use crate::loglevel::Level;

/// In the order in which they are run: <https://buildpacks.io/docs/for-platform-operators/concepts/lifecycle/>.
const PHASES: [&str; 6] = ["ANALYZING", "DETECTING", "RESTORING", "BUILDING", "EXPORTING", "CACHING"];
const DETECTING: usize = 1;
const BUILDING: usize = 3;
const EXPORTING: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    /// The phase, as its place in the order.
    current: Option<(usize, Id)>,
    /// The buildpacks that detection named, as `id@version`.
    detected: Vec<String>,
    /// Those that have begun, in that order.
    begun: Vec<Buildpack>,
    /// Whether the last of them still runs.
    is_running: bool,
}

#[derive(Debug)]
struct Buildpack {
    id: Id,
    /// Layers that the export told of.
    reused: usize,
    added: usize,
}

impl Lifecycle {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        if let Some(phase) = phase(line.text) {
            match self.current {
                Some((now, id)) if phase == now => return self.restart(phase, id, line, record),
                Some((now, id)) if phase > now => {
                    self.end_buildpack(line.at, record);
                    if now == EXPORTING {
                        self.tell_cached(record);
                    }
                    record.succeed(id, line.at);
                    return self.begin(phase, line, record);
                }
                Some(_) => {}
                None => return self.begin(phase, line, record),
            }
        }
        let Some((now, phase)) = self.current else { return };
        match now {
            DETECTING if self.detected.len() < STEPS => self.detected.extend(detected(line.text)),
            BUILDING if self.buildpack(line, record) => return,
            EXPORTING => self.layer(line.text),
            _ => {}
        }
        let id = self.begun.last().filter(|_| self.is_running).map_or(phase, |buildpack| buildpack.id);
        if line.level == Level::Error {
            record.error_line(id, line.text);
        } else {
            record.output(id, line.text);
        }
    }

    /// The build has ended, the log with it.
    pub fn end(&mut self, end: End<'_>, last: Option<Timestamp>, record: &mut Record) {
        self.tell_cached(record);
        // The phase did not fail beside its buildpack: it is what was not finished.
        if let (End::Failed(_), true, Some((BUILDING, id)), Some(at)) = (end, self.is_running, self.current, last) {
            record.skip(id, at);
        }
    }

    fn begin(&mut self, phase: usize, line: Line<'_>, record: &mut Record) {
        let id = record.begin(line.at, PHASES[phase], "");
        record.classify(id, None);
        self.current = Some((phase, id));
    }

    fn restart(&mut self, phase: usize, id: Id, line: Line<'_>, record: &mut Record) {
        if phase == DETECTING {
            self.detected.clear();
        }
        record.restart(id, line.at, PHASES[phase]);
    }

    /// Whether the line begins or ends the build of a buildpack.
    fn buildpack(&mut self, line: Line<'_>, record: &mut Record) -> bool {
        if let Some(name) = line.text.strip_prefix("Running build for buildpack ") {
            let place = self.begun.len();
            if let Some(now) =
                self.begun.last().filter(|_| self.detected.get(place.wrapping_sub(1)).is_some_and(|now| now == name))
            {
                record.restart(now.id, line.at, name);
                record.classify(now.id, None);
                self.is_running = true;
                return true;
            }
            if self.detected.get(place).is_some_and(|next| next == name) {
                self.end_buildpack(line.at, record);
                let id = record.begin(line.at, name, "");
                record.classify(id, None);
                self.begun.push(Buildpack { id, reused: 0, added: 0 });
                self.is_running = true;
                return true;
            }
        } else if let Some(name) = line.text.strip_prefix("Finished running build for buildpack ")
            && self.is_running
            && self.detected.get(self.begun.len() - 1).is_some_and(|now| now == name)
        {
            self.end_buildpack(line.at, record);
            return true;
        }
        false
    }

    fn end_buildpack(&mut self, at: Timestamp, record: &mut Record) {
        if let Some(buildpack) = self.begun.last().filter(|_| self.is_running) {
            record.succeed(buildpack.id, at);
        }
        self.is_running = false;
    }

    /// `Reusing layer 'demo/hello:app'`, `Adding layer 'demo/hello:app'`.
    fn layer(&mut self, text: &str) {
        let (is_reused, rest) = match (text.strip_prefix("Reusing layer '"), text.strip_prefix("Adding layer '")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return,
        };
        let Some((id, _)) = rest.split_once(':') else { return };
        let is_its = |name: &String| name.split_once('@').is_some_and(|(known, _)| known == id);
        let place = self.detected.iter().position(is_its);
        if let Some(buildpack) = place.and_then(|place| self.begun.get_mut(place)) {
            if is_reused {
                buildpack.reused += 1;
            } else {
                buildpack.added += 1;
            }
        }
    }

    fn tell_cached(&mut self, record: &mut Record) {
        for buildpack in &mut self.begun {
            if buildpack.reused > 0 && buildpack.added == 0 {
                record.cached(buildpack.id);
                buildpack.reused = 0;
            }
        }
    }
}

fn phase(text: &str) -> Option<usize> {
    let name = text.strip_prefix("===> ")?;
    PHASES.iter().position(|phase| *phase == name)
}

/// `demo/hello   0.1.0`, as detection lists who takes part: the ids padded to one width.
fn detected(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (id, version, more) = (words.next(), words.next(), words.next());
    let is_name = |text: &str| !text.ends_with(':') && text.chars().any(|letter| letter.is_ascii_alphanumeric());
    let pair = id.zip(version).filter(|(id, version)| more.is_none() && is_name(id) && is_name(version));
    pair.map(|(id, version)| format!("{id}@{version}"))
}
