//! The controller of Builds. A reconcile reads as its five steps: load what is known, validate the
//! spec (a refusal is a value), plan (pure), apply the plan to Postgres, report the newest row as
//! the status. No finalizer: a deletion is seen by the watch at once, and by the sweep later.

pub mod apply;
pub mod load;
pub mod plan;
pub mod report;
pub mod validate;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use image_factory_core::reason::Reason;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::{Action, Config},
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{crd::Build, db, runtime::Context};

/// An object that can't be read as a Build stops nothing but itself.
pub type Guarded = DeserializeGuard<Build>;

/// Reconciles that may run at once; below the size of the pool.
const CONCURRENCY: u16 = 16;
const RETRY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub struct Controlled {
    pub context: Context,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("failed to read the Build: {0}")]
    Unreadable(String),
    #[error("failed to find namespace {0} in the watch of namespaces")]
    NamespaceUnknown(String),
    #[error("failed to write the spec as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the reconcile panicked")]
    Panicked,
}

/// Runs until `stop`. `changed` names Builds whose rows have changed.
pub async fn run(
    controlled: Arc<Controlled>,
    changed: mpsc::UnboundedReceiver<(String, String)>,
    stop: CancellationToken,
) {
    let api: Api<Guarded> = Api::all(controlled.context.streams.clone());
    let (store, writer) = reflector::store();
    let deletions = controlled.clone();
    let objects = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(forget_managed_fields)
        .reflect(writer)
        .then(move |event| {
            let controlled = deletions.clone();
            async move {
                if let Ok(watcher::Event::Delete(build)) = &event {
                    deleted(&controlled, build).await;
                }
                event
            }
        })
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            kube::runtime::PredicateConfig::default(),
        );
    let wakes = futures::stream::unfold(changed, |mut changed| async {
        let (namespace, name) = changed.recv().await?;
        Some((ObjectRef::new(&name).within(&namespace), changed))
    });
    Controller::for_stream(objects, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, controlled)
        .for_each(|_| futures::future::ready(()))
        .await;
}

/// Nobody reads them from the store, and they are the larger part of many objects.
fn forget_managed_fields(build: &mut Guarded) {
    if let Ok(build) = &mut build.0 {
        build.metadata.managed_fields = None;
    }
}

/// A panic in one reconcile is that object's error, not the operator's end.
async fn reconcile(build: Arc<Guarded>, controlled: Arc<Controlled>) -> Result<Action, Error> {
    AssertUnwindSafe(reconcile_build(build, controlled)).catch_unwind().await.unwrap_or(Err(Error::Panicked))
}

async fn reconcile_build(build: Arc<Guarded>, controlled: Arc<Controlled>) -> Result<Action, Error> {
    let build = match &build.0 {
        Ok(build) => build,
        Err(error) => return Err(Error::Unreadable(error.error.clone())),
    };
    let loaded = load::load(&controlled, build).await?;
    let refused = validate::refusal(&build.spec, &loaded.namespace, &controlled.context.jobs);
    let plan = plan::plan(&plan::Desired::of(build)?, loaded.newest.as_ref());
    let newest = apply::apply(&controlled, build, &loaded, plan, refused).await?;
    report::report(&controlled.context, build, newest.as_ref()).await?;
    // A change of the rows wakes this; the timer is for the message that was lost.
    let live = newest.is_some_and(|newest| !newest.status.is_terminal());
    Ok(if live { Action::requeue(LOOK_AGAIN) } else { Action::await_change() })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(build: Arc<Guarded>, error: &Error, controlled: Arc<Controlled>) -> Action {
    tracing::warn!(build.namespace = build.namespace(), build.name = build.name_any(), %error, "a Build could not be reconciled");
    controlled.context.metrics.failed("build");
    match error {
        // It is read again when it changes.
        Error::Unreadable(_) => Action::await_change(),
        _ => Action::requeue(RETRY),
    }
}

/// A deleted Build cancels what of it is live; a failure here is made good by the sweep.
async fn deleted(controlled: &Controlled, build: &Guarded) {
    let uid = match &build.0 {
        Ok(build) => build.uid(),
        Err(error) => error.metadata.uid.clone(),
    };
    let Some(uid) = uid else { return };
    let cancelled =
        db::builds::request_cancel(&controlled.context.pool, &uid, Reason::Deleted, "the Build was deleted").await;
    if let Err(error) = cancelled {
        tracing::warn!(build.name = build.name_any(), %error, "a deleted Build could not be cancelled; the sweep will do it");
        controlled.context.metrics.failed("build");
    }
}
