//! `image-factory schedules next`: what a cron expression means, in words and as the next times at which it makes a
//! Build. An expression needs no cluster; of a BuildSchedule the expression is read from it.

use std::num::NonZeroU16;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use image_factory_core::schedule::Schedule;
use jiff::Timestamp;
use kube::{Api, Client, Config};

use crate::{clock, crd::BuildSchedule};

#[derive(Subcommand)]
pub enum Command {
    /// Print the next times of a cron expression, or of a BuildSchedule
    Next(Next),
}

#[derive(Args)]
pub struct Next {
    /// Cron expression of five fields, in quotes: '0 2 * * MON-FRI'
    #[arg(required_unless_present = "schedule", conflicts_with = "schedule", allow_hyphen_values = true)]
    expression: Option<String>,
    /// BuildSchedule to read the expression and the time zone from, as namespace/name or name
    #[arg(long, conflicts_with = "timezone")]
    schedule: Option<String>,
    /// IANA time zone the expression is read in. Default: UTC
    #[arg(long)]
    timezone: Option<String>,
    /// How many times to print
    #[arg(short = 'n', long, default_value = "5")]
    number: NonZeroU16,
}

/// Runs the subcommand.
///
/// # Errors
/// When the expression can't be read, or the BuildSchedule can't be had.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Next(Next { expression, schedule, timezone, number }) = command;
    let (cron, timezone, suspended) = match (expression, schedule) {
        (Some(expression), _) => (expression, timezone, false),
        (None, Some(name)) => {
            let spec = read(&name).await?.spec;
            (spec.cron, spec.timezone, spec.suspend)
        }
        (None, None) => anyhow::bail!("name an expression, or a BuildSchedule by --schedule"),
    };
    let schedule = Schedule::new(&cron, timezone.as_deref())?;
    print!("{}", text(&schedule, clock::now(), number.get().into()));
    if suspended {
        println!("It is suspended: none of these makes a Build until spec.suspend is false.");
    }
    Ok(())
}

fn text(schedule: &Schedule, now: Timestamp, number: usize) -> String {
    let times = schedule.between(now, Timestamp::MAX, number);
    let lines = times.into_iter().map(|slot| {
        let wall = schedule.on_the_wall(slot).strftime("%a %Y-%m-%d %H:%M %:z").to_string();
        format!("{wall}  {slot}\n")
    });
    format!("{}\n{}", schedule.in_words(), lines.collect::<String>())
}

async fn read(name: &str) -> anyhow::Result<BuildSchedule> {
    let config = Config::infer().await.context("failed to find a cluster: set KUBECONFIG")?;
    let (namespace, name) = name.split_once('/').unwrap_or((&config.default_namespace, name));
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let client = Client::try_from(config).context("failed to configure the client of the API server")?;
    let api: Api<BuildSchedule> = Api::namespaced(client, &namespace);
    api.get(&name).await.with_context(|| format!("failed to read the BuildSchedule {namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_times_are_told_by_the_zones_clock_and_in_utc() {
        let schedule = Schedule::new("30 2 * * *", Some("Europe/Berlin")).unwrap();
        let expected = "\
At 02:30 (Europe/Berlin)
Sat 2026-03-28 02:30 +01:00  2026-03-28T01:30:00Z
Sun 2026-03-29 03:00 +02:00  2026-03-29T01:00:00Z
Mon 2026-03-30 02:30 +02:00  2026-03-30T00:30:00Z
";
        assert_eq!(text(&schedule, "2026-03-27T12:00:00Z".parse().unwrap(), 3), expected);
    }
}
