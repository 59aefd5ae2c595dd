//! Deletes the Jobs of attempts that ended longer ago than their TTL: the log is stored by then,
//! since an attempt ends only after its log has been read.

use image_factory_core::ids;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};

use super::Error;
use crate::{
    db::results::{self, Expired},
    failpoint,
    jobs::labels,
    runtime::Context,
};

const BATCH: i64 = 100;

pub async fn clean(context: Context) -> Result<(), Error> {
    for attempt in results::expired(&context.pool, BATCH).await? {
        match delete_job(&context, &attempt).await {
            Ok(()) => results::cleaned(&context.pool, attempt.id, "completed").await?,
            Err(error) => {
                tracing::warn!(build.id = %attempt.id, %error, "a Job could not be deleted; it is tried again");
                context.metrics.failed("cleaner");
                results::cleaned(&context.pool, attempt.id, "failed").await?;
            }
        }
    }
    Ok(())
}

/// A live look first: only the Job of this very attempt is deleted.
async fn delete_job(context: &Context, attempt: &Expired) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &attempt.namespace);
    let name = ids::job_name(&attempt.name, attempt.id);
    let Some(job) = jobs.get_opt(&name).await? else { return Ok(()) };
    if job.labels().get(labels::BUILD_ID).is_none_or(|id| *id != attempt.id.to_string()) {
        return Ok(());
    }
    failpoint::request("clean.before-delete")?;
    let exactly_this = Preconditions { uid: job.uid(), resource_version: None };
    match jobs.delete(&name, &DeleteParams::background().preconditions(exactly_this)).await {
        Ok(_) => failpoint::request("clean.after-delete"),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
