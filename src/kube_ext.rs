//! What several parts ask of the cluster in the same way: the Job of an attempt and those of all, the whole of
//! a kind at once or page by page, which namespace has a name, one entry of a Secret, the end of exactly one object,
//! and the writing of a status.

use std::{collections::HashSet, fmt::Debug};

use image_factory_core::{ids, labels};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Namespace, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use uuid::Uuid;

use crate::crd::{Build, reference::SecretKeyReference};

/// The field manager of every status we write.
const MANAGER: &str = "image-factory";
/// Jobs asked for at once.
const JOBS: u32 = 500;
/// Builds, or schedules of Builds, asked for at once: a spec may have 256 KiB, and the annotations of one as many.
pub const BUILDS: u32 = 50;

/// The Job of this very attempt, asked live: another's of the same name does not count.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn job_of(client: &Client, namespace: &str, build: &str, id: Uuid) -> Result<Option<Job>, kube::Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let job = api.get_opt(&ids::job_name(build, id)).await?;
    Ok(job.filter(|job| job.labels().get(labels::BUILD_ID).is_some_and(|of| *of == id.to_string())))
}

/// Every object of a kind as the API server has it now, with the version of the list: a number that grows, and
/// the same for every reader of the cluster
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn list_all<K>(client: &Client) -> Result<(Vec<K>, i64), kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
    Ok((list.items, version.unwrap_or_default()))
}

/// The UID of a namespace, from the watch or, where that does not know it yet, as it is now; `None` where there
/// is none.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn uid_of_namespace(
    client: &Client,
    known: &Store<PartialObjectMeta<Namespace>>,
    name: &str,
) -> Result<Option<String>, kube::Error> {
    if let Some(known) = known.get(&ObjectRef::new(name)) {
        return Ok(known.uid());
    }
    live_uid_of_namespace(client, name).await
}

/// The same, as it is now.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn live_uid_of_namespace(client: &Client, name: &str) -> Result<Option<String>, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(namespaces.get_metadata_opt(name).await?.and_then(|namespace| namespace.uid()))
}

/// One entry of a Secret; `None` where there is no such Secret or entry. The operator may read every Secret by name, and
/// reads those alone that a WebhookConfig names, in its own namespace.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn secret_entry(
    client: &Client,
    namespace: &str,
    entry: &SecretKeyReference,
) -> Result<Option<Vec<u8>>, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(&entry.name).await?;
    Ok(secret.and_then(|secret| secret.data?.remove(&entry.key)).map(|value| value.0))
}

/// Deletes exactly this Job, once: one that is gone, or on its way, is left alone. The Job is gone
/// at once, its Pod is told to end.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn delete_job(client: &Client, job: &Job) -> Result<(), kube::Error> {
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let api: Api<Job> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    if delete_exactly(&api, &job.metadata, DeleteParams::background()).await? {
        tracing::info!(job = job.name_any(), "the Job was deleted");
    }
    Ok(())
}

/// Deletes the object that has this very UID. `false`: it is gone, or its name another's by now.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn delete_exactly<K>(api: &Api<K>, object: &ObjectMeta, how: DeleteParams) -> Result<bool, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let exactly_this = Preconditions { uid: object.uid.clone(), resource_version: None };
    match api.delete(object.name.as_deref().unwrap_or_default(), &how.preconditions(exactly_this)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes `status` the object's status, all of it. `false`: the object is gone.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn apply_status<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &impl Serialize,
) -> Result<bool, kube::Error>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
{
    apply_status_to::<K>(client, namespace, name, None, status).await
}

/// The same of an object that still is as it was at this `version`.
///
/// # Errors
/// When the API server does not answer as asked: with code 409 where the object has changed since.
pub async fn apply_status_to<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    version: Option<&str>,
    status: &impl Serialize,
) -> Result<bool, kube::Error>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    if let Some(version) = version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// What identifies every Job of a build.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn jobs_of_builds(client: &Client) -> Result<Vec<PartialObjectMeta<Job>>, kube::Error> {
    let what = ListParams::default().labels(labels::BUILD_ID).limit(JOBS);
    kept(&Api::all(client.clone()), what, Some).await
}

/// The UIDs of all Builds that there are.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn uids_of_builds(client: &Client) -> Result<HashSet<String>, kube::Error> {
    let api: Api<Build> = Api::all(client.clone());
    let uids = kept(&api, ListParams::default().limit(BUILDS), |build| build.metadata.uid).await?;
    Ok(uids.into_iter().collect())
}

/// What is kept of every Build with this label.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn builds_labelled<T>(
    client: &Client,
    label: &str,
    keep: impl Fn(PartialObjectMeta<Build>) -> Option<T> + Send + Sync,
) -> Result<Vec<T>, kube::Error> {
    kept(&Api::all(client.clone()), ListParams::default().labels(label).limit(BUILDS), keep).await
}

/// What is kept of each object's metadata, page by page: what is in it may be large.
async fn kept<K, T>(
    api: &Api<K>,
    mut page: ListParams,
    keep: impl Fn(PartialObjectMeta<K>) -> Option<T> + Send + Sync,
) -> Result<Vec<T>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    loop {
        let list = api.list_metadata(&page).await?;
        found.extend(list.items.into_iter().filter_map(&keep));
        match next_page(page, &list.metadata) {
            Some(next) => page = next,
            None => return Ok(found),
        }
    }
}

/// Longest note of an Event in bytes, as the API server has it.
pub const NOTE_BYTES: usize = 1_024;

/// As much of a text as the note of an Event can hold.
#[must_use]
pub fn event_note(text: &str) -> String {
    text[..text.floor_char_boundary(NOTE_BYTES)].to_owned()
}

/// What to ask for after this page of a list; `None` where it was the last.
#[must_use]
pub fn next_page(page: ListParams, list: &ListMeta) -> Option<ListParams> {
    let token = list.continue_.as_deref().filter(|token| !token.is_empty())?;
    Some(page.continue_token(token))
}
