//! The controller of BuildSchedules. A reconcile reads as its steps: load the schedule and its row, validate (a
//! refusal is a value), plan (pure), apply the plan to the row, report the row as the status. The watch keeps only
//! that a schedule is there and what it asks for; its Builds are made by the scheduler, which reads the rows.

mod gone;
pub mod load;
pub mod plan;
pub mod report;
pub mod validate;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use image_factory_core::labels;
use kube::{
    Api, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::plan::Plan;
use crate::{
    crd::BuildSchedule,
    db::{self, schedules},
    kube_ext,
    runtime::{Context, health::Watch},
};

/// What the watch keeps.
pub type Watched = PartialObjectMeta<BuildSchedule>;

/// Reconciles that may run at once; below the size of the pool.
const CONCURRENCY: u16 = 4;
const RETRY: Duration = Duration::from_secs(5);
/// A lost message is made good, and a clock that was set.
const LOOK: Duration = Duration::from_mins(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("failed to write the template as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the reconcile panicked")]
    Panicked,
}

/// Runs until `stop`. `changed` names schedules whose rows have changed.
pub async fn run(context: Context, changed: mpsc::UnboundedReceiver<(String, String)>, stop: CancellationToken) {
    let api: Api<Watched> = Api::all(context.watching(Watch::Schedules));
    let (store, writer) = reflector::store();
    let (deleted, deletions) = mpsc::unbounded_channel();
    let (listed, lists) = mpsc::unbounded_channel();
    let health = context.health.clone();
    let objects = watcher(api, watcher::Config::default().page_size(kube_ext::BUILDS))
        .default_backoff()
        .modify(forget_the_rest)
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::InitDone) => {
                health.synced(Watch::Schedules);
                // Its receiver lives as long as this stream, as the other's.
                let _ = listed.send(());
            }
            Ok(watcher::Event::Delete(schedule)) => {
                let _ = deleted.send(gone::owner(schedule));
            }
            _ => {}
        })
        .applied_objects()
        .predicate_filter(asked, kube::runtime::PredicateConfig::default());
    let wakes = futures::stream::unfold(changed, |mut changed| async {
        let (namespace, name) = changed.recv().await?;
        Some((ObjectRef::new(&name).within(&namespace), changed))
    });
    let reconciles = Controller::for_stream(objects, store.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, Arc::new(context.clone()))
        .for_each(|_| futures::future::ready(()));
    tokio::select! {
        () = reconciles => {}
        () = gone::retire(&context, &store, lists, deletions) => {}
    }
}

/// Leaves what identifies an object, and what it asks for beside its specification.
fn forget_the_rest(watched: &mut Watched) {
    let metadata = watched.meta_mut();
    metadata.managed_fields = None;
    metadata.labels = None;
    metadata.annotations.iter_mut().for_each(|annotations| annotations.retain(|key, _| key == labels::RUN_NOW));
}

/// Changes exactly when a person has asked for something else, not with the status.
#[expect(clippy::unnecessary_wraps, reason = "the signature is kube's")]
fn asked(watched: &Watched) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let metadata = watched.meta();
    (&metadata.uid, metadata.generation, watched.annotations().get(labels::RUN_NOW)).hash(&mut hasher);
    Some(hasher.finish())
}

/// A panic in one reconcile is that object's error, not the operator's end.
///
/// # Errors
/// When something could not be found out or done; it is tried again.
pub async fn reconcile(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, Error> {
    let outcome = AssertUnwindSafe(reconcile_schedule(&watched, &context)).catch_unwind().await;
    outcome.unwrap_or(Err(Error::Panicked))
}

async fn reconcile_schedule(watched: &Watched, context: &Context) -> Result<Action, Error> {
    let Some(load::Live { schedule, namespace, stored, now }) = load::live(context, watched).await? else {
        // Deleted meanwhile: the watch brings that.
        return Ok(Action::await_change());
    };
    let valid = validate::validate(&schedule);
    let declared = plan::declared(&schedule, &namespace, valid.is_ok())?;
    let stored = match plan::plan(&declared, valid.as_ref().ok(), stored.as_ref(), now) {
        Plan::Nothing => stored,
        Plan::Declare { next } => {
            if !schedules::declare(&context.pool, &declared, stored.as_ref(), next).await? {
                // The scheduler has moved it on just now, or another knows a newer one.
                return Ok(Action::requeue(Duration::from_secs(1)));
            }
            schedules::stored(&context.pool, &namespace.uid, &declared.name).await?
        }
    };
    report::report(context, &schedule, &valid, stored.as_ref(), now).await?;
    Ok(Action::requeue(LOOK))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(watched: Arc<Watched>, error: &Error, context: Arc<Context>) -> Action {
    let (namespace, name) = (watched.namespace(), watched.name_any());
    tracing::warn!(schedule.namespace = namespace, schedule.name = name, %error, "a schedule could not be reconciled");
    context.metrics.failed("schedules");
    match error {
        // Nothing but a change of it helps; what changes is seen.
        Error::Panicked => {
            context.metrics.panicked("schedules");
            Action::requeue(LOOK)
        }
        Error::Kube(kube::Error::SerdeError(_)) => Action::requeue(LOOK),
        _ => Action::requeue(RETRY),
    }
}
