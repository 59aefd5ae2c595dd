//! The collector: follows the Pod of every running attempt, stores its log as it grows, and
//! finishes the attempt when the Pod has nothing more to come. One task a Pod; the watch tells each
//! task what its Pod is now. Attempts whose Pod the watch will never show are searched for, once it
//! has shown all there are.

mod closing;
mod finish;
mod follow;
mod followers;
mod lines;
pub mod log;
mod pod;
mod reading;
mod search;
mod waiting;

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt;
use image_factory_core::labels;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::followers::{Followers, Start};
use crate::{
    clock, db, kube_ext,
    runtime::{Context, health::Watch},
};

/// How often attempts without a Pod are looked for.
const SEARCH: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Log(#[from] reading::Error),
}

struct Collector {
    context: Context,
    followers: Followers,
    /// One a Pod, ending with its UID.
    tasks: JoinSet<String>,
    /// At most one.
    search: JoinSet<()>,
    /// Every Pod has been seen once.
    synced: bool,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let mut collector = Collector {
        context,
        followers: Followers::default(),
        tasks: JoinSet::new(),
        search: JoinSet::new(),
        synced: false,
    };
    stop.run_until_cancelled(Box::pin(collector.run())).await;
}

impl Collector {
    async fn run(&mut self) {
        let api: Api<Pod> = Api::all(self.context.watching(Watch::Pods));
        // An inline source is in its Pod.
        let of_builds = watcher::Config::default().labels(labels::BUILD_ID).page_size(kube_ext::BUILDS);
        let mut events = std::pin::pin!(watcher(api, of_builds).default_backoff());
        let mut search = tokio::time::interval(SEARCH);
        search.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Pods of a new list, to find those that went while the watch was broken.
        let mut listed: HashSet<String> = HashSet::new();
        loop {
            tokio::select! {
                event = events.try_next() => match event {
                    Ok(Some(watcher::Event::Init)) => listed.clear(),
                    Ok(Some(watcher::Event::InitApply(pod))) => {
                        listed.extend(pod.uid());
                        self.saw(pod, false);
                    }
                    Ok(Some(watcher::Event::InitDone)) => {
                        self.followers.listed(&listed);
                        self.synced = true;
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
                _ = search.tick(), if self.synced && self.search.is_empty() => {
                    self.followers.look_for_lost(clock::now());
                    self.search.spawn(search::run(self.context.clone(), self.followers.builds()));
                }
                Some(ended) = self.search.join_next() => if ended.is_err() {
                    // It is made again.
                    self.context.metrics.panicked("collector");
                    self.context.metrics.failed("collector");
                },
                Some(Ok(pod)) = self.tasks.join_next() => self.followers.finished(&pod),
            }
        }
    }

    fn saw(&mut self, pod: Pod, gone: bool) {
        if let Some(Start { uid, build, seen }) = self.followers.saw(pod, gone) {
            let context = self.context.clone();
            self.tasks.spawn(async move {
                follow::run(context, build, seen).await;
                uid
            });
        }
    }
}
