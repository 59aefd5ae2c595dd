//! The search for attempts without a Pod that the watch could show: their Job was deleted, has ended and its Pod is
//! gone, or never got one. Everything is asked of the API server: what a watch does not show
//! may be there all the same.

use std::collections::HashSet;

use futures::{StreamExt, stream};
use image_factory_core::{
    ids, labels,
    patience::{Verdict, Wait},
    reason::Reason,
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, api::ListParams};
use uuid::Uuid;

use super::{Error, closing, finish, follow, log::Log, pod};
use crate::{
    db::launches::{self, Followed},
    runtime::Context,
};

/// A Job younger than this may not have its Pod yet.
const PATIENCE_SECONDS: f64 = 20.0;
/// Attempts looked at at once.
const AT_ONCE: usize = 8;

/// Looks once at every running attempt whose Pod is not followed.
pub async fn run(context: Context, followed: HashSet<Uuid>) {
    let launched = match launches::launched(&context.pool, PATIENCE_SECONDS).await {
        Ok(launched) => launched,
        Err(error) => return failed(&context, &error.into()),
    };
    stream::iter(launched.into_iter().filter(|id| !followed.contains(id)))
        .for_each_concurrent(AT_ONCE, |id| {
            let context = &context;
            async move {
                if let Err(error) = end_if_lost(context, id).await {
                    failed(context, &error);
                }
            }
        })
        .await;
}

fn failed(context: &Context, error: &Error) {
    tracing::warn!(%error, "an attempt without a Pod could not be looked for; it is tried again");
    context.metrics.failed("collector");
}

/// A Job that has no Pod, long after it was made: the Job controller tries again and again, for ever. Told and given up
/// as a Pod that no node takes.
async fn refused(context: &Context, attempt: &Followed) -> Result<(), Error> {
    let message = format!(
        "Kubernetes does not make the Pod of Job {}: a quota, a policy or an admission webhook refuses it; the Job's \
         own Events say which",
        ids::job_name(&attempt.name, attempt.id)
    );
    let wait = Wait { reason: Reason::Unschedulable, message };
    let waited = launches::pod_waits(&context.pool, attempt.id, Some(&wait)).await?;
    if let Verdict::GiveUp(message) = context.patience.verdict(&wait, waited) {
        launches::give_up_pod(&context.pool, attempt.id, &message).await?;
    }
    Ok(())
}

async fn end_if_lost(context: &Context, id: Uuid) -> Result<(), Error> {
    let Some(attempt) = launches::followed(&context.pool, id).await? else { return Ok(()) };
    // The Job first: once it has ended no Pod comes any more.
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &attempt.namespace);
    let job = jobs.get_opt(&ids::job_name(&attempt.name, id)).await?;
    let ending = pod::ending_without_pod(job.as_ref());
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &attempt.namespace);
    let labelled = ListParams::default().labels(&format!("{}={id}", labels::BUILD_ID));
    if pods.list(&labelled).await?.items.iter().any(|found| pod::is_of(found, &attempt)) {
        // Not lost: the watch shows it, or its end, when it has caught up.
        return Ok(());
    }
    let Some(ending) = ending else { return refused(context, &attempt).await };
    let mut log = Log::resume(context, attempt.clone()).await?;
    follow::account(&mut log, &ending, None).await?;
    let ended = finish::finish(context, id, &ending, None, None, log.steps()).await?;
    match (ended, job) {
        (Some(status), Some(job)) => closing::without_pod(context, &attempt, &job, status).await,
        _ => Ok(()),
    }
}
