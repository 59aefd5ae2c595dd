//! Creates the Pod of a Job that we manage, at most once: a Pod that was there and is gone is not made
//! again. The API server itself is asked whether there was one, since an operator may die between
//! creating a Pod and noting it, and its Pod be deleted before the next operator looks.

use futures::TryStreamExt;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};

use super::launch::{Launched, refusal};
use crate::{failpoint, jobs::managed, kube_ext};

/// How long the API server tells of the past: what it remembers it tells at once.
const HISTORY_SECONDS: u32 = 1;

/// Whether a Job of ours has its Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    There,
    /// It is gone, or that is not known to be untrue.
    Gone,
    Never,
    /// A Pod of someone else has its name.
    InTheWay,
}

/// Makes the Pod of a Job that has just been created, or that was found.
pub async fn create(client: &Client, job: Job, found: bool) -> Result<Launched, kube::Error> {
    // One that shall go starts nothing any more.
    if !managed::is_ours(&job) || job.metadata.deletion_timestamp.is_some() {
        return Ok(Launched::Created(Box::new(job)));
    }
    if found {
        match look(client, &job).await? {
            // The collector tells its end.
            Found::There | Found::Gone => return Ok(Launched::Created(Box::new(job))),
            Found::InTheWay => return Ok(Launched::InTheWay),
            Found::Never => {}
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    failpoint::request("launch.before-pod")?;
    match api.create(&PostParams::default(), &managed::pod(&job)).await {
        Ok(_) => {
            failpoint::request("launch.after-pod")?;
            Ok(Launched::Created(Box::new(job)))
        }
        Err(kube::Error::Api(error)) if error.code == 409 && error.reason == "AlreadyExists" => {
            // Another operator's, for the same Job; or not ours.
            Ok(match look(client, &job).await? {
                Found::There | Found::Gone => Launched::Created(Box::new(job)),
                Found::InTheWay | Found::Never => Launched::InTheWay,
            })
        }
        Err(error) => {
            let refused = refusal(error)?;
            // The attempt waits or ends without a Job.
            kube_ext::delete_job(client, &job).await?;
            Ok(refused)
        }
    }
}

/// Looks for the Pod, and removes one that has its name and is not this Job's.
pub async fn look(client: &Client, job: &Job) -> Result<Found, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    match api.get_metadata_opt(&job.name_any()).await? {
        None if was_there(&api, job).await? => Ok(Found::Gone),
        None => Ok(Found::Never),
        Some(pod) if managed::controls(job, &Pod { metadata: pod.metadata.clone(), ..Pod::default() }) => {
            Ok(Found::There)
        }
        Some(pod) => {
            tracing::warn!(pod = pod.name_any(), "a Pod has the name of a build's and is not its Job's; it is deleted");
            kube_ext::delete_exactly(&api, &pod.metadata, DeleteParams::default()).await?;
            Ok(Found::InTheWay)
        }
    }
}

/// Whether a Pod of this Job was there since the Job was written: a watch that begins at that version
/// tells every Pod of its name. One that the API server has forgotten (some minutes, or its restart)
/// counts as having been there: a build that is lost can be built again, one that starts twice can't be
/// undone. Versions of Jobs and Pods are of one count unless Pods have an etcd of their own.
async fn was_there(api: &Api<Pod>, job: &Job) -> Result<bool, kube::Error> {
    let of_its_name =
        WatchParams::default().fields(&format!("metadata.name={}", job.name_any())).timeout(HISTORY_SECONDS);
    let version = job.resource_version().unwrap_or_default();
    let mut events = std::pin::pin!(match api.watch_metadata(&of_its_name, &version).await {
        Ok(events) => events,
        Err(kube::Error::Api(error)) if error.code == 410 => return Ok(true),
        Err(error) => return Err(error),
    });
    while let Some(event) = events.try_next().await? {
        let pod = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => pod,
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(error) if error.code == 410 => return Ok(true),
            WatchEvent::Error(error) => return Err(kube::Error::Api(error)),
        };
        if managed::controls(job, &Pod { metadata: pod.metadata, ..Pod::default() }) {
            return Ok(true);
        }
    }
    Ok(false)
}
