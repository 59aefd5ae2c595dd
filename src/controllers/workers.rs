//! The controller of BuildWorkers: the table declares exactly what the cluster holds, each worker as well as
//! its nodes are. Any change writes the whole set in one statement, so a deletion that nobody saw is made
//! good too. The set is read from the API server, and the older of two never replaces the newer. What a round finds is written where it differs from what is told.

mod nodes;
mod report;

use std::{future, pin::pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use image_factory_core::worker_health::{self, health};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
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
    kube_ext,
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
    nodes: Store<Node>,
    namespaces: Namespaces,
    /// The operator's own namespace: its workers serve every tenant.
    home: String,
}

/// Runs until `stop`.
pub async fn run(context: Context, namespaces: Namespaces, home: String, stop: CancellationToken) {
    let watch = watcher(Api::<BuildWorker>::all(context.watching(Watch::Workers)), watcher::Config::default());
    let of_workers = changes(&context, Watch::Workers, watch.default_backoff());
    let (nodes, writer) = reflector::store();
    let watch = watcher(Api::all(context.watching(Watch::Nodes)), watcher::Config::default());
    let pruned = watch.default_backoff().modify(nodes::forget_the_rest);
    let of_nodes = changes(&context, Watch::Nodes, pruned.reflect(writer));
    let mut events = pin!(stream::select(of_workers, of_nodes));
    let seen = Seen { nodes, namespaces, home };

    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut workers_known, mut nodes_known) = (false, false);
    let (mut changed, mut asks) = (false, Asks::default());
    let mut not_before = Instant::now();
    let mut written = Written::default();
    stop.run_until_cancelled(async {
        loop {
            tokio::select! {
                Some(watch) = events.next() => {
                    workers_known |= watch == Watch::Workers;
                    nodes_known |= watch == Watch::Nodes;
                    asks.of_workers |= watch == Watch::Workers;
                    changed = true;
                }
                _ = beat.tick() => (changed, asks.beats) = (true, true),
                // Before both lists are whole every worker would be deleted, or offline.
                () = sleep_until(not_before), if changed && workers_known && nodes_known => {
                    match round(&context, &seen, &mut written, asks).await {
                        Ok(()) => {
                            (changed, asks) = (false, Asks::default());
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

/// One item a change; the first when the list is whole.
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

/// What a round is made for, beside nodes.
#[derive(Clone, Copy, Default)]
struct Asks {
    /// A worker has changed.
    of_workers: bool,
    /// All is to be written.
    beats: bool,
}

/// What was last written, and from which nodes.
#[derive(Default)]
struct Written {
    nodes: Vec<worker_health::Node>,
    declared: Vec<Declared>,
}

/// Writes what differs from what was `written`; with a beat all of it.
async fn round(context: &Context, seen: &Seen, written: &mut Written, asks: Asks) -> Result<(), Error> {
    let mut nodes: Vec<_> = seen.nodes.state().iter().map(|node| nodes::of(node)).collect();
    // The store has no order.
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    // Mostly a Node only says that it is there: of that no worker is another.
    if nodes == written.nodes && !asks.of_workers && !asks.beats {
        return Ok(());
    }
    let (workers, version) = kube_ext::list_all::<BuildWorker>(&context.client).await?;
    let mut found = Vec::with_capacity(workers.len());
    for worker in &workers {
        if let Some(tenant) = tenant(context, seen, &worker.namespace().unwrap_or_default()).await? {
            found.push((worker, declared(worker, tenant, &nodes)));
        }
    }
    let declared: Vec<Declared> = found.iter().map(|(_, declared)| declared.clone()).collect();
    if written.declared == declared && !asks.beats {
        written.nodes = nodes;
        return Ok(());
    }
    if !db::workers::declare(&context.pool, &declared, version).await? {
        tracing::warn!(version, "workers listed at this version are older than those in force; they are left alone");
        return Ok(());
    }
    let states = db::workers::states(&context.pool).await?;
    for (worker, Declared { tenant, name, .. }) in &found {
        let uid = tenant.as_ref().map(|tenant| &tenant.uid);
        let Some(state) = states.iter().find(|state| state.tenant_uid.as_ref() == uid && state.name == *name) else {
            continue;
        };
        // One that can't be told holds up no other, and is told with the next beat.
        if let Err(error) = report::report(context, worker, state, asks.beats).await {
            tracing::warn!(worker = name, %error, "a worker's status could not be written");
            context.metrics.failed("workers");
        }
    }
    *written = Written { nodes, declared };
    Ok(())
}

fn declared(worker: &BuildWorker, tenant: Option<TenantName>, nodes: &[worker_health::Node]) -> Declared {
    let spec = &worker.spec;
    let tolerations: Vec<_> = spec.tolerations.iter().map(Into::into).collect();
    Declared {
        tenant,
        name: worker.name_any(),
        concurrent_builds: spec.concurrent_builds,
        zone: spec.zone.clone(),
        labels: spec.labels.clone(),
        methods: spec.methods.clone(),
        cordoned: spec.cordon,
        node_selector: spec.node_selector.clone(),
        tolerations: spec.tolerations.clone(),
        health: health(nodes, &spec.node_selector, &tolerations),
    }
}

/// Whom a worker in this namespace serves: one tenant, or all. `None` where the namespace is gone.
async fn tenant(context: &Context, seen: &Seen, namespace: &str) -> Result<Option<Option<TenantName>>, kube::Error> {
    if namespace == seen.home {
        return Ok(Some(None));
    }
    let uid = kube_ext::uid_of_namespace(&context.client, &seen.namespaces, namespace).await?;
    Ok(uid.map(|uid| Some(TenantName { uid, name: namespace.to_owned() })))
}
