//! The lifecycle of buildpacks: `===> BUILDING` begins a phase, each of which is a step that is no
//! instruction. Phases come in one order, each once; a line that says otherwise was printed by a
//! buildpack. One that a buildpack imitates is begun anew when the real one comes.

use super::{
    Line,
    record::{Id, Record},
};
use crate::loglevel::Level;

/// In the order in which `creator` runs them: <https://buildpacks.io/docs/for-platform-operators/concepts/lifecycle/>.
const PHASES: [&str; 6] = ["ANALYZING", "DETECTING", "RESTORING", "BUILDING", "EXPORTING", "CACHING"];

#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    /// The phase, as its place in the order.
    current: Option<(usize, Id)>,
}

impl Lifecycle {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        if let Some(phase) = phase(line.text) {
            match self.current {
                Some((now, id)) if phase == now => return record.restart(id, line.at, PHASES[phase]),
                Some((now, id)) if phase > now => {
                    record.succeed(id, line.at);
                    return self.begin(phase, line, record);
                }
                Some(_) => {}
                None => return self.begin(phase, line, record),
            }
        }
        let Some((_, id)) = self.current else { return };
        if line.level == Level::Error {
            record.error_line(id, line.text);
        } else {
            record.output(id, line.text);
        }
    }

    fn begin(&mut self, phase: usize, line: Line<'_>, record: &mut Record) {
        let id = record.begin(line.at, PHASES[phase], "");
        record.classify(id, None);
        self.current = Some((phase, id));
    }
}

fn phase(text: &str) -> Option<usize> {
    let name = text.strip_prefix("===> ")?;
    PHASES.iter().position(|phase| *phase == name)
}
