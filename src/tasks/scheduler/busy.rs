//! Which Builds of a schedule have not ended: those whose newest attempt is queued or running, by the rows, and those
//! that were made and are not queued yet, of which only the API server knows. And the ending of those that can be.

use image_factory_core::reason::Reason;
use kube::Api;
use uuid::Uuid;

use super::build;
use crate::{
    crd::Build,
    db::{
        builds,
        slots::{self, Pending, Unended},
    },
    runtime::Context,
    tasks::Error,
};

pub struct Busy {
    /// Made, and not queued yet: they can't be cancelled before they are.
    pub unqueued: Vec<String>,
    pub unended: Vec<Unended>,
}

impl Busy {
    /// The Builds made for earlier slots of its schedule that keep this one from having its own. Not that itself: another
    /// operator may have made it just now.
    pub async fn before(context: &Context, namespace: &str, slot: &Pending) -> Result<Self, Error> {
        // In this order: one that is queued meanwhile is in the second list.
        let unqueued = slots::unqueued(&context.pool, slot.id).await?;
        let mut found = Vec::new();
        for one in unqueued {
            if exists(context, namespace, &one.build, one.id).await? {
                found.push(one.build);
            } else {
                slots::lost(&context.pool, one.id).await?;
            }
        }
        Ok(Self { unqueued: found, unended: slots::unended(&context.pool, slot.id).await? })
    }

    /// The first of them.
    pub fn one(&self) -> Option<&str> {
        self.unended.first().map(|build| build.name.as_str()).or(self.unqueued.first().map(String::as_str))
    }

    /// Asks those that are queued or run to stop.
    pub async fn stop(&self, context: &Context, for_build: &str) -> Result<(), Error> {
        for build in self.unended.iter().filter(|build| !build.stopping) {
            let sentence = format!("{for_build} takes its place (concurrencyPolicy Replace)");
            builds::request_cancel(&context.pool, &build.uid, Reason::Superseded, &sentence).await?;
        }
        Ok(())
    }
}

/// Whether the Build made for a slot is there.
pub async fn exists(context: &Context, namespace: &str, name: &str, slot: Uuid) -> Result<bool, kube::Error> {
    let api: Api<Build> = Api::namespaced(context.client.clone(), namespace);
    Ok(api.get_metadata_opt(name).await?.is_some_and(|found| build::is_of(&found, slot)))
}
