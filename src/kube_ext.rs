//! What several parts ask of the cluster in the same way: the Job of an attempt and those of all, the whole of
//! a kind, which namespace has a name, the end of exactly one object, and the writing of a status.

use std::fmt::Debug;

use image_factory_core::{ids, labels};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
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

/// The field manager of every status we write.
const MANAGER: &str = "image-factory";
/// Objects asked for at once.
const PAGE: u32 = 500;

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
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// What identifies every Job of a build, page by page: what is in them may be large.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn jobs_of_builds(client: &Client) -> Result<Vec<PartialObjectMeta<Job>>, kube::Error> {
    labelled(client, labels::BUILD_ID).await
}

/// The same of every object of a kind that has this label.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn labelled<K>(client: &Client, label: &str) -> Result<Vec<PartialObjectMeta<K>>, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut page = ListParams::default().labels(label).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let list = api.list_metadata(&page).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}
