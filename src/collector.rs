//! The collector: follows the Pod of every running attempt, stores its log as it grows, and
//! finishes the attempt when the Pod has nothing more to come. One task a Pod; the watch tells each
//! task what its Pod is now.

mod finish;
mod follow;
mod lines;
mod log;
mod pod;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use image_factory_core::{ids, outcome::Ending};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{self, launches},
    jobs::labels,
    runtime::{Context, health::Watch},
};

/// How often attempts without a Pod are looked for.
const SEARCH: Duration = Duration::from_secs(15);
/// A Job younger than this may not have its Pod yet.
const PATIENCE_SECONDS: f64 = 20.0;

/// What a task knows of its Pod.
#[derive(Clone, Debug)]
pub struct Seen {
    pub pod: Arc<Pod>,
    /// The Pod is no longer in the cluster; `pod` is how it was last.
    pub gone: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("failed to read a log: {0}")]
    Log(#[from] std::io::Error),
}

struct Follower {
    seen: watch::Sender<Seen>,
    task: AbortHandle,
}

struct Collector {
    context: Context,
    /// By the attempt's id. A finished one stays until its Pod is gone, so that it is not begun again.
    followers: HashMap<Uuid, Follower>,
    tasks: JoinSet<()>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let mut collector = Collector { context, followers: HashMap::new(), tasks: JoinSet::new() };
    stop.run_until_cancelled(Box::pin(collector.run())).await;
}

impl Collector {
    async fn run(&mut self) {
        let api: Api<Pod> = Api::all(self.context.watching(Watch::Pods));
        let of_builds = watcher::Config::default().labels(labels::BUILD_ID);
        let mut events = std::pin::pin!(watcher(api, of_builds).default_backoff());
        let mut search = tokio::time::interval(SEARCH);
        // Pods of a new list, to find those that went while the watch was broken.
        let mut listed: Vec<Uuid> = Vec::new();
        loop {
            tokio::select! {
                event = events.try_next() => match event {
                    Ok(Some(watcher::Event::Init)) => listed.clear(),
                    Ok(Some(watcher::Event::InitApply(pod))) => {
                        listed.extend(build_id(&pod));
                        self.saw(pod, false);
                    }
                    Ok(Some(watcher::Event::InitDone)) => {
                        self.forget_all_but(&listed);
                        self.context.health.synced(Watch::Pods);
                    }
                    Ok(Some(watcher::Event::Apply(pod))) => self.saw(pod, false),
                    Ok(Some(watcher::Event::Delete(pod))) => self.saw(pod, true),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the watch of Pods broke; it is made again");
                        self.context.metrics.failed("collector");
                    }
                },
                _ = search.tick() => if let Err(error) = self.end_the_lost().await {
                    tracing::warn!(%error, "attempts without a Pod could not be looked for; it is tried again");
                    self.context.metrics.failed("collector");
                },
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn saw(&mut self, pod: Pod, gone: bool) {
        let Some(id) = build_id(&pod) else { return };
        let seen = Seen { pod: Arc::new(pod), gone };
        match self.followers.get(&id) {
            Some(follower) => {
                follower.seen.send_replace(seen);
            }
            None => self.follow(id, seen),
        }
        // Its task has what it needs: the channel keeps the last value.
        if gone && self.followers.get(&id).is_some_and(|follower| follower.task.is_finished()) {
            self.followers.remove(&id);
        }
    }

    fn follow(&mut self, id: Uuid, seen: Seen) {
        let (sender, receiver) = watch::channel(seen);
        let task = self.tasks.spawn(follow::run(self.context.clone(), id, receiver));
        self.followers.insert(id, Follower { seen: sender, task });
    }

    /// Pods that are not in a fresh list are gone.
    fn forget_all_but(&mut self, listed: &[Uuid]) {
        self.followers.retain(|id, follower| {
            if listed.contains(id) {
                return true;
            }
            let pod = follower.seen.borrow().pod.clone();
            follower.seen.send_replace(Seen { pod, gone: true });
            !follower.task.is_finished()
        });
    }

    /// Attempts whose Job was made a while ago and that have no Pod: ended when the Job is gone or
    /// has failed, which is asked of the API server, not of a cache.
    async fn end_the_lost(&mut self) -> Result<(), Error> {
        self.followers.retain(|_, follower| !(follower.task.is_finished() && follower.seen.borrow().gone));
        for id in launches::launched(&self.context.pool, PATIENCE_SECONDS).await? {
            if self.followers.contains_key(&id) {
                continue;
            }
            let Some(attempt) = launches::followed(&self.context.pool, id).await? else { continue };
            let jobs: Api<Job> = Api::namespaced(self.context.client.clone(), &attempt.namespace);
            let ending = match jobs.get_opt(&ids::job_name(&attempt.name, id)).await? {
                None => Some(Ending::Gone),
                Some(job) => pod::job_failure(&job),
            };
            if let Some(ending) = ending {
                finish::finish(&self.context, id, &ending, None, None).await?;
            }
        }
        Ok(())
    }
}

fn build_id(pod: &Pod) -> Option<Uuid> {
    pod.labels().get(labels::BUILD_ID)?.parse().ok()
}
