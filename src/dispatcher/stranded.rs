//! Claimed attempts whose worker went offline before they had a Job: they go back to the queue, for
//! another worker, or this one when it is back. One that has a Job after all follows its Pod.

use futures::{StreamExt, future, stream};
use k8s_openapi::api::batch::v1::Job;
use uuid::Uuid;

use super::{
    AT_ONCE, Error, each,
    pod::{self, Found},
};
use crate::{
    db::launches::{self, Unlaunched},
    jobs::managed,
    kube_ext,
    runtime::Context,
};

/// The stranded, and the rest. What shall stop is stopped where it is.
pub fn apart(unlaunched: Vec<Unlaunched>) -> (Vec<Unlaunched>, Vec<Unlaunched>) {
    unlaunched.into_iter().partition(|attempt| attempt.worker_offline && attempt.cancel.is_none())
}

/// The Job of an attempt that has started, or will. One of ours that never had its Pod goes.
async fn started(context: &Context, attempt: &Unlaunched) -> Result<Option<Job>, kube::Error> {
    let job = kube_ext::job_of(&context.client, &attempt.namespace, &attempt.name, attempt.id).await?;
    let Some(job) = job else { return Ok(None) };
    if managed::is_ours(&job) && pod::look(&context.client, &job).await? == Found::Never {
        kube_ext::delete_job(&context.client, &job).await?;
        return Ok(None);
    }
    Ok(Some(job))
}

/// Puts back those of which the API server itself knows no Job; gives the Jobs of the others. The answer
/// to the creation of a Job may have been lost, and an attempt in the queue must have none.
pub async fn put_back(context: &Context, stranded: Vec<Unlaunched>) -> Result<Vec<(Uuid, Job)>, Error> {
    if stranded.is_empty() {
        return Ok(Vec::new());
    }
    let looked: Vec<(Unlaunched, Option<Job>)> = stream::iter(stranded)
        .map(|attempt| {
            each(context, attempt.id, async move {
                let job = started(context, &attempt).await?;
                Ok::<_, kube::Error>((attempt, job))
            })
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(future::ready)
        .collect()
        .await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for (attempt, job) in looked {
        match job {
            Some(job) => with.push((attempt.id, job)),
            None => without.push(attempt),
        }
    }
    for attempt in &without {
        tracing::info!(build.id = %attempt.id, worker = attempt.worker, "the worker is offline; the build waits again");
    }
    launches::put_back_stranded(&context.pool, &without).await?;
    Ok(with)
}
