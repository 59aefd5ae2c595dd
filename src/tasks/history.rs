//! Deletes Builds of schedules that have ended, beyond what each schedule keeps. Their rows stay. Which have ended is
//! asked of the rows; each is looked at live before it goes, and only that very object is deleted.

use std::collections::BTreeMap;

use image_factory_core::{labels, retention};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt, api::DeleteParams, core::PartialObjectMeta};

use super::Error;
use crate::{
    crd::{Build, BuildSchedule},
    db::slots,
    kube_ext,
    runtime::Context,
};

/// Namespace and name of a BuildSchedule, and its UID.
type Owner = (String, String, String);

pub async fn prune(context: Context) -> Result<(), Error> {
    let mut made: BTreeMap<Owner, Vec<PartialObjectMeta<Build>>> = BTreeMap::new();
    let keep = |mut build: PartialObjectMeta<Build>| {
        let owner = owner(&build.metadata).filter(|_| is_deletable(&build.metadata))?;
        // What has been judged by now, and may be a whole spec.
        (build.metadata.annotations, build.metadata.managed_fields) = (None, None);
        Some((owner, build))
    };
    for (owner, build) in kube_ext::builds_labelled(&context.client, labels::SCHEDULE, keep).await? {
        made.entry(owner).or_default().push(build);
    }
    for (owner, builds) in made {
        if let Err(error) = prune_one(&context, &owner, &builds).await {
            // The others are not held up by it.
            let (namespace, name, _) = owner;
            tracing::warn!(schedule.namespace = namespace, schedule.name = name, %error, "old Builds of a schedule could not be deleted");
            context.metrics.failed("history");
        }
    }
    Ok(())
}

async fn prune_one(
    context: &Context,
    (namespace, name, uid): &Owner,
    builds: &[PartialObjectMeta<Build>],
) -> Result<(), Error> {
    let schedules: Api<BuildSchedule> = Api::namespaced(context.client.clone(), namespace);
    let found = schedules.get_opt(name).await?.filter(|schedule| schedule.uid().as_ref() == Some(uid));
    // Without their owner they go by themselves.
    let Some(schedule) = found else { return Ok(()) };
    let limits = schedule.spec.history();
    if builds.len() <= limits.successful.min(limits.failed) {
        return Ok(());
    }
    let uids: Vec<String> = builds.iter().filter_map(ResourceExt::uid).collect();
    let ended = slots::ended(&context.pool, &uids).await?;
    let surplus = retention::surplus(ended, limits);
    let api: Api<Build> = Api::namespaced(context.client.clone(), namespace);
    for build in builds.iter().filter(|build| build.uid().is_some_and(|uid| surplus.contains(&uid))) {
        // A tool may have made it its own since, or somebody run it again.
        let Some(now) = api.get_metadata_opt(&build.name_any()).await? else { continue };
        let unchanged = now.uid() == build.uid() && now.metadata.generation == build.metadata.generation;
        if !unchanged || owner(&now.metadata) != owner(&build.metadata) || !is_deletable(&now.metadata) {
            continue;
        }
        if kube_ext::delete_exactly(&api, &now.metadata, DeleteParams::background()).await? {
            tracing::info!(
                build.namespace = namespace,
                build.name = build.name_any(),
                "an old Build of a schedule was deleted"
            );
        }
    }
    Ok(())
}

/// The BuildSchedule that made it, if one did.
fn owner(build: &ObjectMeta) -> Option<Owner> {
    let owner = build.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "BuildSchedule"
            && owner.api_version.starts_with("imagefactory.dev/")
    })?;
    Some((build.namespace.clone()?, owner.name.clone(), owner.uid.clone()))
}

fn is_deletable(build: &ObjectMeta) -> bool {
    let empty = BTreeMap::new();
    let tracked =
        retention::is_tracked(build.labels.as_ref().unwrap_or(&empty), build.annotations.as_ref().unwrap_or(&empty));
    build.deletion_timestamp.is_none() && !tracked
}
