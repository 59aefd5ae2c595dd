//! The controller of Builds. A reconcile reads as its steps: plan from what the watch and the rows say
//! (pure); where something is to be done, load it live, validate it (a refusal is a value), plan again
//! and apply the plan to Postgres; report the newest row as the status. No finalizer: a deletion is
//! seen by the watch at once, and by the sweep later.

pub mod apply;
pub mod deleted;
pub mod load;
pub mod pace;
pub mod plan;
pub mod queue;
pub mod report;
pub mod set_aside;
pub mod text;
pub mod told;
pub mod validate;
pub mod watched;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use image_factory_core::status::Status;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{
    pace::Pace,
    plan::{Desired, Plan},
    report::Reported,
    set_aside::SetAside,
    watched::{Guarded, Watched},
};
use crate::{
    clock,
    db::{
        self,
        builds::{self, Newest},
        together::Together,
    },
    kube_ext,
    runtime::{Context, health::Watch},
};

/// Reconciles that may run at once; below the size of the pool.
const CONCURRENCY: u16 = 16;
const RETRY: Duration = Duration::from_secs(5);
/// By then the watch has brought what a report had not seen.
const AGAIN: Duration = Duration::from_millis(500);
/// By then a run that need not wait has been claimed: its first status says where it runs, and costs one write.
pub const SETTLED: Duration = Duration::from_millis(100);

pub struct Controlled {
    pub context: Context,
    pub set_aside: SetAside,
    newests: Together<String, Newest>,
    pub pace: Pace,
}

impl Controlled {
    pub fn new(context: Context) -> Self {
        Self { context, set_aside: SetAside::default(), newests: Together::default(), pace: Pace::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("failed to write the spec as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the reconcile panicked")]
    Panicked,
}

/// Runs until `stop`. `changed` names Builds whose rows have changed.
pub async fn run(context: Context, changed: mpsc::UnboundedReceiver<(String, String)>, stop: CancellationToken) {
    let controlled = Arc::new(Controlled::new(context.clone()));
    let api: Api<Guarded> = Api::all(context.watching(Watch::Builds));
    let (store, writer) = reflector::store();
    let (gone, deletions) = mpsc::unbounded_channel();
    let (seen, again) = (controlled.clone(), gone.clone());
    let objects = watcher(api, watcher::Config::default().page_size(kube_ext::BUILDS))
        .default_backoff()
        // What could not be read has kept its metadata whole.
        .modify(|build| watched::forget_the_rest(build.meta_mut()))
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::InitDone) => seen.context.health.synced(Watch::Builds),
            Ok(watcher::Event::Delete(build)) => {
                let uid = build.uid().unwrap_or_default();
                seen.set_aside.forget(&uid);
                // Its receiver lives as long as this stream.
                let _ = gone.send(uid);
            }
            _ => {}
        })
        .applied_objects()
        .predicate_filter(watched::asked, kube::runtime::PredicateConfig::default());
    let wakes = futures::stream::unfold(changed, |mut changed| async {
        let (namespace, name) = changed.recv().await?;
        Some((ObjectRef::new(&name).within(&namespace), changed))
    });
    let (stale, told_wrong) = mpsc::unbounded_channel();
    let told_wrong = futures::stream::unfold(told_wrong, |mut stale| async { Some((stale.recv().await?, stale)) });
    let reconciles = Controller::for_stream(objects, store.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .reconcile_on(told_wrong)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, controlled)
        .for_each(|_| futures::future::ready(()));
    tokio::select! {
        () = reconciles => {}
        () = deleted::cancel(&context, again, deletions) => {}
        () = queue::watch(&context, store, stale) => {}
    }
}

/// A panic in one reconcile is that object's error, not the operator's end.
pub async fn reconcile(build: Arc<Guarded>, controlled: Arc<Controlled>) -> Result<Action, Error> {
    if controlled.set_aside.holds(&build) {
        return Ok(Action::await_change());
    }
    let outcome = controlled.set_aside.guard(&build, reconcile_build(&build, &controlled)).await;
    outcome.unwrap_or(Err(Error::Panicked))
}

async fn reconcile_build(build: &Guarded, controlled: &Controlled) -> Result<Action, Error> {
    let Controlled { context, newests, pace, .. } = controlled;
    let watched = match &build.0 {
        Ok(watched) => watched,
        Err(error) => {
            tracing::warn!(build.namespace = build.namespace(), build.name = build.name_any(), %error, "a Build can't be read");
            report::unreadable(context, build, &error.error).await;
            return Ok(Action::await_change());
        }
    };
    let pool = &context.pool;
    let uid = watched.uid().unwrap_or_default();
    let newest = newests.read(&uid, async |uids| builds::newest_of(pool, &uids).await).await?;
    let (newest, reported) = if plan::plan(&watched.desired, newest.as_ref()) == Plan::Nothing {
        let reported = report::report(context, pace, watched, newest.as_ref()).await?;
        (newest, reported)
    } else {
        let Some(live) = load::live(&context.client, watched).await? else {
            // Deleted meanwhile: the watch brings that.
            return Ok(Action::await_change());
        };
        let refused =
            text::refusal(&live.build)?.or_else(|| validate::refusal(&live.build.spec, &live.namespace, &context.jobs));
        let plan = plan::plan(&Desired::of(&live.build)?, newest.as_ref());
        apply::apply(context, &live, newest.as_ref(), plan, refused).await?;
        let newest = match plan {
            Plan::Nothing => newest,
            Plan::NewRun { .. } => return Ok(Action::requeue(SETTLED)),
            Plan::Cancel | Plan::Amend => builds::newest(pool, &uid).await?,
        };
        let reported = report::report(context, pace, &Watched::try_from(live.build)?, newest.as_ref()).await?;
        (newest, reported)
    };
    if reported == Reported::Overtaken {
        return Ok(Action::requeue(AGAIN));
    }
    // A change of the rows wakes this; the timer is for the message that was lost, and for the steps, of whose moves
    // nobody tells. What waits is woken by looks at the queue.
    Ok(match newest.map(|newest| newest.status) {
        Some(Status::InProgress) => Action::requeue(pace::until_the_next_look(clock::now())),
        Some(Status::Queued | Status::Success | Status::Failed | Status::Cancelled) | None => Action::await_change(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(build: Arc<Guarded>, error: &Error, controlled: Arc<Controlled>) -> Action {
    let (namespace, name) = (build.namespace(), build.name_any());
    let metrics = &controlled.context.metrics;
    metrics.failed("build");
    if matches!(error, Error::Panicked) {
        metrics.panicked("build");
        if controlled.set_aside.holds(&build) {
            tracing::error!(build.namespace = namespace, build.name = name, "a Build is set aside until it changes");
            return Action::await_change();
        }
    }
    tracing::warn!(build.namespace = namespace, build.name = name, %error, "a Build could not be reconciled");
    Action::requeue(RETRY)
}
