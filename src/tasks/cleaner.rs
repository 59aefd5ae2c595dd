//! Deletes the Jobs of attempts that ended longer ago than their TTL: the log is stored by then,
//! since an attempt ends only after its log has been read. And marks artifacts whose time is over.

use futures::{StreamExt, TryStreamExt, stream};

use super::Error;
use crate::{
    db::results::{self, Expired},
    failpoint, kube_ext,
    runtime::Context,
};

const BATCH: u8 = 100;
/// Requests under way at once.
const AT_ONCE: usize = 16;

pub async fn clean(context: Context) -> Result<(), Error> {
    loop {
        let expired = results::expired(&context.pool, i64::from(BATCH)).await?;
        let batch = expired.len();
        let cleaned = stream::iter(expired).map(|attempt| clean_one(&context, attempt)).buffer_unordered(AT_ONCE);
        cleaned.try_collect::<()>().await?;
        if batch < usize::from(BATCH) {
            break;
        }
    }
    expire_artifacts(&context).await
}

/// What could not be asked at all is left as it was: the next round asks again.
async fn clean_one(context: &Context, attempt: Expired) -> Result<(), Error> {
    let status = match delete(context, &attempt).await {
        Ok(()) => "completed",
        Err(error @ kube::Error::Api(_)) => {
            tracing::warn!(build.id = %attempt.id, %error, "a Job could not be deleted; it is tried again");
            context.metrics.failed("cleaner");
            "failed"
        }
        Err(error) => return Err(error.into()),
    };
    Ok(results::cleaned(&context.pool, attempt.id, status).await?)
}

async fn expire_artifacts(context: &Context) -> Result<(), Error> {
    let expired = results::expire_artifacts(&context.pool, i64::from(BATCH)).await?;
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
