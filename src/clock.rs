//! The one place that asks for the time, for new row ids and for chance. Rules take them as arguments.

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
