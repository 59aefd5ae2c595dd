//! The dispatcher: claims builds that have room, launches what is claimed, stops what shall stop.
//!
//! Each round looks at the rows and takes no input, so a round that an operator did not finish is
//! finished by the next, whoever makes it. Woken at once by changes, and by timer always.

mod launch;
mod pod;
mod stranded;

use std::{pin::pin, time::Duration};

use futures::{Stream, StreamExt, future, stream};
use image_factory_core::{outcome::Outcome, reason::Reason};
use k8s_openapi::api::batch::v1::Job;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{
        self,
        launches::{self, Stopping, Unlaunched},
        results::{self, End},
    },
    failpoint, kube_ext,
    runtime::{Context, listener::DispatcherWakes},
};

/// A round is made at least this often.
const PERIOD: Duration = Duration::from_secs(5);
/// Requests under way at once.
const AT_ONCE: usize = 16;
/// For all requests about one attempt in a round.
const PATIENCE: Duration = Duration::from_secs(30);
/// From the first Job created in a round to the note that it exists.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);
/// How often a build whose Job is refused for now (a quota, a policy) goes back to the queue, each
/// time for this much longer: about half an hour in all.
const RETURNS: u32 = 10;
const RETURN_DELAY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("failed to hear from the API server in time")]
    Slow,
}

/// Runs until `stop`. Claims, launches and stops do not wait for each other: the API server may be
/// slow, the queue not.
pub async fn run(context: Context, wakes: DispatcherWakes, stop: CancellationToken) {
    let work = async {
        tokio::join!(
            rounds(&context, &wakes.claims, || claim(&context, &wakes.launches)),
            rounds(&context, &wakes.launches, || launch_claimed(&context)),
            rounds(&context, &wakes.stops, || stop_asked(&context)),
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

async fn claim(context: &Context, launches: &Notify) -> Result<(), Error> {
    let builds = db::queue::claim(&context.pool).await;
    // Also after an error: it may have come after the commit.
    if builds.as_ref().map_or(true, |builds| !builds.is_empty()) {
        launches.notify_one();
    }
    context.metrics.builds_claimed.inc_by(builds?.len() as u64);
    Ok(())
}

async fn launch_claimed(context: &Context) -> Result<(), Error> {
    let (stranded, unlaunched) = stranded::apart(launches::unlaunched(&context.pool).await?);
    let launches = stream::iter(unlaunched)
        .map(|attempt| each(context, attempt.id, async move { try_launch(context, &attempt).await }))
        .buffer_unordered(AT_ONCE)
        .filter_map(|launched| future::ready(launched.flatten()));
    // Recorded together, but none later than that: the API server may be slow with one of them.
    let mut batches = pin!(batched(launches, RECORDED_WITHIN));
    while let Some(created) = batches.next().await {
        record(context, created).await?;
    }
    record(context, stranded::put_back(context, stranded).await?).await
}

/// Notes which Jobs exist now.
async fn record(context: &Context, created: Vec<(Uuid, Job)>) -> Result<(), Error> {
    let ids: Vec<Uuid> = created.iter().map(|(id, _)| *id).collect();
    let kept = launches::jobs_created(&context.pool, &ids).await?;
    // An attempt that another operator ended meanwhile must not run.
    for (id, job) in created.into_iter().filter(|(id, _)| !kept.contains(id)) {
        each(context, id, kube_ext::delete_job(&context.client, &job)).await;
    }
    Ok(())
}

/// What the stream gives, in batches that end when it does or `within` after their first item.
fn batched<T>(items: impl Stream<Item = T>, within: Duration) -> impl Stream<Item = Vec<T>> {
    stream::unfold(Box::pin(items.fuse()), move |mut items| async move {
        let mut batch = vec![items.next().await?];
        let whole = async {
            while let Some(item) = items.next().await {
                batch.push(item);
            }
        };
        let _ = timeout(within, whole).await;
        Some((batch, items))
    })
}

async fn stop_asked(context: &Context) -> Result<(), Error> {
    stream::iter(launches::stopping(&context.pool).await?)
        .for_each_concurrent(AT_ONCE, |attempt| async move {
            each(context, attempt.id, stop(context, &attempt)).await;
        })
        .await;
    Ok(())
}

/// Deletes the Job; the collector sees its Pod end and finishes the attempt.
async fn stop(context: &Context, attempt: &Stopping) -> Result<(), kube::Error> {
    let job = kube_ext::job_of(&context.client, &attempt.namespace, &attempt.name, attempt.id).await?;
    let Some(job) = job else { return Ok(()) };
    failpoint::request("stop.before-delete")?;
    kube_ext::delete_job(&context.client, &job).await?;
    failpoint::request("stop.after-delete")
}

/// Work on one attempt, bounded in time. A failure is said and holds up no other; the next round
/// tries again.
async fn each<T, E: Into<Error>>(context: &Context, id: Uuid, work: impl Future<Output = Result<T, E>>) -> Option<T> {
    let done = timeout(PATIENCE, work).await.map_err(|_| Error::Slow).and_then(|done| done.map_err(Into::into));
    done.inspect_err(|error| {
        tracing::warn!(build.id = %id, %error, "work on a build failed; it is tried again");
        context.metrics.failed("dispatcher");
    })
    .ok()
}

/// The attempt's id and Job when that exists now.
async fn try_launch(context: &Context, attempt: &Unlaunched) -> Result<Option<(Uuid, Job)>, Error> {
    if let Some(reason) = attempt.cancel {
        // Its Job may exist after all: the answer to its creation was lost. Then it is stopped like any.
        if let Some(job) = kube_ext::job_of(&context.client, &attempt.namespace, &attempt.name, attempt.id).await? {
            return Ok(Some((attempt.id, job)));
        }
        let message = "the build was stopped before it had a Job".to_owned();
        end(context, attempt, reason, message).await?;
        return Ok(None);
    }
    match launch::launch(context, attempt).await? {
        launch::Launched::Created(job) => return Ok(Some((attempt.id, *job))),
        // An older Job of this name is on its way out; the next round looks again.
        launch::Launched::InTheWay => {}
        launch::Launched::NotNow(why) if attempt.returns < RETURNS => {
            tracing::info!(build.id = %attempt.id, why, "the Job was refused for now; the build waits");
            let delay = RETURN_DELAY * (attempt.returns + 1);
            launches::put_back(&context.pool, attempt.id, &why, delay).await?;
        }
        launch::Launched::NotNow(why) => {
            end(context, attempt, Reason::Unschedulable, why).await?;
        }
        launch::Launched::Refused(reason, message) => end(context, attempt, reason, message).await?,
    }
    Ok(None)
}

/// Ends an attempt that never had a Job.
async fn end(context: &Context, attempt: &Unlaunched, reason: Reason, message: String) -> Result<(), Error> {
    let outcome = Outcome::failed(reason, None, message);
    // Refused or stopped: no other attempt would fare better.
    if results::finish(&context.pool, attempt.id, End::of(&outcome)).await? {
        context.metrics.ended(attempt.method, &outcome);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_item_that_is_late_holds_up_no_other() {
        let items = stream::iter([0, 0, 0, 400, 400]).then(|milliseconds| async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            milliseconds
        });
        let batches: Vec<Vec<u64>> = batched(items, Duration::from_millis(150)).collect().await;
        assert_eq!(batches, [vec![0, 0, 0], vec![400], vec![400]]);
    }
}
