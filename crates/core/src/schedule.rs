//! When a schedule's Builds are made. A cron expression of five fields names minutes of the clock on the wall of a
//! time zone; each becomes one instant, a slot. A minute that the clock skips in spring is its first valid instant
//! after that, together with all others it skips; one that the clock shows twice in autumn is its first showing. So each is
//! built once, whichever fields an expression has; croner, which reads it, would build some twice and some not
//! at all (it tells fixed times from intervals), and so is asked about the wall's clock only.
//!
//! Time zones are those of the binary, so that every operator and every command line agree.

mod fields;

use std::sync::LazyLock;

use croner::Cron;
use jiff::{
    SignedDuration, Timestamp, Zoned,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Why a schedule can't act, in a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{0}")]
    Cron(String),
    #[error("{0}")]
    Timezone(String),
}

#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// What is to be done at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The planned slot is still to come.
    NotYet,
    /// This slot. Others that were missed before it are passed over.
    Slot(Timestamp),
    /// This slot was missed for longer than the deadline allows.
    TooLate(Timestamp),
    /// The planned time is none of the expression's, and none of these was missed since.
    Nothing,
}

impl Schedule {
    /// # Errors
    /// When the expression or the time zone can't be read, or no time ever fits the expression.
    pub fn new(cron: &str, timezone: Option<&str>) -> Result<Self, Invalid> {
        let zone = match timezone {
            None => TimeZone::UTC,
            Some(name) => ZONES.get(name).map_err(|_| {
                Invalid::Timezone(format!(
                    "spec.timezone {name:?} is no time zone; put its IANA name, such as Europe/Berlin or UTC"
                ))
            })?,
        };
        let cron = fields::read(cron).map_err(Invalid::Cron)?;
        Ok(Self { cron, zone })
    }

    /// The first slot after an instant; `None` beyond the end of the calendar.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let mut wall = whole_minute(self.zone.to_datetime(at))?;
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            // In the second showing of an hour, the rest of it was in the first one.
            let slot = self.instant(wall)?;
            if slot > at {
                return Some(slot);
            }
        }
    }

    /// The last slot at or before an instant.
    pub fn newest_at(&self, at: Timestamp) -> Option<Timestamp> {
        let wall = self.zone.to_datetime(at);
        // In the second showing of an hour all of the first one is over.
        let latest = match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Fold { before, after } if self.zone.to_offset(at) == after => {
                let turned_back = self.zone.preceding(at.checked_add(SignedDuration::from_nanos(1)).ok()?).next()?;
                before.to_datetime(turned_back.timestamp()).checked_sub(SignedDuration::from_secs(1)).ok()?
            }
            _ => wall,
        };
        let wall = self.cron.find_previous_occurrence(&latest, true).ok()?;
        self.instant(wall)
    }

    /// The slots after one instant and not after another, oldest first and at most so many.
    pub fn between(&self, after: Timestamp, until: Timestamp, most: usize) -> Vec<Timestamp> {
        let slots = std::iter::successors(self.next_after(after), |slot| self.next_after(*slot));
        slots.take_while(|slot| *slot <= until).take(most).collect()
    }

    /// What is due at `now`, where `planned` was to be the next slot: after an outage the newest that was missed, at
    /// most one, and not one that was missed for longer than `deadline`.
    pub fn due(&self, planned: Timestamp, now: Timestamp, deadline: Option<SignedDuration>) -> Due {
        if planned > now {
            return Due::NotYet;
        }
        match self.newest_at(now).filter(|newest| *newest >= planned) {
            None => Due::Nothing,
            Some(slot) if is_too_late(slot, now, deadline) => Due::TooLate(slot),
            Some(slot) => Due::Slot(slot),
        }
    }

    /// The expression in words.
    pub fn in_words(&self) -> String {
        let words = self.cron.describe();
        format!("{} ({})", words.trim_end_matches('.'), self.zone.iana_name().unwrap_or("UTC"))
    }

    /// An instant as the zone's clock shows it.
    pub fn on_the_wall(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }

    /// A minute of the wall's clock as an instant.
    fn instant(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(wall).ok()
            }
            AmbiguousOffset::Gap { after, .. } => {
                // By the offset after it, a skipped time is before the clock was put forward.
                let before_the_gap = after.to_timestamp(wall).ok()?;
                self.zone.following(before_the_gap).next().map(|change| change.timestamp())
            }
        }
    }
}

/// Whether a slot has waited for longer than it may.
pub fn is_too_late(slot: Timestamp, now: Timestamp, deadline: Option<SignedDuration>) -> bool {
    deadline.is_some_and(|deadline| now.duration_since(slot) > deadline)
}

fn whole_minute(wall: DateTime) -> Option<DateTime> {
    wall.with().second(0).subsec_nanosecond(0).build().ok()
}

#[cfg(test)]
mod tests;
