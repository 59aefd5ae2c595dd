//! What a build cost, in the units of `build_metrics`, from the report of its agent. What the report does not tell stays
//! open, and so does a number that can't be: the builder could have written the report itself.

use crate::{reason::Stage, report::AgentReport};

/// More is no measure: the columns' own limits.
const MAX_CPU_PERCENT: f64 = 99_999_999.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// The building without the push.
    pub build_seconds: Option<i32>,
    pub push_seconds: Option<i32>,
    pub peak_memory_mebibytes: Option<i32>,
    /// Of one core, averaged over the time in which it was measured.
    pub cpu_percent: Option<f64>,
    pub disk_read_bytes: Option<i64>,
    pub disk_write_bytes: Option<i64>,
}

impl Cost {
    /// `push` is the push in milliseconds where the builder tells it, `failed_at` where the attempt failed: one that
    /// failed before the push has only built.
    pub fn of(report: &AgentReport, push: Option<i64>, failed_at: Option<Stage>) -> Self {
        let push = push.and_then(|push| u64::try_from(push).ok());
        let run = report.commands.iter().fold(0, |sum: u64, command| sum.saturating_add(command.milliseconds));
        let pushed = push.or_else(|| (failed_at == Some(Stage::Build)).then_some(0));
        let usage = &report.usage;
        let bytes = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok());
        Self {
            build_seconds: pushed.and_then(|pushed| rounded(run.saturating_sub(pushed), 1_000)),
            push_seconds: push.and_then(|push| rounded(push, 1_000)),
            peak_memory_mebibytes: usage.memory_peak_bytes.and_then(|peak| rounded(peak, 1024 * 1024)),
            cpu_percent: usage.cpu_microseconds.zip(usage.milliseconds).and_then(|(cpu, clock)| percent(cpu, clock)),
            disk_read_bytes: bytes(usage.disk_read_bytes),
            disk_write_bytes: bytes(usage.disk_write_bytes),
        }
    }
}

impl Cost {
    /// Of a build whose push came after the run, in milliseconds where it came to its end.
    pub fn pushed_after(report: &AgentReport, push: Option<u64>) -> Self {
        let push_seconds = push.and_then(|push| rounded(push, 1_000));
        Self { push_seconds, ..Self::of(report, None, Some(Stage::Build)) }
    }
}

/// `amount / unit`, rounded half up.
fn rounded(amount: u64, unit: u64) -> Option<i32> {
    i32::try_from(amount.saturating_add(unit / 2) / unit).ok()
}

/// Processor time over the time by the clock.
#[expect(clippy::cast_precision_loss, reason = "a share is asked for, and microseconds of a century fit")]
fn percent(microseconds: u64, milliseconds: u64) -> Option<f64> {
    let percent = microseconds as f64 / (10.0 * milliseconds as f64);
    (percent.is_finite() && percent <= MAX_CPU_PERCENT).then_some(percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{CommandReport, Usage};

    fn report(milliseconds: &[u64]) -> AgentReport {
        let command = |milliseconds: &u64| CommandReport {
            name: "baker".to_owned(),
            exit_code: Some(0),
            signal: None,
            milliseconds: *milliseconds,
        };
        AgentReport { commands: milliseconds.iter().map(command).collect(), ..AgentReport::default() }
    }

    #[test]
    fn the_building_is_the_run_without_the_push() {
        for (run, push, failed_at, expected) in [
            (&[9_000, 1_400][..], Some(1_400), None, (Some(9), Some(1))),
            (&[9_499], Some(0), None, (Some(9), Some(0))),
            (&[9_500], Some(0), None, (Some(10), Some(0))),
            (&[9_500], None, None, (None, None)),
            (&[9_500], None, Some(Stage::Build), (Some(10), None)),
            (&[9_500], None, Some(Stage::Push), (None, None)),
            (&[1_000], Some(2_000), None, (Some(0), Some(2))),
            (&[1_000], Some(-1), None, (None, None)),
        ] {
            let cost = Cost::of(&report(run), push, failed_at);
            assert_eq!((cost.build_seconds, cost.push_seconds), expected, "{run:?} {push:?} {failed_at:?}");
        }
    }

    #[test]
    fn what_is_pushed_after_the_run_is_no_part_of_it() {
        for (push, expected) in [(Some(1_400), (Some(9), Some(1))), (None, (Some(9), None))] {
            let cost = Cost::pushed_after(&report(&[9_000]), push);
            assert_eq!((cost.build_seconds, cost.push_seconds), expected);
        }
    }

    #[test]
    fn what_was_used_is_told_in_the_units_of_the_columns() {
        let usage = Usage {
            memory_peak_bytes: Some(100 * 1024 * 1024 + 512 * 1024),
            cpu_microseconds: Some(3_000_000),
            milliseconds: Some(2_000),
            disk_read_bytes: Some(7),
            ..Usage::default()
        };
        let report = AgentReport { usage, ..report(&[1_500, 400]) };
        let expected = Cost {
            peak_memory_mebibytes: Some(101),
            cpu_percent: Some(150.0),
            disk_read_bytes: Some(7),
            ..Cost::default()
        };
        assert_eq!(Cost::of(&report, None, None), expected);
    }

    #[test]
    fn a_number_that_can_not_be_is_none() {
        let usage = Usage {
            memory_peak_bytes: Some(u64::MAX),
            cpu_microseconds: Some(u64::MAX),
            milliseconds: Some(0),
            disk_write_bytes: Some(u64::MAX),
            ..Usage::default()
        };
        let report = AgentReport { usage, ..report(&[u64::MAX, u64::MAX]) };
        let cost = Cost::of(&report, None, Some(Stage::Build));
        assert_eq!(cost.build_seconds, None);
        assert_eq!((cost.peak_memory_mebibytes, cost.cpu_percent, cost.disk_write_bytes), (None, None, None));
    }

    proptest! {
        #[test]
        fn every_cost_fits_its_column(
            run in prop::collection::vec(any::<u64>(), 0..4), push in any::<Option<i64>>(),
            memory_peak_bytes in any::<Option<u64>>(), cpu_microseconds in any::<Option<u64>>(),
            milliseconds in any::<Option<u64>>(),
        ) {
            let usage = Usage { memory_peak_bytes, cpu_microseconds, milliseconds, ..Usage::default() };
            let report = AgentReport { usage, ..report(&run) };
            let cost = Cost::of(&report, push, None);
            prop_assert!(cost.cpu_percent.is_none_or(|percent| (0.0..1e8).contains(&percent)));
            prop_assert!([cost.build_seconds, cost.push_seconds, cost.peak_memory_mebibytes].into_iter().flatten().all(|number| number >= 0));
        }
    }
}
