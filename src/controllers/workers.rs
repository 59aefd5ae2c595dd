//! The controller of BuildWorkers: the table declares exactly what the cluster holds, each worker as well as
//! its nodes are. Any change writes the whole set in one statement, so a deletion that nobody saw is made
//! good too. What a round finds is written where it differs from what is told.

mod nodes;
mod report;

use std::{future, pin::pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use image_factory_core::worker_health::health;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    crd::BuildWorker,
    db::{
        self,
        workers::{Declared, TenantName},
    },
    runtime::{Context, health::Watch},
};

/// Between two rounds at least: nodes change often, and each round looks at all of them.
const PAUSE: Duration = Duration::from_secs(1);
/// After a round that failed.
const RETRY: Duration = Duration::from_secs(5);
/// A round that writes is made at least this often. Only then are numbers told, which move all the time.
const BEAT: Duration = Duration::from_secs(30);

pub type Namespaces = Store<PartialObjectMeta<Namespace>>;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// What the cluster holds.
struct Seen {
    workers: Store<BuildWorker>,
    nodes: Store<Node>,
    namespaces: Namespaces,
    /// The operator's own namespace: its workers serve every tenant.
    home: String,
}

/// Runs until `stop`.
pub async fn run(context: Context, namespaces: Namespaces, home: String, stop: CancellationToken) {
    let (workers, writer) = reflector::store();
    let watch = watcher(Api::all(context.watching(Watch::Workers)), watcher::Config::default());
    let of_workers = changes(&context, Watch::Workers, watch.default_backoff().reflect(writer));
    let (nodes, writer) = reflector::store();
    let watch = watcher(Api::all(context.watching(Watch::Nodes)), watcher::Config::default());
    let pruned = watch.default_backoff().modify(nodes::forget_the_rest);
    let of_nodes = changes(&context, Watch::Nodes, pruned.reflect(writer));
    let mut events = pin!(stream::select(of_workers, of_nodes));
    let seen = Seen { workers, nodes, namespaces, home };

    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut workers_known, mut nodes_known) = (false, false);
    let (mut changed, mut beats) = (false, false);
    let mut not_before = Instant::now();
    let mut written = Vec::new();
    stop.run_until_cancelled(async {
        loop {
            tokio::select! {
                Some(watch) = events.next() => {
                    workers_known |= watch == Watch::Workers;
                    nodes_known |= watch == Watch::Nodes;
                    changed = true;
                }
                _ = beat.tick() => (changed, beats) = (true, true),
                // Before both lists are whole every worker would be deleted, or offline.
                () = sleep_until(not_before), if changed && workers_known && nodes_known => {
                    match round(&context, &seen, &mut written, beats).await {
                        Ok(whole) => {
                            (changed, beats) = (!whole, false);
                            not_before = Instant::now() + PAUSE;
                        }
                        Err(error) => {
                            tracing::warn!(%error, "workers could not be brought in line; it is tried again");
                            context.metrics.failed("workers");
                            not_before = Instant::now() + RETRY;
                        }
                    }
                }
            }
        }
    })
    .await;
}

/// One item a change that the store behind the watch has taken up; the first when its list is whole.
fn changes<K: 'static>(
    context: &Context,
    watch: Watch,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
) -> impl Stream<Item = Watch> {
    let health = context.health.clone();
    events.filter_map(move |event| {
        future::ready(match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(watcher::Event::InitDone) => {
                health.synced(watch);
                Some(watch)
            }
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => Some(watch),
            Err(error) => {
                tracing::warn!(?watch, %error, "a watch broke; it is made again");
                None
            }
        })
    })
}

/// Writes what differs from what was `written`; with `beats` all of it. `false`: a worker's namespace is not known
/// yet.
async fn round(context: &Context, seen: &Seen, written: &mut Vec<Declared>, beats: bool) -> Result<bool, Error> {
    let workers = seen.workers.state();
    let nodes: Vec<_> = seen.nodes.state().iter().map(|node| nodes::of(node)).collect();
    let mut declared: Vec<Declared> = workers
        .iter()
        .filter_map(|worker| {
            let tolerations: Vec<_> = worker.spec.tolerations.iter().map(Into::into).collect();
            let spec = &worker.spec;
            Some(Declared {
                tenant: tenant(seen, &worker.namespace()?)?,
                name: worker.name_any(),
                concurrent_builds: spec.concurrent_builds,
                zone: spec.zone.clone(),
                labels: spec.labels.clone(),
                methods: spec.methods.clone(),
                cordoned: spec.cordon,
                node_selector: spec.node_selector.clone(),
                tolerations: spec.tolerations.clone(),
                health: health(&nodes, &spec.node_selector, &tolerations),
            })
        })
        .collect();
    // The store has no order.
    declared.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
    let whole = declared.len() == workers.len();
    if *written == declared && !beats {
        return Ok(whole);
    }
    db::workers::declare(&context.pool, &declared).await?;
    let states = db::workers::states(&context.pool).await?;
    for worker in &workers {
        let tenant = worker.namespace().and_then(|namespace| tenant(seen, &namespace));
        let state = states.iter().find(|state| {
            tenant.as_ref().is_some_and(|tenant| tenant.as_ref().map(|tenant| &tenant.uid) == state.tenant_uid.as_ref())
                && state.name == worker.name_any()
        });
        if let Some(state) = state {
            report::report(context, worker, state, beats).await?;
        }
    }
    *written = declared;
    Ok(whole)
}

/// Whom a worker in this namespace serves: one tenant, or all. `None` where the namespace is not known (yet).
#[expect(clippy::option_option, reason = "the inner one is a worker's own: none is every tenant")]
fn tenant(seen: &Seen, namespace: &str) -> Option<Option<TenantName>> {
    if namespace == seen.home {
        return Some(None);
    }
    let uid = seen.namespaces.get(&ObjectRef::new(namespace))?.uid()?;
    Some(Some(TenantName { uid, name: namespace.to_owned() }))
}
