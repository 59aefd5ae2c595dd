//! Deletes Builds of schedules and webhooks that have ended, beyond what each of them keeps. Their rows stay. Which have
//! ended is asked of the rows; each is looked at live before it goes, and only that very object is deleted.

use std::collections::BTreeMap;

use image_factory_core::{
    labels,
    retention::{self, Limits},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt, api::DeleteParams, core::PartialObjectMeta};

use super::Error;
use crate::{
    crd::{Build, BuildSchedule, WebhookConfig},
    db::slots,
    kube_ext,
    runtime::Context,
};

/// Namespace and name of what made a Build, and its UID.
type Owner = (String, String, String);

/// What makes Builds.
#[derive(Clone, Copy, Debug)]
enum Maker {
    Schedule,
    Webhook,
}

impl Maker {
    const fn kind(self) -> &'static str {
        match self {
            Self::Schedule => "BuildSchedule",
            Self::Webhook => "WebhookConfig",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Schedule => labels::SCHEDULE,
            Self::Webhook => labels::WEBHOOK,
        }
    }

    /// What it keeps; `None` where it is gone.
    async fn limits(self, context: &Context, (namespace, name, uid): &Owner) -> Result<Option<Limits>, kube::Error> {
        let client = context.client.clone();
        let (found, limits) = match self {
            Self::Schedule => {
                let schedule = Api::<BuildSchedule>::namespaced(client, namespace).get_opt(name).await?;
                (schedule.as_ref().and_then(ResourceExt::uid), schedule.map(|schedule| schedule.spec.history()))
            }
            Self::Webhook => {
                let webhook = Api::<WebhookConfig>::namespaced(client, namespace).get_opt(name).await?;
                (webhook.as_ref().and_then(ResourceExt::uid), webhook.map(|webhook| webhook.spec.history()))
            }
        };
        Ok(limits.filter(|_| found.as_ref() == Some(uid)))
    }
}

pub async fn prune(context: Context) -> Result<(), Error> {
    for maker in [Maker::Schedule, Maker::Webhook] {
        prune_of(&context, maker).await?;
    }
    Ok(())
}

async fn prune_of(context: &Context, maker: Maker) -> Result<(), Error> {
    let mut made: BTreeMap<Owner, Vec<PartialObjectMeta<Build>>> = BTreeMap::new();
    let keep = |mut build: PartialObjectMeta<Build>| {
        let owner = owner(maker, &build.metadata).filter(|_| is_deletable(&build.metadata))?;
        // What has been judged by now, and may be a whole spec.
        (build.metadata.annotations, build.metadata.managed_fields) = (None, None);
        Some((owner, build))
    };
    for (owner, build) in kube_ext::builds_labelled(&context.client, maker.label(), keep).await? {
        made.entry(owner).or_default().push(build);
    }
    for (owner, builds) in made {
        if let Err(error) = prune_one(context, maker, &owner, &builds).await {
            // The others are not held up by it.
            let (kind, (namespace, name, _)) = (maker.kind(), owner);
            tracing::warn!(kind, namespace, name, %error, "old Builds of a schedule or webhook could not be deleted");
            context.metrics.failed("history");
        }
    }
    Ok(())
}

async fn prune_one(
    context: &Context,
    maker: Maker,
    made_by: &Owner,
    builds: &[PartialObjectMeta<Build>],
) -> Result<(), Error> {
    // Without their owner they go by themselves.
    let Some(limits) = maker.limits(context, made_by).await? else { return Ok(()) };
    let (namespace, ..) = made_by;
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
        if !unchanged || owner(maker, &now.metadata).as_ref() != Some(made_by) || !is_deletable(&now.metadata) {
            continue;
        }
        if kube_ext::delete_exactly(&api, &now.metadata, DeleteParams::background()).await? {
            tracing::info!(
                build.namespace = namespace,
                build.name = build.name_any(),
                kind = maker.kind(),
                "an old Build of a schedule or webhook was deleted"
            );
        }
    }
    Ok(())
}

/// What made it, if it is of this kind.
fn owner(maker: Maker, build: &ObjectMeta) -> Option<Owner> {
    let owner = build.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == maker.kind()
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
