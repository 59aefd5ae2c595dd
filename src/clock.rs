//! The one place that asks for the time and for new row ids. Rules take both as arguments.

use jiff::Timestamp;
use uuid::Uuid;

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A version 7 id: rows made later sort later, which the partitions of build_logs rely on.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
