//! When a notification is sent again, and when no more: by the schedule that Standard Webhooks recommends
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};

/// From one try to the next. The first is made at once.
const WAITS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// A receiver that wants to wait longer is not waited for.
const LONGEST: Duration = Duration::from_hours(24);

/// What follows a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Received,
    Again(Duration),
    GivenUp,
    /// The receiver wants nothing ever again.
    Gone,
}

/// `attempt` from 1; `status` of the answer, if one came; `retry_after` as the answer had it.
pub fn next(attempt: u32, status: Option<u16>, retry_after: Option<Duration>) -> Next {
    match status {
        Some(200..=299) => return Next::Received,
        Some(410) => return Next::Gone,
        _ => {}
    }
    let tried = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    match WAITS.get(tried) {
        Some(wait) => Next::Again(retry_after.unwrap_or_default().min(LONGEST).max(*wait)),
        None => Next::GivenUp,
    }
}

/// What the header `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3).
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| Duration::try_from(rfc2822::parse(text).ok()?.timestamp().duration_since(now)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_is_asked_for_in_seconds_or_by_a_date() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Tue, 24 Nov 2026 10:02:00 GMT", Some(120)),
            ("Tue, 24 Nov 2026 09:59:59 GMT", None),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn it_is_sent_ten_times_over_three_days_and_then_given_up() {
        let waits: Vec<Next> = (1..=10).map(|attempt| next(attempt, Some(500), None)).collect();
        let seconds = |seconds| Next::Again(Duration::from_secs(seconds));
        let minutes = |minutes: u64| Next::Again(Duration::from_mins(minutes));
        let hours = |hours: u64| Next::Again(Duration::from_hours(hours));
        let expected = [
            seconds(5),
            minutes(5),
            minutes(30),
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
            Next::GivenUp,
        ];
        assert_eq!(waits, expected);
    }

    #[test]
    fn only_a_success_is_one() {
        for status in [200, 201, 204, 299] {
            assert_eq!(next(1, Some(status), None), Next::Received, "{status}");
        }
        for status in [None, Some(100), Some(301), Some(302), Some(400), Some(404), Some(429), Some(503)] {
            assert_eq!(next(1, status, None), Next::Again(Duration::from_secs(5)), "{status:?}");
        }
        assert_eq!(next(1, Some(410), None), Next::Gone);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_up_to_a_day_and_never_for_less() {
        let asked = |seconds| next(2, Some(429), Some(Duration::from_secs(seconds)));
        assert_eq!(asked(1), Next::Again(Duration::from_mins(5)));
        assert_eq!(asked(3_600), Next::Again(Duration::from_hours(1)));
        assert_eq!(asked(10_000_000), Next::Again(LONGEST));
        assert_eq!(next(10, Some(429), Some(Duration::from_secs(1))), Next::GivenUp);
    }
}
