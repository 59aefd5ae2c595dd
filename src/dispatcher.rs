//! The dispatcher: claims builds that have room, launches what is claimed, stops what shall stop.
//!
//! Each round looks at the rows and takes no input, so a round that an operator did not finish is
//! finished by the next, whoever makes it. Woken at once by changes, and by timer always.

mod launch;
mod stop;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use image_factory_core::{
    outcome::{Failure, Outcome},
    reason::Reason,
    status::Status,
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{
        self,
        launches::{self, Unlaunched},
        results,
    },
    runtime::Context,
};

/// A round is made at least this often.
const PERIOD: Duration = Duration::from_secs(5);
/// Launches under way at once.
const LAUNCHES: usize = 16;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, wake: Arc<Notify>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            if let Err(error) = round(&context).await {
                tracing::warn!(%error, "a round of the dispatcher failed; it is made again");
                context.metrics.failed("dispatcher");
            }
            // A wake that came during the round is kept and makes the next one at once.
            let _ = timeout(PERIOD, wake.notified()).await;
        }
    })
    .await;
}

async fn round(context: &Context) -> Result<(), Error> {
    let claimed = db::queue::claim(&context.pool).await?;
    context.metrics.builds_claimed.inc_by(claimed.len() as u64);
    let unlaunched = launches::unlaunched(&context.pool).await?;
    stream::iter(unlaunched)
        .for_each_concurrent(LAUNCHES, |attempt| async move {
            if let Err(error) = launch_or_end(context, &attempt).await {
                tracing::warn!(build.id = %attempt.id, %error, "a build could not be launched; it is tried again");
                context.metrics.failed("dispatcher");
            }
        })
        .await;
    for attempt in launches::stopping(&context.pool).await? {
        stop::stop(&context.client, &attempt).await?;
    }
    Ok(())
}

async fn launch_or_end(context: &Context, attempt: &Unlaunched) -> Result<(), Error> {
    if let Some(reason) = attempt.cancel {
        let message = "the build was stopped before it had a Job".to_owned();
        return end(context, attempt.id, Status::Cancelled, reason, message).await;
    }
    match launch::launch(context, attempt).await? {
        launch::Launched::Created => Ok(launches::job_created(&context.pool, attempt.id).await?),
        // An older Job of this name is on its way out; the next round looks again.
        launch::Launched::InTheWay => Ok(()),
        launch::Launched::Refused(reason, message) => end(context, attempt.id, Status::Failed, reason, message).await,
    }
}

/// Ends an attempt that never had a Job.
async fn end(context: &Context, id: Uuid, status: Status, reason: Reason, message: String) -> Result<(), Error> {
    let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message };
    let outcome = Outcome { status, exit_code: None, failure: Some(failure), image: None };
    results::finish(&context.pool, id, &outcome, results::Durations::default(), None, Duration::ZERO).await?;
    Ok(())
}
