//! Makes the Builds of schedules. A time that has come is taken as a row, in the transaction that moves its schedule
//! on; then its Build is made under the slot's name. So two operators, or a clock that jumps, take no slot twice, and
//! whoever comes after a crash finds what is left to make. The clock is the database's.
//!
//! A round decides from the BuildSchedule as the API server has it, never from a cache or from the row alone.

pub mod build;
mod busy;
mod make;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use image_factory_core::schedule::{Due, Schedule};
use jiff::Timestamp;
use kube::{
    Api,
    runtime::events::{Event, EventType},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    crd::BuildSchedule,
    db::{
        schedules::{self, Owner},
        slots,
    },
    kube_ext,
    runtime::Context,
};

/// Between two rounds at most: a message may be lost, and the clock set.
const BEAT: Duration = Duration::from_secs(30);
/// Between two rounds at least, where something is overdue and waits for another.
const PAUSE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
const BATCH: i64 = 500;
/// Schedules that act at once; below the size of the pool.
const CONCURRENCY: usize = 8;

/// Runs until `stop`; woken by `wake`, and when the next time comes.
pub async fn run(context: Context, wake: Arc<Notify>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            let pause = match turn(&context).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "schedules could not be looked at; it is tried again");
                    context.metrics.failed("scheduler");
                    RETRY
                }
            };
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    })
    .await;
}

/// A round, and how long until the next.
async fn turn(context: &Context) -> Result<Duration, Error> {
    round(context, schedules::now(&context.pool).await?).await?;
    let now = schedules::now(&context.pool).await?;
    let next = schedules::next_turn(&context.pool).await?;
    let until = next.map_or(BEAT, |next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
    Ok(if until.is_zero() { PAUSE } else { until.min(BEAT) })
}

/// Takes every slot that is due at `now`, then those that are asked for now, and makes their Builds.
///
/// # Errors
/// When the rows can't be had. What goes wrong with one schedule holds up no other.
pub async fn round(context: &Context, now: Timestamp) -> Result<(), Error> {
    let due = stream::iter(schedules::due(&context.pool, now, BATCH).await?);
    due.for_each_concurrent(CONCURRENCY, async |due| {
        if let Err(error) = guarded(context, take(context, &due, now)).await {
            say(context, &due.owner, &error);
        }
    })
    .await;
    make::all(context, now).await?;
    // After the expression's own: what is asked for now takes no minute away from it.
    let asked = schedules::asked(&context.pool, BATCH).await?;
    for one in &asked {
        match slots::take_now(&context.pool, one, now).await {
            Ok(Some(_)) => {}
            Ok(None) => tracing::warn!(schedule = one.owner.name, "a Build asked for now found no free minute"),
            Err(error) => say(context, &one.owner, &error.into()),
        }
    }
    if !asked.is_empty() {
        make::all(context, now).await?;
    }
    Ok(())
}

/// A panic over one schedule is its error, not the operator's end.
async fn guarded(context: &Context, act: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    AssertUnwindSafe(act).catch_unwind().await.unwrap_or_else(|_| {
        context.metrics.panicked("scheduler");
        Err(Error::Panicked)
    })
}

fn say(context: &Context, owner: &Owner, error: &Error) {
    let Owner { namespace, name, .. } = owner;
    tracing::warn!(schedule.namespace = namespace, schedule.name = name, %error, "a schedule could not act; it is tried again");
    context.metrics.failed("scheduler");
}

/// The BuildSchedule that a row is of, as it is now.
async fn live(context: &Context, owner: &Owner) -> Result<Option<BuildSchedule>, kube::Error> {
    let api: Api<BuildSchedule> = Api::namespaced(context.client.clone(), &owner.namespace);
    Ok(api.get_opt(&owner.name).await?.filter(|found| found.metadata.uid.as_ref() == Some(&owner.uid)))
}

async fn take(context: &Context, due: &schedules::Due, now: Timestamp) -> Result<(), Error> {
    let Some(found) = live(context, &due.owner).await? else {
        schedules::retire(&context.pool, &due.owner.uid).await?;
        return Ok(());
    };
    let spec = &found.spec;
    let readable = Schedule::new(&spec.cron, spec.timezone.as_deref());
    let (Ok(schedule), true, false) = (readable, found.metadata.generation == Some(due.generation), spec.suspend)
    else {
        // The row is of an older specification: the controller has not brought it in line yet.
        schedules::wake(&context.pool, &due.owner.namespace, &due.owner.name).await?;
        return Ok(());
    };
    let next = schedule.next_after(now);
    match schedule.due(due.planned, now, spec.starting_deadline()) {
        Due::NotYet => {}
        Due::Nothing => {
            slots::take(&context.pool, due, None, None, next).await?;
        }
        Due::Slot(slot) => {
            if slots::take(&context.pool, due, Some(slot), None, next).await?.is_none() {
                tracing::info!(schedule = due.owner.name, %slot, "a slot was taken before");
            }
        }
        Due::TooLate(slot) => {
            let why = make::too_late(slot, &found);
            if slots::take(&context.pool, due, Some(slot), Some(&why), next).await?.is_some() {
                tell(context, &found, EventType::Warning, "MissedDeadline", &why, slot).await;
            }
        }
    }
    Ok(())
}

/// An Event about a schedule and one of its slots.
async fn tell(
    context: &Context,
    schedule: &BuildSchedule,
    type_: EventType,
    reason: &str,
    note: &str,
    slot: Timestamp,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(kube_ext::event_note(note)),
        // Events that agree in all but their note are folded into the first: each slot has its own.
        action: format!("Slot{}", slot.as_second().div_euclid(60)),
        secondary: None,
    };
    context.publish(schedule, &event).await;
}
