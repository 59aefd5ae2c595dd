//! Stops a running attempt by deleting its Job; the collector sees its Pod end and finishes it.

use image_factory_core::ids;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
};

use crate::{db::launches::Stopping, failpoint, jobs::labels};

/// Deletes the Job, once. One that is gone, or on its way, is left alone.
///
/// # Errors
/// When the API server does not answer as asked.
pub async fn stop(client: &Client, attempt: &Stopping) -> Result<(), kube::Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), &attempt.namespace);
    let name = ids::job_name(&attempt.name, attempt.id);
    let Some(job) = api.get_opt(&name).await? else { return Ok(()) };
    let ours = job.labels().get(labels::BUILD_ID).is_some_and(|id| *id == attempt.id.to_string());
    if !ours || job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    failpoint::request("stop.before-delete")?;
    let exactly_this = Preconditions { uid: job.uid(), resource_version: None };
    // Background: the Job is gone at once, its Pod is told to end and is followed to its end.
    match api.delete(&name, &DeleteParams::background().preconditions(exactly_this)).await {
        Ok(_) => {
            failpoint::request("stop.after-delete")?;
            tracing::info!(build.id = %attempt.id, job = name, "the Job was deleted to stop the build");
        }
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
