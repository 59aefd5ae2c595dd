//! What a reconcile writes: the row as the schedule asks for it, and when it acts next. Pure.
//!
//! The next time is the scheduler's: it is set anew only where the schedule asks for other times, acts again after it
//! did not, or where the row is further ahead than the clock allows, because that had been wrong. A time that is over
//! is left: it is due.

use image_factory_core::{labels, schedule::Schedule, storable};
use jiff::Timestamp;
use kube::ResourceExt;

use super::load::Namespace;
use crate::{
    crd::BuildSchedule,
    db::schedules::{Declared, Stored},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Write the row, to act next then; `None` for never.
    Declare { next: Option<Timestamp> },
    /// The row is as the schedule asks.
    Nothing,
}

/// # Errors
/// When the template can't be written as JSON.
pub fn declared(schedule: &BuildSchedule, namespace: &Namespace, valid: bool) -> serde_json::Result<Declared> {
    let spec = &schedule.spec;
    Ok(Declared {
        tenant_uid: namespace.uid.clone(),
        tenant_name: namespace.name.clone(),
        project: spec.template.spec.project.clone(),
        name: schedule.name_any(),
        uid: schedule.uid().unwrap_or_default(),
        generation: schedule.metadata.generation.unwrap_or_default(),
        cron: storable::text(&spec.cron),
        timezone: storable::text(spec.timezone.as_deref().unwrap_or("UTC")),
        method: spec.template.spec.method,
        preset: storable::json(serde_json::to_value(&spec.template)?),
        branch: spec.branch.as_deref().map(storable::text),
        active: valid && !spec.suspend,
        // One that can't be made asks for nothing, until it can.
        run_now: schedule.annotations().get(labels::RUN_NOW).filter(|_| valid).map(|value| storable::text(value)),
    })
}

/// `schedule`: how it reads, where it can act at all.
pub fn plan(declared: &Declared, schedule: Option<&Schedule>, stored: Option<&Stored>, now: Timestamp) -> Plan {
    let from_now = || schedule.filter(|_| declared.active).and_then(|schedule| schedule.next_after(now));
    let Some(stored) = stored else { return Plan::Declare { next: from_now() } };
    let Stored { uid, generation, cron, timezone, active, run_now, next_trigger_at, .. } = stored;
    if uid.as_ref() == Some(&declared.uid) && *generation > declared.generation {
        // Somebody has read a newer one.
        return Plan::Nothing;
    }
    let same_times = uid.as_ref() == Some(&declared.uid)
        && *cron == declared.cron
        && *timezone == declared.timezone
        && *active == declared.active;
    let next = if same_times && next_trigger_at.is_none_or(|next| Some(next) <= from_now()) {
        // Also one without a time: its calendar is at its end, or it does not act.
        next_trigger_at.or_else(from_now)
    } else {
        from_now()
    };
    let is_as_asked =
        same_times && *generation == declared.generation && *run_now == declared.run_now && *next_trigger_at == next;
    if is_as_asked { Plan::Nothing } else { Plan::Declare { next } }
}

#[cfg(test)]
mod tests {
    use image_factory_core::method::Method;
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-27T{text}Z").parse().unwrap()
    }

    fn asked() -> Declared {
        Declared {
            tenant_uid: "t".to_owned(),
            tenant_name: "orchard".to_owned(),
            project: "default".to_owned(),
            name: "hourly".to_owned(),
            uid: "u".to_owned(),
            generation: 3,
            cron: "0 * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            method: Method::Container,
            preset: json!({}),
            branch: None,
            active: true,
            run_now: None,
        }
    }

    fn row(next: Option<Timestamp>) -> Stored {
        let Declared { uid, generation, cron, timezone, active, run_now, .. } = asked();
        Stored {
            uid: Some(uid),
            generation,
            cron,
            timezone,
            active,
            run_now,
            next_trigger_at: next,
            last_triggered_at: None,
            last_build: None,
        }
    }

    #[test]
    fn the_next_time_is_set_anew_only_where_it_has_to_be() {
        let (due, next, far) = (Some(at("09:00:00")), Some(at("12:00:00")), Some(at("15:00:00")));
        let set = |next| Plan::Declare { next };
        for (what, declared, stored, expected) in [
            ("new", asked(), None, set(next)),
            ("new and suspended", Declared { active: false, ..asked() }, None, set(None)),
            ("as asked", asked(), Some(row(next)), Plan::Nothing),
            ("as asked, and due", asked(), Some(row(due)), Plan::Nothing),
            ("too far ahead", asked(), Some(row(far)), set(next)),
            ("without a time", asked(), Some(row(None)), set(next)),
            ("another template", Declared { generation: 4, ..asked() }, Some(row(due)), set(due)),
            (
                "other times",
                Declared { cron: "30 * * * *".to_owned(), generation: 4, ..asked() },
                Some(row(due)),
                set(Some(at("11:30:00"))),
            ),
            (
                "another zone",
                Declared { timezone: "Asia/Tokyo".to_owned(), ..asked() },
                Some(row(due)),
                set(Some(at("11:30:00"))),
            ),
            ("suspended", Declared { active: false, generation: 4, ..asked() }, Some(row(next)), set(None)),
            ("acts again", asked(), Some(Stored { active: false, generation: 2, ..row(None) }), set(next)),
            (
                "taken up by name",
                asked(),
                Some(Stored { uid: None, active: false, generation: 9, ..row(None) }),
                set(next),
            ),
            ("another object", asked(), Some(Stored { uid: Some("old".to_owned()), ..row(due) }), set(next)),
            (
                "older than the row",
                asked(),
                Some(Stored { generation: 4, cron: "5 * * * *".to_owned(), ..row(due) }),
                Plan::Nothing,
            ),
            ("run now", Declared { run_now: Some("x".to_owned()), ..asked() }, Some(row(next)), set(next)),
        ] {
            let schedule = match what {
                "other times" | "another zone" => Schedule::new("30 * * * *", None),
                _ => Schedule::new("0 * * * *", None),
            };
            assert_eq!(plan(&declared, schedule.as_ref().ok(), stored.as_ref(), at("11:10:00")), expected, "{what}");
        }
        let invalid = Declared { active: false, cron: "x".to_owned(), ..asked() };
        assert_eq!(plan(&invalid, None, Some(&row(next)), at("11:10:00")), set(None));
    }
}
