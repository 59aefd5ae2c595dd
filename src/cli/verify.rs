//! `image-factory verify`: a line for each invariant, and below it what breaks it.

use std::{fmt::Write, process::ExitCode};

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use kube::Client;

use crate::{
    config, db,
    verify::{self, Finding},
};

/// Of what breaks one invariant this much is printed.
const SHOWN: usize = 50;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    database: config::Database,
    /// Compare how many builds ran at once with the limits from this time on (2026-11-24T10:00:00Z).
    /// Give the time since when no limit was changed: the database keeps no history of limits, so
    /// without it only what runs now is compared
    #[arg(long)]
    limits_since: Option<Timestamp>,
    /// Check the database alone, without the cluster of the kubeconfig
    #[arg(long)]
    rows_only: bool,
}

/// # Errors
/// When the database or the cluster can't be asked: nothing is known then.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pool = db::pool(&arguments.database).context("failed to read DATABASE_URL")?;
    let mut snapshot = db::verify::snapshot(&pool).await?;
    let mut findings = verify::rows(&mut snapshot, arguments.limits_since).await?;
    snapshot.rollback().await.context("failed to end the transaction")?;
    if !arguments.rows_only {
        let client = Client::try_default().await.context("failed to configure the client of the API server")?;
        findings.extend(verify::cluster(&pool, &client).await?);
    }
    print!("{}", table(&findings));
    let holds = findings.iter().all(|finding| finding.checked.broken.is_empty());
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { invariant, unit, checked } in findings {
        let verdict = if checked.broken.is_empty() { "holds " } else { "BROKEN" };
        let counts = match checked.broken.len() {
            0 => format!("{} {unit}", checked.examined),
            broken => format!("{} {unit}, {broken} broken", checked.examined),
        };
        let _ = writeln!(text, "{verdict}  {invariant} ({counts})");
        for broken in checked.broken.iter().take(SHOWN) {
            let _ = writeln!(text, "        {}: {}", broken.subject, broken.problem);
        }
        if checked.broken.len() > SHOWN {
            let _ = writeln!(text, "        and {} more", checked.broken.len() - SHOWN);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::verify::{Broken, Checked};

    #[test]
    fn an_invariant_is_a_line_and_what_breaks_it_a_line_each() {
        let broken = |count: usize| {
            (0..count).map(|index| Broken { subject: format!("b{index}"), problem: "is odd".to_owned() }).collect()
        };
        let finding = |broken| Finding {
            invariant: "numbers are even",
            unit: "numbers",
            checked: Checked { examined: 90, broken },
        };
        let text = table(&[finding(broken(0)), finding(broken(1)), finding(broken(SHOWN + 2))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "holds   numbers are even (90 numbers)",
                "BROKEN  numbers are even (90 numbers, 1 broken)",
                "        b0: is odd",
            ]
        );
        assert_eq!(lines.last().copied(), Some("        and 2 more"));
    }
}
