//! The dispatcher: claims builds that have room, launches what is claimed, stops what shall stop.
//!
//! Each round looks at the rows and takes no input, so a round that an operator did not finish is
//! finished by the next, whoever makes it. Woken at once by changes, and by timer always.

mod launch;
mod stop;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
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

/// Runs until `stop`. Claims do not wait for launches: the API server may be slow, the queue not.
pub async fn run(context: Context, wake: Arc<Notify>, stop: CancellationToken) {
    let claimed = Notify::new();
    let work = async {
        tokio::join!(
            rounds(&context, &wake, || claim(&context, &claimed)),
            rounds(&context, &claimed, || launch_and_stop(&context)),
        )
    };
    stop.run_until_cancelled(Box::pin(work)).await;
}

/// Makes a round at every wake and every period, for ever.
async fn rounds<F: Future<Output = Result<(), Error>>>(context: &Context, wake: &Notify, round: impl Fn() -> F) {
    loop {
        if let Err(error) = round().await {
            tracing::warn!(%error, "a round of the dispatcher failed; it is made again");
            context.metrics.failed("dispatcher");
        }
        // A wake that came during the round is kept and makes the next one at once.
        let _ = timeout(PERIOD, wake.notified()).await;
    }
}

async fn claim(context: &Context, claimed: &Notify) -> Result<(), Error> {
    let builds = db::queue::claim(&context.pool).await;
    // Also when nothing was claimed: the wake may have been a cancellation, which is the other's work.
    claimed.notify_one();
    context.metrics.builds_claimed.inc_by(builds?.len() as u64);
    Ok(())
}

async fn launch_and_stop(context: &Context) -> Result<(), Error> {
    let unlaunched = launches::unlaunched(&context.pool).await?;
    let created: Vec<Uuid> = stream::iter(unlaunched)
        .map(|attempt| launch_or_end(context, attempt))
        .buffer_unordered(LAUNCHES)
        .filter_map(future::ready)
        .collect()
        .await;
    launches::jobs_created(&context.pool, &created).await?;
    for attempt in launches::stopping(&context.pool).await? {
        stop::stop(&context.client, &attempt).await?;
    }
    Ok(())
}

/// The attempt's id when its Job exists now. One that fails holds up no other.
async fn launch_or_end(context: &Context, attempt: Unlaunched) -> Option<Uuid> {
    match try_launch(context, &attempt).await {
        Ok(created) => created.then_some(attempt.id),
        Err(error) => {
            tracing::warn!(build.id = %attempt.id, %error, "a build could not be launched; it is tried again");
            context.metrics.failed("dispatcher");
            None
        }
    }
}

async fn try_launch(context: &Context, attempt: &Unlaunched) -> Result<bool, Error> {
    if let Some(reason) = attempt.cancel {
        let message = "the build was stopped before it had a Job".to_owned();
        end(context, attempt, Status::Cancelled, reason, message).await?;
        return Ok(false);
    }
    match launch::launch(context, attempt).await? {
        launch::Launched::Created => return Ok(true),
        // An older Job of this name is on its way out; the next round looks again.
        launch::Launched::InTheWay => {}
        launch::Launched::Refused(reason, message) => {
            let status = if reason.is_cancellation() { Status::Cancelled } else { Status::Failed };
            end(context, attempt, status, reason, message).await?;
        }
    }
    Ok(false)
}

/// Ends an attempt that never had a Job.
async fn end(
    context: &Context,
    attempt: &Unlaunched,
    status: Status,
    reason: Reason,
    message: String,
) -> Result<(), Error> {
    let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message };
    let outcome = Outcome { status, exit_code: None, failure: Some(failure), image: None };
    if results::finish(&context.pool, attempt.id, &outcome, results::Durations::default(), Duration::ZERO).await? {
        context.metrics.ended(attempt.method, &outcome);
    }
    Ok(())
}
