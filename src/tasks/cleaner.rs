//! Deletes the Jobs of attempts that ended longer ago than their TTL: the log is stored by then,
//! since an attempt ends only after its log has been read. And marks artifacts whose time is over.

use super::Error;
use crate::{
    db::results::{self, Expired},
    failpoint, kube_ext,
    runtime::Context,
};

const BATCH: i64 = 100;

pub async fn clean(context: Context) -> Result<(), Error> {
    for attempt in results::expired(&context.pool, BATCH).await? {
        match delete(&context, &attempt).await {
            Ok(()) => results::cleaned(&context.pool, attempt.id, "completed").await?,
            Err(error) => {
                tracing::warn!(build.id = %attempt.id, %error, "a Job could not be deleted; it is tried again");
                context.metrics.failed("cleaner");
                results::cleaned(&context.pool, attempt.id, "failed").await?;
            }
        }
    }
    let expired = results::expire_artifacts(&context.pool, BATCH).await?;
    if expired > 0 {
        tracing::info!(artifacts = expired, "the time of artifacts is over");
    }
    Ok(())
}

/// A live look first: only the Job of this very attempt is deleted.
async fn delete(context: &Context, attempt: &Expired) -> Result<(), kube::Error> {
    let job = kube_ext::job_of(&context.client, &attempt.namespace, &attempt.name, attempt.id).await?;
    let Some(job) = job else { return Ok(()) };
    failpoint::request("clean.before-delete")?;
    kube_ext::delete_job(&context.client, &job).await?;
    failpoint::request("clean.after-delete")
}
