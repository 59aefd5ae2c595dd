//! Compares the rows with fresh lists of what exists. A live attempt whose Build was deleted while no operator watched
//! is cancelled, and a Job that no attempt needs any more is deleted; each after a look of its own. An attempt whose Job
//! is gone is the collector's: it looks for those every few seconds.

mod leftovers;

use image_factory_core::reason::Reason;
use kube::{Api, ResourceExt};

use super::Error;
use crate::{
    crd::Build,
    db::builds::{self, Resource},
    kube_ext,
    runtime::Context,
};

pub async fn sweep(context: Context) -> Result<(), Error> {
    let (builds, jobs) = tokio::join!(cancel_orphans(&context), leftovers::delete(&context));
    builds.and(jobs)
}

async fn cancel_orphans(context: &Context) -> Result<(), Error> {
    let live = builds::live_resources(&context.pool).await?;
    if live.is_empty() {
        return Ok(());
    }
    let existing = kube_ext::uids_of_builds(&context.client).await?;
    for resource in live.iter().filter(|resource| !existing.contains(&resource.uid)) {
        if let Err(error) = cancel_if_gone(context, resource).await {
            // The others are not held up by it.
            tracing::warn!(build.namespace = resource.namespace, build.name = resource.name, %error, "a Build could not be swept");
            context.metrics.failed("sweeper");
        }
    }
    Ok(())
}

async fn cancel_if_gone(context: &Context, resource: &Resource) -> Result<(), Error> {
    let api: Api<Build> = Api::namespaced(context.client.clone(), &resource.namespace);
    let found = api.get_metadata_opt(&resource.name).await?;
    if found.and_then(|build| build.uid()).is_some_and(|uid| uid == resource.uid) {
        return Ok(());
    }
    let sentence = "the Build was deleted while no operator watched";
    let cancelled = builds::request_cancel(&context.pool, &resource.uid, Reason::Deleted, sentence).await?;
    tracing::info!(
        build.namespace = resource.namespace,
        build.name = resource.name,
        cancelled,
        "a deleted Build was swept"
    );
    Ok(())
}
