//! The controller of WebhookConfigs: the table holds exactly what the cluster holds, so that every replica knows which
//! deliveries to take. Any change writes the whole set in one statement; the set is read from the API server, and the
//! older of two never replaces the newer. Statuses are projections of rows, told where they differ from what was told.

mod report;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, reflector::Store, watcher},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::report::Trouble;
use crate::{
    crd::WebhookConfig,
    db::{
        self,
        webhooks::{self, Declared},
        workers::TenantName,
    },
    kube_ext,
    runtime::{Context, health::Watch},
};

/// What has come is told at least this late; and a round that failed is made again.
const BEAT: Duration = Duration::from_secs(5);
/// Between two lists at least: our own statuses change the objects too.
const PAUSE: Duration = Duration::from_secs(1);
/// How old the knowledge of a Secret may be that could be used, and of one that could not.
const USABLE: Duration = Duration::from_mins(10);
const UNUSABLE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// What the controller knows from its last rounds. It may forget all of it.
#[derive(Default)]
struct Seen {
    webhooks: Vec<WebhookConfig>,
    /// By UID and generation: whether the Secrets can be used, and when that was seen.
    secrets: HashMap<(String, i64), (Instant, Option<Trouble>)>,
}

/// What the installation says of webhooks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where this server is reached from outside.
    pub external_url: Option<String>,
    /// Whether notifications may go over http.
    pub sends_unencrypted: bool,
}

impl Settings {
    /// Where a webhook receives.
    fn url(&self, namespace: &str, name: &str) -> Option<String> {
        self.external_url.as_ref().map(|url| format!("{url}/hooks/{namespace}/{name}"))
    }
}

/// Runs until `stop`.
pub async fn run(
    context: Context,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    settings: Settings,
    stop: CancellationToken,
) {
    let api: Api<WebhookConfig> = Api::all(context.watching(Watch::Webhooks));
    let large = watcher::Config::default().page_size(kube_ext::BUILDS);
    let mut events = std::pin::pin!(watcher(api, large).default_backoff());
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    let (mut is_known, mut changed) = (false, false);
    let mut listed = Instant::now().checked_sub(PAUSE);
    stop.run_until_cancelled(async {
        loop {
            tokio::select! {
                event = events.try_next() => match event {
                    // A list counts when it is whole.
                    Ok(Some(watcher::Event::Init | watcher::Event::InitApply(_))) => continue,
                    Ok(Some(watcher::Event::InitDone)) => {
                        context.health.synced(Watch::Webhooks);
                        (is_known, changed) = (true, true);
                    }
                    Ok(Some(watcher::Event::Apply(_) | watcher::Event::Delete(_))) => changed = true,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the watch of webhooks broke; it is made again");
                        continue;
                    }
                },
                _ = beat.tick() => {}
                () = tokio::time::sleep(PAUSE), if changed => {}
            }
            if !is_known {
                continue;
            }
            let is_due = changed && listed.is_none_or(|listed| listed.elapsed() >= PAUSE);
            if changed && !is_due {
                continue;
            }
            if is_due {
                listed = Some(Instant::now());
            }
            match round(&context, &namespaces, &settings, &mut seen, is_due).await {
                Ok(()) => changed &= !is_due,
                Err(error) => {
                    tracing::warn!(%error, "webhooks could not be brought in line; it is tried again");
                    context.metrics.failed("webhooks");
                }
            }
        }
    })
    .await;
}

async fn round(
    context: &Context,
    namespaces: &Store<PartialObjectMeta<Namespace>>,
    settings: &Settings,
    seen: &mut Seen,
    list: bool,
) -> Result<(), Error> {
    if list {
        let (found, version) = kube_ext::list_all::<WebhookConfig>(&context.client).await?;
        let mut declared = Vec::with_capacity(found.len());
        for webhook in &found {
            let namespace = webhook.namespace().unwrap_or_default();
            if let Some(uid) = kube_ext::uid_of_namespace(&context.client, namespaces, &namespace).await? {
                declared.push(row(webhook, TenantName { name: namespace, uid }, settings));
            }
        }
        if !webhooks::declare(&context.pool, &declared, version).await? {
            tracing::warn!(
                version,
                "webhooks listed at this version are older than those in force; they are left alone"
            );
            return Ok(());
        }
        seen.webhooks = found;
    }
    let uids: Vec<String> = seen.webhooks.iter().filter_map(ResourceExt::uid).collect();
    if uids.is_empty() {
        return Ok(());
    }
    let told = webhooks::statuses(&context.pool, &uids).await?;
    seen.secrets.retain(|(uid, _), _| told.contains_key(uid));
    for webhook in &mut seen.webhooks {
        let uid = webhook.uid().unwrap_or_default();
        let Some(told) = told.get(&uid) else { continue };
        let trouble = match report::refused(&webhook.spec, told, settings) {
            Some(refused) => Some(refused),
            None => secrets_trouble(context, &mut seen.secrets, webhook).await?,
        };
        // One that can't be told holds up no other, and is told in the next round.
        if let Err(error) = report::report(context, webhook, told, trouble.as_ref(), settings).await {
            let (namespace, name) = (webhook.namespace(), webhook.name_any());
            tracing::warn!(webhook.namespace = namespace, webhook.name = name, %error, "a webhook's status could not be written");
            context.metrics.failed("webhooks");
        }
    }
    Ok(())
}

fn row(webhook: &WebhookConfig, tenant: TenantName, settings: &Settings) -> Declared {
    let name = webhook.name_any();
    Declared {
        url: match &webhook.spec.notify {
            Some(notify) => Some(notify.url.clone()),
            None => settings.url(&tenant.name, &name),
        },
        name,
        uid: webhook.uid().unwrap_or_default(),
        spec: webhook.spec.clone(),
        tenant,
    }
}

/// Why no delivery can be verified, read again from time to time: nothing tells when a Secret changes.
async fn secrets_trouble(
    context: &Context,
    known: &mut HashMap<(String, i64), (Instant, Option<Trouble>)>,
    webhook: &WebhookConfig,
) -> Result<Option<Trouble>, Error> {
    let key = (webhook.uid().unwrap_or_default(), webhook.metadata.generation.unwrap_or_default());
    if let Some((at, trouble)) = known.get(&key)
        && at.elapsed() < if trouble.is_some() { UNUSABLE } else { USABLE }
    {
        return Ok(trouble.clone());
    }
    let namespace = webhook.namespace().unwrap_or_default();
    let mut values = Vec::new();
    for entry in webhook.spec.secrets() {
        let value = kube_ext::secret_entry(&context.client, &namespace, entry).await?;
        values.push((entry.clone(), value));
    }
    let trouble = report::trouble(&webhook.spec, &values);
    known.insert(key, (Instant::now(), trouble.clone()));
    Ok(trouble)
}
