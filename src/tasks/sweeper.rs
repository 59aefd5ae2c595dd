//! Compares live attempts with the Builds that exist: one whose Build was deleted while no operator
//! watched is cancelled. Each is looked up by itself first; nothing is decided from a cache.

use image_factory_core::reason::Reason;
use kube::{Api, ResourceExt};

use super::Error;
use crate::{crd::Build, db::builds, runtime::Context};

pub async fn sweep(context: Context) -> Result<(), Error> {
    for resource in builds::live_resources(&context.pool).await? {
        let api: Api<Build> = Api::namespaced(context.client.clone(), &resource.namespace);
        let found = api.get_metadata_opt(&resource.name).await?;
        if found.and_then(|build| build.uid()).is_none_or(|uid| uid != resource.uid) {
            let cancelled = builds::request_cancel(
                &context.pool,
                &resource.uid,
                Reason::Deleted,
                "the Build was deleted while no operator watched",
            )
            .await?;
            tracing::info!(build.namespace = resource.namespace, build.name = resource.name, cancelled, "a deleted Build was swept");
        }
    }
    Ok(())
}
