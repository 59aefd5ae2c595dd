//! Makes the Build of each slot that was taken and has none. Whatever may have happened before, a crash after the Build
//! was made too, the slot ends as made, skipped or failed, and its Build is there once: it is looked for before a slot is
//! given up, and one of its name is the slot's own only if it says so.

use futures::{StreamExt, stream};
use image_factory_core::schedule::{Schedule, is_too_late};
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt, api::PostParams, runtime::events::EventType};

use super::{
    BATCH, CONCURRENCY, build,
    busy::{self, Busy},
    guarded, live, say, tell,
};
use crate::{
    crd::{Build, BuildSchedule, build_schedule::ConcurrencyPolicy},
    db::{
        schedules,
        slots::{self, Outcome, Pending},
    },
    failpoint,
    runtime::Context,
    tasks::Error,
};

/// Until another look at what has not ended, and after a request that got no answer.
const AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// After a refusal; twice as long after each further one.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(10);
const LAST_RETRY: SignedDuration = SignedDuration::from_mins(5);

/// Makes what can be made at `now`: each schedule's in their order.
pub async fn all(context: &Context, now: Timestamp) -> Result<(), Error> {
    let pending = slots::pending(&context.pool, now, BATCH).await?;
    let of_schedules: Vec<Vec<Pending>> =
        pending.chunk_by(|one, next| one.schedule == next.schedule).map(<[Pending]>::to_vec).collect();
    stream::iter(of_schedules)
        .for_each_concurrent(CONCURRENCY, async |slots| {
            for slot in slots {
                if let Err(error) = guarded(context, one(context, &slot, now)).await {
                    put_off(context, &slot, &error, now).await;
                }
            }
        })
        .await;
    Ok(())
}

async fn put_off(context: &Context, slot: &Pending, error: &Error, now: Timestamp) {
    if let Some(owner) = &slot.owner {
        say(context, owner, error);
    }
    let why = slot.message.clone().unwrap_or_else(|| error.to_string());
    if let Err(error) = slots::put_off(&context.pool, slot.id, &why, false, now + AGAIN).await {
        // It is tried again all the same, with the next round.
        tracing::warn!(%error, "why a slot's Build is not made yet could not be written");
    }
}

/// What keeps a slot from having a Build.
enum Hindrance {
    /// For good: reason of the Event, and the outcome.
    Ends(&'static str, Outcome),
    /// For now.
    Waits(String),
}

async fn one(context: &Context, slot: &Pending, now: Timestamp) -> Result<(), Error> {
    let settle = async |outcome: &Outcome| slots::settle(&context.pool, slot.id, outcome, now).await;
    if slot.queued {
        settle(&Outcome::Made).await?;
        return Ok(());
    }
    let found = match &slot.owner {
        Some(owner) => live(context, owner).await?,
        None => None,
    };
    let Some(schedule) = found else {
        if let Some(owner) = &slot.owner {
            schedules::retire(&context.pool, &owner.uid).await?;
        }
        settle(&Outcome::Failed("its BuildSchedule was deleted".to_owned())).await?;
        return Ok(());
    };
    let namespace = schedule.namespace().unwrap_or_default();
    match hindrance(context, &schedule, slot, now).await? {
        None => make(context, &schedule, slot, now).await,
        // Made by an operator that died before it could write that.
        Some(_) if busy::exists(context, &namespace, &slot.build, slot.id).await? => {
            settle(&Outcome::Made).await?;
            Ok(())
        }
        Some(Hindrance::Waits(why)) => {
            slots::put_off(&context.pool, slot.id, &why, false, now + AGAIN).await?;
            Ok(())
        }
        Some(Hindrance::Ends(reason, outcome)) => {
            if settle(&outcome).await?
                && let Outcome::Skipped(why) | Outcome::Failed(why) = &outcome
            {
                tell(context, &schedule, EventType::Warning, reason, why, slot.slot).await;
            }
            Ok(())
        }
    }
}

async fn hindrance(
    context: &Context,
    schedule: &BuildSchedule,
    slot: &Pending,
    now: Timestamp,
) -> Result<Option<Hindrance>, Error> {
    let spec = &schedule.spec;
    let skips = |reason, why: String| Ok(Some(Hindrance::Ends(reason, Outcome::Skipped(why))));
    if slot.overtaken {
        let before = slot.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let why = format!("{} was not made before the next time came{before}", slot.build);
        return Ok(Some(Hindrance::Ends("NotMade", Outcome::Failed(why))));
    }
    if !slot.run_now {
        if spec.suspend {
            return skips("Suspended", format!("{} is not made: spec.suspend is true", slot.build));
        }
        if is_too_late(slot.slot, now, spec.starting_deadline()) {
            return skips("MissedDeadline", too_late(slot.slot, schedule));
        }
    }
    if let Err(invalid) = Schedule::new(&spec.cron, spec.timezone.as_deref()) {
        return skips("Invalid", format!("{} is not made: {invalid}", slot.build));
    }
    if spec.concurrency_policy == ConcurrencyPolicy::Allow {
        return Ok(None);
    }
    let busy = Busy::before(context, &schedule.namespace().unwrap_or_default(), slot).await?;
    let Some(unended) = busy.one() else { return Ok(None) };
    if spec.concurrency_policy == ConcurrencyPolicy::Forbid {
        let why = format!("{} is not made: {unended} has not ended (concurrencyPolicy Forbid)", slot.build);
        return skips("Forbidden", why);
    }
    busy.stop(context, &slot.build).await?;
    Ok(Some(Hindrance::Waits(format!("{} waits until {unended} has ended", slot.build))))
}

/// Why a slot was passed over that was missed for too long.
pub fn too_late(slot: Timestamp, schedule: &BuildSchedule) -> String {
    let seconds = schedule.spec.starting_deadline_seconds.unwrap_or_default();
    format!("the Build of {slot} is not made: that was more than {seconds} s ago (startingDeadlineSeconds)")
}

async fn make(context: &Context, schedule: &BuildSchedule, slot: &Pending, now: Timestamp) -> Result<(), Error> {
    let namespace = schedule.namespace().unwrap_or_default();
    let api: Api<Build> = Api::namespaced(context.client.clone(), &namespace);
    failpoint::request("schedule.before-create")?;
    let made = api.create(&PostParams::default(), &build::build(schedule, &slot.build, slot.id)).await;
    failpoint::request("schedule.after-create")?;
    let outcome = match made {
        Ok(_) => Outcome::Made,
        Err(kube::Error::Api(error)) if error.code == 409 && error.reason == "AlreadyExists" => {
            if busy::exists(context, &namespace, &slot.build, slot.id).await? {
                Outcome::Made
            } else {
                Outcome::Failed(format!(
                    "{} was not made: another Build has that name; delete or rename it",
                    slot.build
                ))
            }
        }
        Err(kube::Error::Api(error)) if is_refusal(error.code) => {
            return refused(context, schedule, slot, &error.message, now).await;
        }
        Err(error) => return Err(error.into()),
    };
    if !slots::settle(&context.pool, slot.id, &outcome, now).await? {
        return Ok(());
    }
    match &outcome {
        Outcome::Made => {
            tracing::info!(
                schedule.namespace = namespace,
                schedule.name = schedule.name_any(),
                build.name = slot.build,
                "a schedule made a Build"
            );
            let note = format!("{} was made for {}", slot.build, slot.slot);
            tell(context, schedule, EventType::Normal, "Made", &note, slot.slot).await;
        }
        Outcome::Failed(why) | Outcome::Skipped(why) => {
            tell(context, schedule, EventType::Warning, "NameTaken", why, slot.slot).await;
        }
    }
    Ok(())
}

/// Whether the API server has judged, and not only been unable to: a quota, a policy, a rule of the API.
const fn is_refusal(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 408 | 429)
}

/// A quota may have room again, a policy change: it is tried again until the next time comes.
async fn refused(
    context: &Context,
    schedule: &BuildSchedule,
    slot: &Pending,
    message: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let why = format!("{} was refused: {message}", slot.build);
    slots::put_off(&context.pool, slot.id, &why, true, now + backoff(slot.tries)).await?;
    if slot.message.as_ref() != Some(&why) {
        tell(context, schedule, EventType::Warning, "Refused", &why, slot.slot).await;
    }
    Ok(())
}

fn backoff(tries: i32) -> SignedDuration {
    let doublings = tries.clamp(0, 10).cast_unsigned();
    (FIRST_RETRY * 2_i32.pow(doublings)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_build_is_tried_again_after_ten_seconds_and_at_last_every_five_minutes() {
        let seconds: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, i32::MAX].map(|tries| backoff(tries).as_secs()).to_vec();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn an_answer_that_judges_is_a_refusal_and_one_that_could_not_is_none() {
        for (code, refusal) in
            [(400, true), (403, true), (422, true), (404, true), (408, false), (429, false), (500, false), (503, false)]
        {
            assert_eq!(is_refusal(code), refusal, "{code}");
        }
    }
}
