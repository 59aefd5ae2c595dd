//! Names derived from a row's id, so that the same attempt always finds the same objects.

use jiff::Timestamp;
use uuid::Uuid;

/// Longest name of a Build; leaves room for the Job's suffix within a DNS label of 63.
pub const BUILD_NAME_MAX: usize = 52;
/// Longest name of a schedule; leaves room for a slot in the names of its Builds.
pub const SCHEDULE_NAME_MAX: usize = 41;

/// Name of the Job of an attempt: `<build>-<8 hex of the id's random part>`, at most 61 characters.
///
/// A version 7 id begins with its time, which two attempts may share; its last 32 bits are random.
pub fn job_name(build_name: &str, build_id: Uuid) -> String {
    let stem: String = build_name.chars().take(BUILD_NAME_MAX).collect();
    format!("{}-{}", stem.trim_end_matches(['-', '.']).replace('.', "-"), suffix(build_id))
}

/// Name of the Build that is made for a row: `<maker>-<8 hex of the id's random part>`, at most 52 characters.
pub fn made_name(maker: &str, row: Uuid) -> String {
    let stem: String = maker.chars().take(BUILD_NAME_MAX - 9).collect();
    format!("{}-{}", stem.trim_end_matches(['-', '.']), suffix(row))
}

/// Name of the Job that looks at the heads of branches for a webhook: `<webhook>-poll-<8 hex>`, at most 61 characters.
pub fn poll_job_name(webhook: &str, poll: Uuid) -> String {
    let stem: String = webhook.chars().take(BUILD_NAME_MAX - 5).collect();
    format!("{}-poll-{}", stem.trim_end_matches(['-', '.']).replace('.', "-"), suffix(poll))
}

fn suffix(id: Uuid) -> String {
    let bytes = id.as_bytes();
    format!("{:08x}", u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]))
}

/// Name of the Build made for a slot: `<schedule>-<minutes since 1970>`.
pub fn slot_build_name(schedule: &str, slot: Timestamp) -> String {
    format!("{schedule}-{}", slot.as_second().div_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_of_a_slot_is_named_after_its_minute_and_never_too_long() {
        let slot = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(slot_build_name("nightly", slot("2026-11-27T02:00:00Z")), "nightly-29929080");
        assert_eq!(slot_build_name("nightly", slot("2026-11-27T02:00:59Z")), "nightly-29929080");
        let longest = "x".repeat(SCHEDULE_NAME_MAX);
        assert!(slot_build_name(&longest, slot("9999-12-30T22:00:00Z")).len() <= BUILD_NAME_MAX);
    }

    #[test]
    fn a_job_name_is_a_dns_label_that_ends_with_the_ids_random_part() {
        let id: Uuid = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap();
        assert_eq!(job_name("web", id), "web-1f3a9c2e");
        assert_eq!(job_name("web.front", id), "web-front-1f3a9c2e");
        assert_eq!(job_name(&"x".repeat(80), id).len(), BUILD_NAME_MAX + 9);
    }

    #[test]
    fn the_job_of_a_poll_has_a_name_that_is_a_dns_label() {
        let id: Uuid = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap();
        assert_eq!(poll_job_name("web.push", id), "web-push-poll-1f3a9c2e");
        assert_eq!(poll_job_name(&"x".repeat(63), id).len(), 61);
    }

    #[test]
    fn a_build_made_for_a_row_has_a_name_that_a_build_may_have() {
        let id: Uuid = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap();
        assert_eq!(made_name("web.push", id), "web.push-1f3a9c2e");
        assert_eq!(made_name(&format!("{}.web", "x".repeat(42)), id), format!("{}-1f3a9c2e", "x".repeat(42)));
        assert_eq!(made_name(&"x".repeat(253), id).len(), BUILD_NAME_MAX);
    }
}
