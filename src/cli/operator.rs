//! `image-factory operator`: wires the parts of the running operator and ends them together.

use std::{net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt;
use image_factory_core::{destination::Ranges, patience::Patience};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::api::resource::Quantity};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter},
        reflector::{self, Store},
        watcher,
    },
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    collector, config, controllers, db, dispatcher, failpoint, http, jobs,
    runtime::{
        Context,
        health::{self, Health, Watch},
        leader::{self, Leadership},
        listener,
        metrics::Metrics,
        shutdown,
    },
    tasks,
};

/// How long the parts may take to end.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// Stored batches that a viewer's tail may be behind before it looks without knowing.
const STORED: usize = 256;

/// Runs until the process is asked to stop.
///
/// # Errors
/// When the process can't be set up, or a part of it ends by itself.
pub async fn run(config: config::Operator) -> anyhow::Result<()> {
    failpoint::configure();
    let stop = CancellationToken::new();
    // The signal's own token tells an end that was asked for from one that was not.
    let asked_to_stop = CancellationToken::new();
    shutdown::on_signal(asked_to_stop.clone(), stop.clone()).context("failed to listen for signals")?;
    let mut cluster = kube::Config::infer().await.context("failed to find the API server")?;
    let streams = Client::try_from(cluster.clone()).context("failed to configure the client of the API server")?;
    cluster.read_timeout = Some(ANSWER);
    let client = Client::try_from(cluster).context("failed to configure the client of the API server")?;
    let context = Context {
        client: client.clone(),
        streams,
        pool: db::pool(&config.database).context("failed to read DATABASE_URL")?,
        recorder: Recorder::new(
            client.clone(),
            Reporter { controller: "image-factory".to_owned(), instance: Some(config.instance.clone()) },
        ),
        jobs: Arc::new(jobs::Settings {
            launch_mode: config.launch_mode,
            images: config.images.clone(),
            packer_plugins: config.packer_plugins.iter().filter(|plugin| !plugin.is_empty()).cloned().collect(),
            requests: config
                .resources
                .requests
                .iter()
                .cloned()
                .map(|(name, amount)| (name, Quantity(amount)))
                .collect(),
            limits: config.resources.limits.iter().cloned().map(|(name, amount)| (name, Quantity(amount))).collect(),
            insecure_registries: config.insecure_registries.iter().filter(|host| !host.is_empty()).cloned().collect(),
            mirrors: config.registry_mirrors.clone(),
            sources: jobs::source::Settings {
                insecure_protocols: config.source_protocols.clone(),
                authorities: config.source_authorities.clone(),
                mebibytes: config.source_mebibytes.get(),
            },
        }),
        metrics: Metrics::default(),
        health: Health::default(),
        stored: broadcast::channel(STORED).0,
        patience: Patience { start: config.image_pull_deadline, unschedulable: config.unschedulable_deadline },
        followed: Arc::default(),
        log_bytes: config.log_bytes,
        records_users: config.record_users,
    };

    let config::Notifications { unencrypted, ranges, cluster_ranges } = config.notifications.clone();
    let ranges = Ranges { allowed: ranges, forbidden: cluster_ranges };
    let external_url = config.external_url.clone();
    let sender = tasks::notifier::Sender::new(tasks::notifier::Settings { unencrypted, ranges, external_url })
        .context("failed to configure the client that sends notifications")?;

    let mut parts = JoinSet::new();
    let probes = listen(config.health_listen).await?;
    parts.spawn(http::serve(probes, http::probes(&context), http::PROBES, stop.clone()));
    let readers = db::readers(&config.database).context("failed to read DATABASE_URL")?;
    let receivers = db::receivers(&config.database).context("failed to read DATABASE_URL")?;
    let hooks = http::Hooks::new(client, receivers, context.metrics.clone(), config.webhook_rate);
    let answers = http::router(Context { pool: readers, ..context.clone() }, stop.clone()).merge(http::hooks(hooks));
    if let Some(folder) = &config.tls_folder {
        let tls = http::acceptor(folder).context("failed to serve by https")?;
        let listener = listen(config.tls_listen).await?;
        // Strangers reach this port: neither health nor metrics are theirs.
        parts.spawn(http::serve_encrypted(tls, listener, answers.clone(), http::CONNECTIONS, stop.clone()));
    }
    let answers = answers.merge(http::probes(&context));
    parts.spawn(http::serve(listen(config.listen).await?, answers, http::CONNECTIONS, stop.clone()));

    parts.spawn(health::watch_database(context.pool.clone(), context.health.clone(), stop.clone()));
    if let Some(leadership) = stop.run_until_cancelled(lead(&context, &config)).await {
        context.health.lead();
        parts.spawn(leader::hold(leadership, stop.clone()));
        start(&mut parts, &context, &config, sender, &stop);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "this operator leads");
        // A part that ends by itself ends the process: Kubernetes starts it whole again.
        parts.join_next().await;
    }
    let asked = asked_to_stop.is_cancelled();
    stop.cancel();
    let _ = tokio::time::timeout(SHUTDOWN, async { while parts.join_next().await.is_some() {} }).await;
    anyhow::ensure!(asked, "a part of the operator ended by itself");
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}

/// Postgres may come later than the operator: until then it is live and not ready.
async fn lead(context: &Context, config: &config::Operator) -> Leadership {
    while let Err(error) = db::MIGRATIONS.run(&context.pool).await {
        tracing::warn!(%error, "the database could not be brought up to date; it is tried again");
        tokio::time::sleep(RETRY).await;
    }
    loop {
        match leader::lead(context.client.clone(), &config.namespace, &config.instance).await {
            Ok(leadership) => return leadership,
            Err(error) => tracing::warn!(%error, "the lease could not be had; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn start(
    parts: &mut JoinSet<()>,
    context: &Context,
    config: &config::Operator,
    sender: tasks::notifier::Sender,
    stop: &CancellationToken,
) {
    let settings = tasks::Settings {
        heartbeat: tasks::heartbeat::Settings {
            worker_builds: i32::from(config.worker_builds.get().cast_signed()),
            tenant_builds: i32::from(config.tenant_builds.get().cast_signed()),
            queued_minutes: config.queued_minutes.map(|minutes| i32::from(minutes.get())),
        },
        log_days: config.log_days,
        old_rows: tasks::old_rows::Days {
            deliveries: NonZeroU16::new(config.delivery_days),
            slots: NonZeroU16::new(config.slot_days),
        },
    };
    let woken = listener::TaskWakes::default();
    tasks::spawn(parts, context, settings, sender, woken.clone(), stop);
    let dispatcher = listener::DispatcherWakes::default();
    let (changed, rows_changed) = mpsc::unbounded_channel();
    let (schedule_changed, schedule_rows) = mpsc::unbounded_channel();
    let wakes = listener::Wakes { dispatcher: dispatcher.clone(), tasks: woken, changed, schedule_changed };
    parts.spawn(listener::run(context.pool.clone(), wakes, stop.clone()));
    parts.spawn(dispatcher::run(context.clone(), dispatcher, stop.clone()));
    parts.spawn(collector::run(context.clone(), stop.clone()));

    parts.spawn(controllers::build::run(context.clone(), rows_changed, stop.clone()));
    parts.spawn(controllers::schedules::run(context.clone(), schedule_rows, stop.clone()));
    let (namespaces, watch) = namespaces(context);
    parts.spawn(stopped_by(stop.clone(), watch));
    let webhooks = controllers::webhooks::Settings {
        external_url: config.external_url.clone(),
        sends_unencrypted: config.notifications.unencrypted,
    };
    parts.spawn(of_tenants(context.clone(), namespaces, config.namespace.clone(), webhooks, stop.clone()));
}

/// A policy, a worker and a webhook are their namespace's: they wait until all namespaces are known.
async fn of_tenants(
    context: Context,
    namespaces: Namespaces,
    home: String,
    webhooks: controllers::webhooks::Settings,
    stop: CancellationToken,
) {
    let known = stop.run_until_cancelled(namespaces.wait_until_ready()).await;
    if matches!(known, Some(Ok(()))) {
        tokio::join!(
            controllers::policies::run(context.clone(), namespaces.clone(), stop.clone()),
            controllers::workers::run(context.clone(), namespaces.clone(), home, stop.clone()),
            controllers::webhooks::run(context, namespaces, webhooks, stop),
        );
    }
}

type Namespaces = Store<PartialObjectMeta<Namespace>>;

fn namespaces(context: &Context) -> (Namespaces, impl Future<Output = ()> + Send + use<>) {
    let (store, writer) = reflector::store();
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(context.watching(Watch::Namespaces));
    let watch = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    let health = context.health.clone();
    let drained = async move {
        let mut watch = std::pin::pin!(watch);
        while let Some(event) = watch.next().await {
            match event {
                Ok(watcher::Event::InitDone) => health.synced(Watch::Namespaces),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the watch of namespaces broke; it is made again"),
            }
        }
    };
    (store, drained)
}

async fn stopped_by(stop: CancellationToken, part: impl Future<Output = ()>) {
    stop.run_until_cancelled(part).await;
}
