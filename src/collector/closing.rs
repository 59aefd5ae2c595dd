//! Ends the Job of an attempt that has ended, where the Job is ours to manage: one patch of its status.
//! An operator that died before it is made good by the next, for as long as the Pod is there; and the
//! cleaner deletes the Job whether it says that it has ended or not.

use image_factory_core::{ids, status::Status};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use super::{Error, pod};
use crate::{clock, db::launches::Followed, failpoint, jobs::managed, runtime::Context};

/// Ends the Job of an attempt that this process has just seen to its end.
pub async fn close(context: &Context, attempt: &Followed, pod: &Pod, status: Status) -> Result<(), Error> {
    match managed::managed_job(pod) {
        Some(uid) => end(context, attempt, uid, status, started(pod)).await,
        None => Ok(()),
    }
}

/// Ends the Job of an attempt that ended before this process saw its Pod, unless that was done.
pub async fn make_good(context: &Context, attempt: &Followed, pod: &Pod) -> Result<(), Error> {
    let Some(uid) = managed::managed_job(pod).filter(|_| attempt.status.is_terminal() && pod::is_of(pod, attempt))
    else {
        return Ok(());
    };
    match jobs(context, attempt).get_opt(&name(attempt)).await? {
        Some(job) if managed::is_ours(&job) && !managed::has_ended(&job) => {
            end(context, attempt, uid, attempt.status, started(pod)).await
        }
        _ => Ok(()),
    }
}

/// Ends the Job of an attempt whose Pod was lost.
pub async fn without_pod(context: &Context, attempt: &Followed, job: &Job, status: Status) -> Result<(), Error> {
    match &job.metadata.uid {
        Some(uid) if managed::is_ours(job) && !managed::has_ended(job) => {
            end(context, attempt, uid, status, None).await
        }
        _ => Ok(()),
    }
}

async fn end(
    context: &Context,
    attempt: &Followed,
    uid: &str,
    status: Status,
    started: Option<Timestamp>,
) -> Result<(), Error> {
    failpoint::request("close.before-patch")?;
    let (jobs, name) = (jobs(context, attempt), name(attempt));
    let patch = Patch::Merge(managed::end(uid, status, started, clock::now()));
    match jobs.patch_status(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(failpoint::request("close.after-patch")?),
        // Gone, or another's by now.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 403 => {
            tracing::warn!(build.id = %attempt.id, job = name, %error, "a Job that this operator manages stays open, it lacks the right: set its launch mode to operator again, or wait until the Job is cleaned away");
            Ok(())
        }
        // An end that stands is not changed, and another operator may have written it.
        Err(kube::Error::Api(error)) if error.code == 422 => match jobs.get_opt(&name).await? {
            Some(job) if !managed::has_ended(&job) => Err(kube::Error::Api(error).into()),
            _ => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

fn jobs(context: &Context, attempt: &Followed) -> Api<Job> {
    Api::namespaced(context.client.clone(), &attempt.namespace)
}

fn name(attempt: &Followed) -> String {
    ids::job_name(&attempt.name, attempt.id)
}

fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}
