//! The one place that asks for the time, for new row ids and for chance. Rules take them as arguments.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The second a time is in: Kubernetes keeps no smaller ones.
pub fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A version 7 id: rows made later sort later, which the partitions of build_logs rely on.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A random number from 0 to below 1: of the bits of an id those that chance alone decides.
pub fn chance() -> f64 {
    let [.., a, b, c, d] = new_id().into_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// How long from `now` to the next multiple of `period` since the epoch: moments that are the same for everyone, so that
/// what many do at them can be done together.
pub fn until_the_next(period: Duration, now: Timestamp) -> Duration {
    let period = period.as_nanos();
    let since = now.as_nanosecond().unsigned_abs() % period;
    Duration::from_nanos(u64::try_from(period - since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_fall_together() {
        for (now, wait) in [("10:00:00Z", 10_000), ("10:00:00.25Z", 9_750), ("10:00:09.999Z", 1), ("10:00:13Z", 7_000)]
        {
            let now: Timestamp = format!("2026-11-24T{now}").parse().unwrap();
            assert_eq!(until_the_next(Duration::from_secs(10), now), Duration::from_millis(wait));
        }
    }
}
