//! One attempt, followed from whatever point it is at to its end.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use image_factory_core::{
    loglevel::Level,
    outcome::{ContainerEnd, Ending},
    pod::{BUILD_CONTAINER, INSPECT_CONTAINER, PREPARE_CONTAINER},
    report::AgentReport,
    status::Status,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::LogParams};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Error, closing, finish, followers::Seen, log::Log, pod, pod::State, reading, waiting};
use crate::{
    clock,
    db::{launches, logs::Line},
    runtime::{Context, metrics::Metrics},
};

/// Between tries after a failure: a broken stream, Postgres away. Each pause is twice the one before.
const RETRY: Duration = Duration::from_secs(1);
/// The longest of them. A try that lasted longer has worked, and the pauses begin anew.
const LONGEST: Duration = Duration::from_secs(30);
/// Attempts whose Pods have not begun are read together at moments this far apart. The first container takes about as
/// long to start.
const GATHER: Duration = Duration::from_millis(500);
/// A kubelet that is well answers within this.
const ANSWER: Duration = Duration::from_secs(5);
/// A log that the kubelet refuses this often after its container has ended is given up.
const REFUSALS: u32 = 3;
/// A Pod whose follower has panicked this often is set aside.
const PANICS: u32 = 3;
/// What `inspect` prints at most, with room to spare (see `Inspection::encode`).
const INSPECTION_BYTES: i64 = 4 * 1024 * 1024;

/// Follows until the attempt is finished, by this task or another.
pub async fn run(context: Context, build: Uuid, mut seen: watch::Receiver<Seen>) {
    let followed = persist(&context.metrics, build, |kept| follow(&context, build, seen.clone(), kept)).await;
    if let Followed::SetAside = followed {
        // Its place must not be taken for ever. What it pushed, if anything, nobody can say.
        ended(&mut seen).await;
        persist(&context.metrics, build, |_| async { finish::give_up(&context, build).await.map_err(nothing_kept) })
            .await;
    }
}

enum Followed {
    ToTheEnd,
    SetAside,
}

/// A try that failed, and what it leaves to the next.
struct Interrupted<S> {
    error: Error,
    kept: Option<S>,
}

fn nothing_kept<'a>(error: Error) -> Interrupted<Log<'a>> {
    Interrupted { error, kept: None }
}

/// Takes the work up again when it fails, and a few times when it panics.
async fn persist<S, F>(metrics: &Metrics, build: Uuid, follow: impl Fn(Option<S>) -> F) -> Followed
where
    F: Future<Output = Result<(), Interrupted<S>>>,
{
    let (mut kept, mut panics, mut pause) = (None, 0, RETRY);
    loop {
        let began = Instant::now();
        match AssertUnwindSafe(follow(kept.take())).catch_unwind().await {
            Ok(Ok(())) => return Followed::ToTheEnd,
            Ok(Err(Interrupted { error, kept: left })) => {
                tracing::warn!(build.id = %build, %error, "following a build was interrupted; it is taken up again");
                kept = left;
            }
            // What it said stands in the log already.
            Err(_) => {
                metrics.panicked("collector");
                panics += 1;
            }
        }
        metrics.failed("collector");
        if panics == PANICS {
            tracing::error!(build.id = %build, "following a build panicked {PANICS} times; its Pod is set aside");
            return Followed::SetAside;
        }
        if began.elapsed() > LONGEST {
            pause = RETRY;
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(2 * pause);
    }
}

/// One try. `kept` is the log as the try before has left it: its steps were read from all lines stored, which
/// is not done again for a stream that broke.
async fn follow<'a>(
    context: &'a Context,
    build: Uuid,
    seen: watch::Receiver<Seen>,
    kept: Option<Log<'a>>,
) -> Result<(), Interrupted<Log<'a>>> {
    gather(seen.clone()).await;
    let pool = &context.pool;
    let read = context.followed.read(&build, async |builds| launches::followed_of(pool, &builds).await);
    let attempt = match read.await {
        Ok(Some(attempt)) => attempt,
        // One without a row is not one of ours.
        Ok(None) => return Ok(()),
        Err(error) => return Err(Interrupted { error: error.into(), kept }),
    };
    if attempt.status != Status::InProgress {
        // Finished before this process began.
        let pod = seen.borrow().pod.clone();
        return closing::make_good(context, &attempt, &pod).await.map_err(nothing_kept);
    }
    let (name, namespace, ours) = {
        let pod = &seen.borrow().pod;
        (pod.name_any(), pod.namespace().unwrap_or_default(), pod::is_of(pod, &attempt))
    };
    if !ours {
        tracing::warn!(build.id = %build, namespace, pod = name, "a Pod has a build's label and is not its Job's; it is ignored");
        return Ok(());
    }
    let over_its_start = waiting::watch(context, build, attempt.pod_waits, seen.clone());
    let resumed = match kept {
        Some(log) => Ok(log),
        None => Log::resume(context, attempt.clone()).await,
    };
    let mut log = resumed.map_err(nothing_kept)?;
    let pods = Api::namespaced(context.streams.clone(), &namespace);
    let collected = tokio::select! {
        ended = collect(context, build, &mut log, &pods, &name, seen.clone()) => ended,
        error = over_its_start => Err(error),
    };
    let ended = collected.map_err(|error| {
        // What was being stored may be stored or not: only the rows know.
        let kept = (!matches!(error, Error::Db(_))).then_some(log);
        Interrupted { error, kept }
    })?;
    let pod = seen.borrow().pod.clone();
    match ended {
        Some(status) => closing::close(context, &attempt, &pod, status).await.map_err(nothing_kept),
        // Another operator was faster with it, and may have died since.
        None => match launches::followed(&context.pool, build).await.map_err(|error| nothing_kept(error.into()))? {
            Some(attempt) => closing::make_good(context, &attempt, &pod).await.map_err(nothing_kept),
            None => Ok(()),
        },
    }
}

/// From the logs to the end, which is given where it is this task's.
async fn collect(
    context: &Context,
    build: Uuid,
    log: &mut Log<'_>,
    pods: &Api<Pod>,
    name: &str,
    mut seen: watch::Receiver<Seen>,
) -> Result<Option<Status>, Error> {
    let seen = &mut seen;
    for container in [PREPARE_CONTAINER, BUILD_CONTAINER] {
        if log.is_finished(container) {
            continue;
        }
        if !started(seen, container).await {
            break;
        }
        let unread = drain(log, pods, name, container, seen).await?;
        if container == PREPARE_CONTAINER {
            log.conclude(container, unread.map(warning)).await?;
        }
    }
    let ending = ended(seen).await;
    let build_end = pod::end(&seen.borrow().pod, BUILD_CONTAINER);
    account(log, &ending, build_end.as_ref()).await?;
    let inspection = match &ending {
        Ending::Inspect { inspect, .. } if inspect.exit_code == 0 => {
            unless_lost(seen, inspection(pods, name)).await.transpose()?.flatten()
        }
        Ending::Inspect { .. } if !log.is_finished(INSPECT_CONTAINER) => {
            let unread = drain(log, pods, name, INSPECT_CONTAINER, seen).await?;
            log.conclude(INSPECT_CONTAINER, unread.map(warning)).await?;
            None
        }
        _ => None,
    };
    let source = pod::source(&seen.borrow().pod);
    finish::finish(context, build, &ending, inspection.as_deref(), source.as_ref(), log.steps()).await
}

/// Lets a Pod that has not begun wait for the next of the moments, so that the attempts of a burst are read together.
async fn gather(mut seen: watch::Receiver<Seen>) {
    let wait = clock::until_the_next(GATHER, clock::now());
    let _ = tokio::time::timeout(wait, started(&mut seen, PREPARE_CONTAINER)).await;
}

/// Waits for a container to run or end; `false` when the Pod ends without it.
async fn started(seen: &mut watch::Receiver<Seen>, container: &str) -> bool {
    until(seen, |now| {
        if pod::state(&now.pod, container) != State::NotStarted {
            return Some(true);
        }
        (now.gone || pod::ending(&now.pod).is_some()).then_some(false)
    })
    .await
}

/// Waits for the end of the Pod.
async fn ended(seen: &mut watch::Receiver<Seen>) -> Ending {
    until(seen, |now| if now.gone { Some(pod::last_ending(&now.pod)) } else { pod::ending(&now.pod) }).await
}

/// What is read of the Pod; `None` where that is lost, and its kubelet, if it is there after all, has had time to
/// answer. One that is silent keeps its streams open, for ever.
async fn unless_lost<T>(seen: &watch::Receiver<Seen>, read: impl Future<Output = T>) -> Option<T> {
    let mut seen = seen.clone();
    let lost = async {
        until(&mut seen, |now| now.lost.then_some(())).await;
        tokio::time::sleep(ANSWER).await;
    };
    tokio::select! {
        read = read => Some(read),
        () = lost => None,
    }
}

/// Waits until `found` gives something.
async fn until<T>(seen: &mut watch::Receiver<Seen>, found: impl Fn(&Seen) -> Option<T>) -> T {
    loop {
        let result = found(&seen.borrow_and_update());
        if let Some(result) = result {
            return result;
        }
        if seen.changed().await.is_err() {
            // The process ends: the collector, which holds the other side, is gone.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads one container's log to its end. A stream that ends while the container runs is taken up
/// again; one that ended about when the container did is read once more, for lines in between. Gives a
/// sentence where the Pod is there and its log is not.
async fn drain(
    log: &mut Log<'_>,
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    seen: &mut watch::Receiver<Seen>,
) -> Result<Option<String>, Error> {
    let mut refusals = 0;
    loop {
        let (over, gone) = {
            let now = seen.borrow_and_update();
            (now.gone || pod::state(&now.pod, container) == State::Ended, now.gone)
        };
        let Some(read) = unless_lost(seen, log.read(pods, pod, container, !over)).await else { return Ok(None) };
        match read {
            Ok(()) if over => return Ok(None),
            // The stream ended, so the container has, or the connection broke: the watch tells.
            Ok(()) => {}
            Err(error) => {
                let refusal = refusal(error)?;
                refusals += u32::from(over);
                // What is lost with the Pod is told by `account`.
                if gone {
                    return Ok(None);
                }
                if over && refusals >= REFUSALS {
                    return Ok(Some(format!(
                        "an unknown number of lines of the container {container} is lost: {refusal}"
                    )));
                }
            }
        }
        let is_over = |now: &Seen| now.gone || !over && pod::state(&now.pod, container) == State::Ended;
        let _ = tokio::time::timeout(RETRY, until(seen, |now| is_over(now).then_some(()))).await;
    }
}

/// What is said where the kubelet has no such log, or can't read it. Every other error stays one.
fn refusal(error: Error) -> Result<String, Error> {
    match error {
        Error::Kube(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => Ok(status.message.clone()),
        Error::Log(refused @ reading::Error::Kubelet(_)) => Ok(refused.to_string()),
        error => Err(error),
    }
}

fn warning(content: String) -> Line {
    Line { content, level: Level::Warn, logged_at: clock::now() }
}

/// Compares what is stored with what the agent says it wrote, and leaves a row that tells a gap.
/// `build` is the end of the container `build`, where it is known.
pub async fn account(log: &mut Log<'_>, ending: &Ending, build: Option<&ContainerEnd>) -> Result<(), Error> {
    if !log.is_finished(PREPARE_CONTAINER) {
        log.finished(PREPARE_CONTAINER).await?;
    }
    if log.is_finished(BUILD_CONTAINER) {
        return Ok(());
    }
    let stored = log.lines_of(BUILD_CONTAINER, PREPARE_CONTAINER);
    let gap = match (ending, build) {
        // Nothing of it was started.
        (Ending::Prepare(_), _) => None,
        (_, Some(end)) => gap(end, stored, log.is_capped()),
        (_, None) => {
            Some("the Pod ended before its log was read to the end: an unknown number of lines is lost".to_owned())
        }
    };
    log.conclude(BUILD_CONTAINER, gap.map(warning)).await
}

fn gap(end: &ContainerEnd, stored: i64, capped: bool) -> Option<String> {
    let Ok(report) = AgentReport::decode(end.message.as_bytes()) else {
        return Some("the agent left no report: whether lines of this log are lost is unknown".to_owned());
    };
    let missing = i64::try_from(report.lines).unwrap_or(i64::MAX) - stored;
    match (missing, capped) {
        (1.., true) => {
            Some(format!("{missing} more lines were printed and not stored: the log is over its size limit"))
        }
        (1.., false) => Some(format!("{missing} lines of this log were lost on the node")),
        (..=-1, _) => Some(format!("{} lines of this log are stored more than once", -missing)),
        _ => None,
    }
}

async fn inspection(pods: &Api<Pod>, pod: &str) -> Result<Option<String>, Error> {
    let params = LogParams {
        container: Some(INSPECT_CONTAINER.to_owned()),
        limit_bytes: Some(INSPECTION_BYTES),
        ..LogParams::default()
    };
    match pods.logs(pod, &params).await {
        Ok(document) => Ok(Some(document)),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_follower_that_panics_is_started_again_and_after_three_times_set_aside() {
        let starts = Cell::new(0);
        let metrics = Metrics::default();
        let follow = async |_| -> Result<(), Interrupted<()>> {
            starts.set(starts.get() + 1);
            unreachable!("a test's panic");
        };
        assert!(matches!(persist(&metrics, Uuid::nil(), follow).await, Followed::SetAside));
        assert_eq!(starts.get(), 3);
        assert!(metrics.text().unwrap().contains("image_factory_panics_total{part=\"collector\"} 3"));
    }

    fn end(lines: u64) -> ContainerEnd {
        let report = AgentReport { lines, ..AgentReport::default() };
        ContainerEnd { message: report.encode(), ..ContainerEnd::default() }
    }

    #[test]
    fn a_gap_is_told_exactly_where_the_agent_counted() {
        assert_eq!(gap(&end(7), 7, false), None);
        assert_eq!(gap(&end(9), 7, false).unwrap(), "2 lines of this log were lost on the node");
        assert_eq!(gap(&end(5), 7, false).unwrap(), "2 lines of this log are stored more than once");
        assert!(gap(&end(9), 7, true).unwrap().starts_with("2 more lines were printed"));
        assert!(gap(&ContainerEnd::default(), 7, false).unwrap().contains("unknown"));
    }
}
