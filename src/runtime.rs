//! What every part of a running operator shares: the cluster's client, the pool, the settings, and
//! the signals by which parts wake each other.

pub mod health;
pub mod leader;
pub mod listener;
pub mod metrics;
pub mod shutdown;

use std::sync::Arc;

use image_factory_core::patience::Patience;
use kube::{
    Client, Resource,
    runtime::events::{Event, Recorder},
};
use sqlx::PgPool;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    db::{launches::Followed, together::Together},
    jobs,
};

/// Cheap to clone: everything inside is shared.
#[derive(Clone)]
pub struct Context {
    /// For requests that are answered at once: one that is not is an error after some seconds.
    pub client: Client,
    /// For watches and logs, which may be silent for as long as they like.
    pub streams: Client,
    pub pool: PgPool,
    pub recorder: Recorder,
    pub jobs: Arc<jobs::Settings>,
    /// Attempts that followers begin with.
    pub followed: Arc<Together<Uuid, Followed>>,
    pub metrics: metrics::Metrics,
    pub health: health::Health,
    /// Attempts of which this process has just stored more log, or the end: their viewers look at once.
    pub stored: broadcast::Sender<Uuid>,
    /// With Pods that can't start.
    pub patience: Patience,
    /// Bytes of log kept for one attempt.
    pub log_bytes: u64,
    /// Whether the annotation that names a Build's user is our admission policy's own, and so may be believed.
    pub records_users: bool,
}

impl Context {
    /// Nobody need listen.
    pub fn has_stored(&self, build: Uuid) {
        let _ = self.stored.send(build);
    }

    /// Publishes an Event about an object. It is a courtesy: the status says the same, and a second try of the
    /// whole would find that written and say nothing. So a failure is said and counted, and goes no further.
    pub async fn publish(&self, object: &impl Resource<DynamicType = ()>, event: &Event) {
        let about = object.object_ref(&());
        if let Err(error) = self.recorder.publish(event, &about).await {
            let (kind, name) = (about.kind, about.name);
            tracing::warn!(kind, name, event.reason = event.reason, %error, "an Event could not be published");
            self.metrics.failed("events");
        }
    }

    /// A client for one watch. A watch is asked for anew every five minutes at the latest, also where
    /// nothing happens: each answer is its sign of life.
    pub fn watching(&self, watch: health::Watch) -> Client {
        let (streams, health) = (self.streams.clone(), self.health.clone());
        let heard = tower::service_fn(move |request| {
            let (streams, health) = (streams.clone(), health.clone());
            async move {
                let response = streams.send(request).await?;
                if response.status().is_success() {
                    health.heard(watch);
                }
                Ok::<_, kube::Error>(response)
            }
        });
        Client::new(heard, self.streams.default_namespace())
    }
}
