use jiff::{ToSpan, tz::TimeZone};
use proptest::{prelude::*, sample::select};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::new(cron, Some(zone)).unwrap_or_else(|error| panic!("{cron} {zone}: {error}"))
}

/// The slots of a day and the next, as that zone's clock shows them with its offset.
fn shown(cron: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let zoned = |slot: Timestamp| slot.to_zoned(ZONES.get(zone).unwrap()).strftime("%d %H:%M%:z").to_string();
    schedule(cron, zone).between(at(from), at(until), 100).into_iter().map(zoned).collect()
}

#[test]
fn the_next_slot_is_the_first_after_an_instant_by_the_zones_clock() {
    for (cron, zone, after, expected) in [
        ("0 2 * * *", "UTC", "2026-11-27T01:59:59.9Z", "2026-11-27T02:00:00Z"),
        ("0 2 * * *", "UTC", "2026-11-27T02:00:00Z", "2026-11-28T02:00:00Z"),
        ("0 2 * * *", "Europe/Berlin", "2026-11-27T00:30:00Z", "2026-11-27T01:00:00Z"),
        ("*/15 * * * *", "Asia/Kathmandu", "2026-11-27T00:01:00Z", "2026-11-27T00:15:00Z"),
        ("30 9 * * MON-FRI", "America/New_York", "2026-11-27T14:30:00Z", "2026-11-30T14:30:00Z"),
        ("0 0 29 2 *", "UTC", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0 0 L * *", "UTC", "2027-02-01T00:00:00Z", "2027-02-28T00:00:00Z"),
        ("0 0 15W * *", "UTC", "2026-08-01T00:00:00Z", "2026-08-14T00:00:00Z"),
        ("0 0 * * 5#3", "UTC", "2026-11-01T00:00:00Z", "2026-11-20T00:00:00Z"),
        ("0 0 * * FRIL", "UTC", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z"),
        // Either day fits where both fields name some.
        ("0 0 13 * FRI", "UTC", "2026-11-10T00:00:00Z", "2026-11-13T00:00:00Z"),
        ("0 0 13 * FRI", "UTC", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"),
        ("0 0 * * 7", "UTC", "2026-11-27T00:00:00Z", "2026-11-29T00:00:00Z"),
    ] {
        assert_eq!(schedule(cron, zone).next_after(at(after)), Some(at(expected)), "{cron} {zone} {after}");
    }
    let utc = Schedule::new("0 2 * * *", None).unwrap();
    assert_eq!(utc.next_after(at("2026-11-27T01:00:00Z")), Some(at("2026-11-27T02:00:00Z")), "UTC where none is named");
    assert_eq!(utc.next_after(Timestamp::MAX), None);
}

#[test]
fn an_hour_that_the_clock_skips_is_one_slot_at_the_first_instant_after_it() {
    // Berlin, March 29: 02:00 is 03:00.
    let (from, until) = ("2026-03-28T23:00:00Z", "2026-03-29T04:00:00Z");
    for (cron, expected) in [
        ("30 2 * * *", vec!["29 03:00+02:00"]),
        ("0,15,45 2 * * *", vec!["29 03:00+02:00"]),
        ("0 * * * *", vec!["29 01:00+01:00", "29 03:00+02:00", "29 04:00+02:00", "29 05:00+02:00", "29 06:00+02:00"]),
        ("30 2,3 * * *", vec!["29 03:00+02:00", "29 03:30+02:00"]),
        ("0 3 * * *", vec!["29 03:00+02:00"]),
    ] {
        assert_eq!(shown(cron, "Europe/Berlin", from, until), expected, "{cron}");
    }
    // Samoa had no December 30 in 2011.
    let samoa = shown("0 9 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-02T00:00:00Z");
    assert_eq!(samoa, ["31 00:00+14:00"]);
}

#[test]
fn an_hour_that_the_clock_shows_twice_is_the_slots_of_its_first_showing() {
    // Berlin, October 25: 03:00 is 02:00 again.
    let (from, until) = ("2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z");
    for (cron, expected) in [
        ("30 2 * * *", vec!["25 02:30+02:00"]),
        ("0 2,3 * * *", vec!["25 02:00+02:00", "25 03:00+01:00"]),
        ("*/30 * * * *", vec!["25 02:00+02:00", "25 02:30+02:00", "25 03:00+01:00", "25 03:30+01:00"]),
    ] {
        assert_eq!(shown(cron, "Europe/Berlin", from, until), expected, "{cron}");
    }
    let twice = schedule("45 2 * * *", "Europe/Berlin");
    let (first, second) = (at("2026-10-25T00:45:00Z"), at("2026-10-25T01:10:00Z"));
    assert_eq!(twice.newest_at(second), Some(first), "the clock shows 02:10 again, and 02:45 was before");
    assert_eq!(twice.next_after(second), Some(at("2026-10-26T01:45:00Z")));
}

#[test]
fn what_croner_itself_would_do_with_such_hours_differs_and_is_not_asked_for() {
    let croner = |cron: &str, from: &str| {
        let zoned = at(from).to_zoned(ZONES.get("Europe/Berlin").unwrap());
        let found = fields::read(cron).unwrap().find_next_occurrence(&zoned, false).unwrap();
        found.timestamp().to_string()
    };
    // An interval runs in both showings.
    assert_eq!(croner("*/30 * * * *", "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00Z");
    assert_eq!(
        schedule("*/30 * * * *", "Europe/Berlin").next_after(at("2026-10-25T00:30:00Z")),
        Some(at("2026-10-25T02:00:00Z"))
    );
}

#[test]
fn after_an_outage_the_newest_missed_slot_is_due_once() {
    let daily = schedule("0 2 * * *", "UTC");
    let hours = |hours: i64| Some(SignedDuration::from_hours(hours));
    for (planned, now, deadline, expected) in [
        ("2026-11-27T02:00:00Z", "2026-11-27T01:59:59Z", None, Due::NotYet),
        ("2026-11-27T02:00:00Z", "2026-11-27T02:00:00Z", None, Due::Slot(at("2026-11-27T02:00:00Z"))),
        ("2026-11-27T02:00:00Z", "2026-11-30T12:00:00Z", None, Due::Slot(at("2026-11-30T02:00:00Z"))),
        ("2026-11-27T02:00:00Z", "2026-11-30T12:00:00Z", hours(10), Due::Slot(at("2026-11-30T02:00:00Z"))),
        ("2026-11-27T02:00:00Z", "2026-11-30T12:00:01Z", hours(10), Due::TooLate(at("2026-11-30T02:00:00Z"))),
        ("2026-11-27T02:00:00Z", "2126-11-30T12:00:00Z", None, Due::Slot(at("2126-11-30T02:00:00Z"))),
        // Planned by another expression.
        ("2026-11-27T03:00:00Z", "2026-11-27T04:00:00Z", None, Due::Nothing),
    ] {
        assert_eq!(daily.due(at(planned), at(now), deadline), expected, "{planned} {now} {deadline:?}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_the_field_and_what_it_takes() {
    for (cron, zone, sentence) in [
        (
            "0 2 * *",
            "UTC",
            "spec.cron must have five fields, minute, hour, day of month, month and day of week, such as `0 2 * * *`; it has 4",
        ),
        ("0 0 2 * * *", "UTC", "it has 6"),
        ("@annually", "UTC", "it has 1"),
        ("60 2 * * *", "UTC", "spec.cron: \"60\" is no minute; it takes from 0 to 59, `*`"),
        ("0 24 * * *", "UTC", "\"24\" is no hour; it takes from 0 to 23"),
        ("0 2 0 * *", "UTC", "\"0\" is no day of month; it takes from 1 to 31"),
        ("0 2 32 * *", "UTC", "\"32\" is no day of month"),
        ("0 2 * 13 *", "UTC", "\"13\" is no month; it takes from 1 to 12, or JAN to DEC"),
        ("0 2 * * 8", "UTC", "\"8\" is no day of week"),
        ("0 2 * * MONDAY", "UTC", "\"MONDAY\" is no day of week"),
        ("JAN 2 * * *", "UTC", "\"JAN\" is no minute"),
        ("1,,2 2 * * *", "UTC", "\"1,,2\" is no minute"),
        (", 2 * * *", "UTC", "\",\" is no minute"),
        ("5-1 2 * * *", "UTC", "\"5-1\" is no minute"),
        ("*/0 2 * * *", "UTC", "\"*/0\" is no minute"),
        ("5/10 2 * * *", "UTC", "\"5/10\" is no minute"),
        ("0 2 ? * *", "UTC", "\"?\" is no day of month"),
        ("0 2 * * +MON", "UTC", "\"+MON\" is no day of week"),
        (
            "0 2 30 2 *",
            "UTC",
            "spec.cron names a day that never comes, such as February 30; change day of month or month",
        ),
        ("0 2 31 4,6,9,11 *", "UTC", "a day that never comes"),
        (
            "0 2 * * *",
            "Middle/Earth",
            "spec.timezone \"Middle/Earth\" is no time zone; put its IANA name, such as Europe/Berlin or UTC",
        ),
        ("0 2 * * *", "../../etc/passwd", "is no time zone"),
        ("0 2 * * *", "", "is no time zone"),
        ("0 2 * * *", "+02:00", "is no time zone"),
    ] {
        let error = Schedule::new(cron, Some(zone)).expect_err(cron).to_string();
        assert!(error.contains(sentence), "{cron} {zone}: {error}");
    }
}

#[test]
fn an_expression_is_told_in_words_with_its_zone() {
    for (cron, zone, words) in [
        ("0 2 * * *", None, "At 02:00 (UTC)"),
        ("*/15 * * * *", Some("europe/berlin"), "At every 15 minutes (Europe/Berlin)"),
        (
            "30 9 * * MON-FRI",
            Some("America/New_York"),
            "At 09:30, on Monday, Tuesday, Wednesday, Thursday, and Friday (America/New_York)",
        ),
        ("0 0 L * *", None, "At 00:00, on the last day of the month (UTC)"),
    ] {
        assert_eq!(Schedule::new(cron, zone).unwrap().in_words(), words, "{cron}");
    }
}

/// The same question answered by walking: the clock on the wall is looked at every minute, and what it shows for the
/// first time, or has skipped since the last look, is a slot if it fits.
fn walked(fits: &dyn Fn(DateTime) -> bool, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let minute = |at: Timestamp| Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap();
    // Early enough to have seen the first showing of whatever is shown again.
    let mut now = minute(after) - 25.hours();
    let mut passed = zone.to_datetime(now);
    let mut slots = Vec::new();
    while now < until {
        now += 1.minute();
        let shows = zone.to_datetime(now);
        let mut is_slot = false;
        while passed < shows {
            passed += 1.minute();
            is_slot |= fits(passed);
        }
        if is_slot && now > after && now <= until {
            slots.push(now);
        }
    }
    slots
}

/// A field as the numbers it names, and as text. `None`: a star.
fn field(range: std::ops::RangeInclusive<i8>) -> impl Strategy<Value = (Option<Vec<i8>>, String)> {
    let (first, last) = range.clone().into_inner();
    prop_oneof![
        3 => Just((None, "*".to_owned())),
        3 => prop::collection::btree_set(range.clone(), 1..4).prop_map(|numbers| {
            let text: Vec<String> = numbers.iter().map(i8::to_string).collect();
            (Some(numbers.into_iter().collect()), text.join(","))
        }),
        1 => (1..=last).prop_map(move |step| {
            let numbers = (first..=last).step_by(usize::from(step.unsigned_abs())).collect();
            (Some(numbers), format!("*/{step}"))
        }),
        1 => (range.clone(), range).prop_map(|(one, other)| {
            let (low, high) = (one.min(other), one.max(other));
            (Some((low..=high).collect()), format!("{low}-{high}"))
        }),
    ]
}

/// An instant of 1990 to 2090, mostly within a day of a change of the zone's clock.
fn instant_near_a_change() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    let zones: Vec<TimeZone> = ZONES.available().filter_map(|name| ZONES.get(name.as_str()).ok()).collect();
    let years = at("1990-01-01T00:00:00Z").as_second()..at("2091-01-01T00:00:00Z").as_second();
    (select(zones), years, 0_i64..86_400, any::<u8>()).prop_map(|(zone, second, before, luck)| {
        let random = Timestamp::from_second(second).unwrap();
        let change = zone.following(random).next().map(|change| change.timestamp());
        let near = change.filter(|_| luck > 40).unwrap_or(random);
        (zone, near - SignedDuration::from_secs(before))
    })
}

proptest! {
    #[test]
    fn slots_are_those_found_by_walking_the_minutes_of_the_wall(
        (zone, from) in instant_near_a_change(),
        (minutes, minute) in field(0..=59),
        (hours, hour) in field(0..=23),
        (days, day) in prop_oneof![3 => Just((None, "*".to_owned())), 1 => field(1..=31)],
        (weekdays, weekday) in prop_oneof![3 => Just((None, "*".to_owned())), 1 => field(0..=6)],
    ) {
        let has = |numbers: &Option<Vec<i8>>, number: i8| numbers.as_ref().is_none_or(|some| some.contains(&number));
        let fits = |wall: DateTime| {
            let on_day = has(&days, wall.day());
            let on_weekday = has(&weekdays, wall.weekday().to_sunday_zero_offset());
            let on_date = if days.is_some() && weekdays.is_some() { on_day || on_weekday } else { on_day && on_weekday };
            has(&minutes, wall.minute()) && has(&hours, wall.hour()) && on_date
        };
        let schedule = Schedule {
            cron: fields::read(&format!("{minute} {hour} {day} * {weekday}")).map_err(TestCaseError::fail)?,
            zone: zone.clone(),
        };
        let until = from + SignedDuration::from_hours(30);
        let expected = walked(&fits, &zone, from, until);
        let found = schedule.between(from, until, usize::MAX);
        let differ: Vec<_> = expected.iter().filter(|slot| !found.contains(slot)).chain(found.iter().filter(|slot| !expected.contains(slot))).take(5).collect();
        prop_assert!(found == expected, "{:?} from {}: {:?}", zone, from, differ);
        // Backwards the same ones.
        for now in expected.iter().copied().step_by(expected.len() / 40 + 1).chain([until]) {
            let newest = expected.iter().rev().find(|slot| **slot <= now).copied();
            if newest.is_some() {
                prop_assert_eq!(schedule.newest_at(now), newest, "{:?} at {}", zone, now);
                let shortly_before_next = now + SignedDuration::from_secs(59);
                prop_assert!(schedule.newest_at(shortly_before_next) >= newest);
            }
        }
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic_or_search_for_ever(
        cron in "[-0-9A-Za-z*,/#LW?+@ ]{0,40}|([*0-9]{1,2}[-,/#LW]?[0-9]{0,2} ){4}[*0-7]|\\PC{0,40}",
        zone in "[A-Za-z/_+-]{0,20}|\\PC{0,20}",
        second in 0_i64..4_000_000_000,
    ) {
        let _ = Schedule::new("0 2 * * *", Some(&zone));
        if let Ok(schedule) = Schedule::new(&cron, None) {
            let now = Timestamp::from_second(second).unwrap();
            let next = schedule.next_after(now);
            prop_assert!(next.is_some_and(|next| next > now), "{}", cron);
            prop_assert!(schedule.newest_at(now).is_some_and(|newest| newest <= now), "{}", cron);
            prop_assert!(!schedule.in_words().is_empty());
        }
    }
}
