//! BuildKit's plain progress, as buildx prints it: each vertex has a number, `#7 [build 2/5] RUN make`
//! names it, `#7 0.512 text` is what its command printed, and `#7 DONE 0.6s`, `#7 CACHED`,
//! `#7 CANCELED` or `#7 ERROR: …` is its end. Vertices take turns, and one may be named again.
//!
//! A vertex with a place (`2/5`) is an instruction of the Dockerfile, and a step; the others
//! (`[internal] …`, exports, caches) are none. Instructions that only change the image's
//! configuration have no vertex. All that a command prints stands behind `#N` and a time, so no
//! output can be taken for progress.
//!
//! An instruction that fails before its vertex runs is told at the end alone: the Dockerfile's lines
//! around it with `>>>` before its own, then `ERROR: failed to build: failed to solve: …`.

use std::collections::HashMap;

use super::{
    Line, StepStatus, instruction, place,
    record::{Id, Record, STEPS},
};
use crate::loglevel::Level;

#[derive(Debug, Default)]
pub(super) struct BuildKit {
    /// Vertices that are steps, by their number.
    vertices: HashMap<u32, Id>,
    /// The instruction that BuildKit points at.
    pointed_at: Option<String>,
}

/// What a line says of a vertex.
#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    Named {
        stage: String,
        index: u32,
        total: u32,
        name: &'a str,
    },
    Cached,
    /// With milliseconds.
    Done(Option<i64>),
    Cancelled,
    Failed(&'a str),
    /// By its command.
    Printed(&'a str),
    /// What BuildKit itself does for it: `resolve …`, `extracting …`; `...` where another vertex has its turn.
    Doing(&'a str),
}

impl BuildKit {
    pub fn read(&mut self, line: Line<'_>, record: &mut Record) {
        if let Some((vertex, rest)) = vertex(line.text) {
            self.vertex(vertex, event(rest), line, record);
        } else if let Some(text) = pointed_at(line.text) {
            self.pointed_at.get_or_insert_with(|| text.to_owned());
        } else if line.level == Level::Error {
            self.failed(line, record);
        }
    }

    fn vertex(&mut self, vertex: u32, event: Event<'_>, line: Line<'_>, record: &mut Record) {
        if let Event::Named { stage, index, total, name } = event {
            // Stages with one base share its vertex: then only one of them counts it.
            let has_base =
                index == 1 || record.find(|step| step.stage == stage && step.instruction == Some("FROM")).is_some();
            record.announce(&stage, if has_base { total } else { total - 1 });
            if self.vertices.contains_key(&vertex) || self.vertices.len() >= STEPS {
                return;
            }
            // What a base image tells its users to do is done now.
            let executed = name.strip_prefix("ONBUILD ").unwrap_or(name);
            let id = record.begin(line.at, name, &stage);
            record.classify(id, instruction(executed));
            record.place(id, index);
            self.vertices.insert(vertex, id);
            return;
        }
        let Some(&id) = self.vertices.get(&vertex) else { return };
        match event {
            Event::Cached => {
                record.cached(id);
                // The builder does not say how long it took to find it.
                record.succeed_after(id, None);
            }
            Event::Done(milliseconds) => record.succeed_after(id, milliseconds),
            Event::Cancelled => record.skip(id, line.at),
            Event::Failed(message) => {
                record.error_line(id, &format!("ERROR: {message}"));
                record.fail(id, line.at, message);
            }
            Event::Named { .. } | Event::Doing("...") => {}
            Event::Printed(text) | Event::Doing(text) => record.output(id, text),
        }
    }

    /// The last words. Where no vertex has failed, they are about the instruction pointed at.
    fn failed(&mut self, line: Line<'_>, record: &mut Record) {
        if record.has_failed() {
            return;
        }
        let Some(pointed_at) = self.pointed_at.take() else { return };
        let id = record
            .find(|step| step.status != StepStatus::Success && is_named(&step.name, &pointed_at))
            .unwrap_or_else(|| record.begin(line.at, &pointed_at, ""));
        let message = ["ERROR: ", "failed to build: ", "failed to solve: "]
            .iter()
            .fold(line.text, |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest));
        record.error_line(id, line.text);
        record.fail(id, line.at, message);
    }
}

/// `#7 rest`.
fn vertex(text: &str) -> Option<(u32, &str)> {
    let (number, rest) = text.strip_prefix('#')?.split_once(' ')?;
    Some((number.parse().ok()?, rest))
}

fn event(rest: &str) -> Event<'_> {
    if let Some(named) = named(rest) {
        return named;
    }
    if rest == "CACHED" {
        return Event::Cached;
    }
    if rest == "CANCELED" {
        return Event::Cancelled;
    }
    if let Some(took) = rest.strip_prefix("DONE ") {
        return Event::Done(milliseconds(took));
    }
    if let Some(message) = rest.strip_prefix("ERROR: ") {
        return if message == "context canceled" { Event::Cancelled } else { Event::Failed(message) };
    }
    match rest.split_once(' ') {
        Some((time, text)) if is_time(time) => Event::Printed(text),
        _ => Event::Doing(rest),
    }
}

/// `[linux/amd64 build  2/10] RUN make`: platform and stage where there are several, the place, the name.
fn named(rest: &str) -> Option<Event<'_>> {
    let (brackets, name) = rest.strip_prefix('[')?.split_once("] ")?;
    let (stage, at) = brackets.rsplit_once(' ').unwrap_or(("", brackets));
    let (index, total) = place(at)?;
    // Places are padded to one width.
    Some(Event::Named { stage: stage.trim().to_owned(), index, total, name })
}

/// `0.512`.
fn is_time(text: &str) -> bool {
    text.split_once('.').is_some_and(|(whole, fraction)| {
        [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// `12.3s`.
fn milliseconds(took: &str) -> Option<i64> {
    let (seconds, fraction) = took.strip_suffix('s')?.split_once('.')?;
    let tenths: i64 = fraction.get(..1)?.parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000)?.checked_add(tenths * 100)
}

/// `   4 | >>> COPY no-such-file.txt /there`.
fn pointed_at(text: &str) -> Option<&str> {
    let (number, instruction) = text.split_once(" | >>> ")?;
    number.trim_start().parse::<u32>().ok()?;
    (!instruction.trim().is_empty()).then(|| instruction.trim().trim_end_matches('\\').trim_end())
}

/// The name of a vertex joins the lines of its instruction, and may go on where the Dockerfile's line ends.
fn is_named(name: &str, line: &str) -> bool {
    let mut words = name.split_whitespace();
    line.split_whitespace().all(|word| words.next() == Some(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vertex_is_a_step_where_it_has_a_place() {
        for (line, stage, index, total, name) in [
            ("#7 [2/3] RUN make", "", 2, 3, "RUN make"),
            ("#7 [build  2/10] RUN make", "build", 2, 10, "RUN make"),
            ("#7 [ 2/10] RUN make", "", 2, 10, "RUN make"),
            ("#17 [linux/amd64->arm64 build 2/2] RUN make", "linux/amd64->arm64 build", 2, 2, "RUN make"),
            ("#7 [stage-1 1/5] FROM a@sha256:00", "stage-1", 1, 5, "FROM a@sha256:00"),
        ] {
            let expected = Event::Named { stage: stage.to_owned(), index, total, name };
            assert_eq!(vertex(line).map(|(_, rest)| event(rest)), Some(expected), "{line}");
        }
        for line in
            ["#1 [internal] load build context", "#1 [auth] a:pull token for b", "#1 [3/2] RUN x", "#1 [0/2] RUN x"]
        {
            let (_, rest) = vertex(line).unwrap();
            assert_eq!(event(rest), Event::Doing(rest), "{line}");
        }
        for line in ["RUN x", "# 7 RUN", "#x [1/1] FROM a", "#7", " #7 DONE 0.1s", "7 DONE 0.1s"] {
            assert_eq!(vertex(line), None, "{line}");
        }
    }

    #[test]
    fn what_a_command_prints_is_output_whatever_it_says() {
        for (line, expected) in [
            ("#7 0.512 #9 DONE 0.1s", Event::Printed("#9 DONE 0.1s")),
            ("#7 0.512 CACHED", Event::Printed("CACHED")),
            ("#7 0.512  indented", Event::Printed(" indented")),
            ("#7 0.512 ", Event::Printed("")),
            ("#7 0.512 ...", Event::Printed("...")),
            ("#7 DONE 12.3s", Event::Done(Some(12_300))),
            ("#7 DONE 0.0s", Event::Done(Some(0))),
            ("#7 DONE soon", Event::Done(None)),
            ("#7 DONE 99999999999999999999.0s", Event::Done(None)),
            ("#7 CACHED", Event::Cached),
            ("#7 CANCELED", Event::Cancelled),
            ("#7 ERROR: context canceled", Event::Cancelled),
            ("#7 ERROR: it broke", Event::Failed("it broke")),
            ("#7 extracting sha256:00 0.1s done", Event::Doing("extracting sha256:00 0.1s done")),
        ] {
            assert_eq!(vertex(line).map(|(_, rest)| event(rest)), Some(expected), "{line}");
        }
    }

    #[test]
    fn an_instruction_of_several_lines_is_recognised_by_its_first() {
        assert_eq!(pointed_at("   4 | >>> COPY a /b"), Some("COPY a /b"));
        assert_eq!(pointed_at("  10 | >>> RUN a && \\"), Some("RUN a &&"));
        assert_eq!(pointed_at("   4 |     COPY a /b"), None);
        assert!(is_named("RUN a &&     b", "RUN a &&") && is_named("COPY a /b", "COPY a  /b"));
        assert!(!is_named("RUN a", "RUN a && b") && !is_named("COPY ab /b", "COPY a /b"));
    }
}
