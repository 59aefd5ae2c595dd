//! How long a builder took to push: `build_results.artifact_push_milliseconds`.
//!
//! buildah pushes in a command of its own, which the agent times, and so does the lifecycle: its exporter packs what
//! is new while it pushes it. BuildKit pushes while it exports and prints what each part took:
//! `#12 pushing layers 0.3s done`. What Packer leaves is pushed by `inspect`, which says so itself.

use crate::{lifecycle::Phase, method::Method, report::AgentReport};

/// Milliseconds, or `None` where the builder does not tell.
pub fn milliseconds(method: Method, report: &AgentReport, lines: &[String]) -> Option<i64> {
    match method {
        Method::Container => report.commands.get(1).and_then(|push| i64::try_from(push.milliseconds).ok()),
        Method::Buildx => {
            let parts: Vec<i64> = lines.iter().filter_map(|line| buildkit_push(line)).collect();
            (!parts.is_empty()).then(|| parts.iter().sum())
        }
        Method::Paketo => {
            let exporter = report.commands.iter().find(|command| command.name == Phase::Export.program())?;
            i64::try_from(exporter.milliseconds).ok()
        }
        Method::Kaniko | Method::Packer => None,
    }
}

/// `#12 pushing layers 0.3s done`, `#12 pushing manifest for … done`. `BuildKit` prints no time below
/// 10 milliseconds (moby/buildkit, util/progress/progressui/printer.go), which counts as none.
fn buildkit_push(line: &str) -> Option<i64> {
    let (vertex, text) = line.strip_prefix('#')?.split_once(' ')?;
    vertex.parse::<u32>().ok()?;
    let pushed = text.strip_prefix("pushing ")?.strip_suffix(" done")?;
    let took = pushed.rsplit_once(' ').and_then(|(_, took)| milliseconds_of(took.strip_suffix('s')?));
    Some(took.unwrap_or(0))
}

/// The milliseconds of `1.05` seconds.
fn milliseconds_of(seconds: &str) -> Option<i64> {
    let (seconds, fraction) = seconds.split_once('.')?;
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(seconds.parse::<i64>().ok()? * 1000 + fraction.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CommandReport;

    #[test]
    fn buildkits_parts_add_up_and_other_lines_count_nothing() {
        let lines: Vec<String> = [
            "#12 exporting layers 0.1s done",
            "#12 pushing layers 0.2s done",
            "#12 pushing manifest for registry.test/a/b:1@sha256:00 1.05s done",
            "#12 pushing layers",
            "#9 0.301 pushing layers 9.9s done",
            "pushing layers 9.9s done",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(milliseconds(Method::Buildx, &AgentReport::default(), &lines), Some(1250));
        assert_eq!(milliseconds(Method::Buildx, &AgentReport::default(), &[]), None);
        let quick = ["#11 pushing layers done", "#11 pushing manifest for registry.test/a/b:1@sha256:00 done"];
        assert_eq!(milliseconds(Method::Buildx, &AgentReport::default(), &quick.map(str::to_owned)), Some(0));
    }

    #[test]
    fn buildahs_push_is_its_second_command() {
        let command =
            |milliseconds| CommandReport { name: "buildah".to_owned(), exit_code: Some(0), signal: None, milliseconds };
        let report = AgentReport { commands: vec![command(900), command(120)], ..AgentReport::default() };
        assert_eq!(milliseconds(Method::Container, &report, &[]), Some(120));
    }

    #[test]
    fn the_lifecycle_pushes_as_it_exports() {
        let command = |name: &str, milliseconds| CommandReport {
            name: name.to_owned(),
            exit_code: Some(0),
            signal: None,
            milliseconds,
        };
        let mut report = AgentReport { commands: vec![command("builder", 900)], ..AgentReport::default() };
        assert_eq!(milliseconds(Method::Paketo, &report, &[]), None);
        report.commands.push(command("exporter", 70));
        assert_eq!(milliseconds(Method::Paketo, &report, &[]), Some(70));
    }
}
