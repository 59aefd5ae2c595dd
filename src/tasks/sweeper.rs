//! Compares live attempts with a fresh list of the Builds that exist: one whose Build was deleted
//! while no operator watched is cancelled, after a look of its own.

use std::collections::HashSet;

use image_factory_core::reason::Reason;
use kube::{Api, ResourceExt, api::ListParams};

use super::Error;
use crate::{
    crd::Build,
    db::builds::{self, Resource},
    runtime::Context,
};

pub async fn sweep(context: Context) -> Result<(), Error> {
    let live = builds::live_resources(&context.pool).await?;
    if live.is_empty() {
        return Ok(());
    }
    let listed = Api::<Build>::all(context.client.clone()).list_metadata(&ListParams::default()).await?;
    let existing: HashSet<String> = listed.iter().filter_map(ResourceExt::uid).collect();
    for resource in live.iter().filter(|resource| !existing.contains(&resource.uid)) {
        if let Err(error) = cancel_if_gone(&context, resource).await {
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
