//! What every part of a running operator shares: the cluster's client, the pool, the settings, and
//! the signals by which parts wake each other.

pub mod health;
pub mod leader;
pub mod listener;
pub mod metrics;
pub mod shutdown;

use std::sync::Arc;

use kube::runtime::events::Recorder;
use sqlx::PgPool;

use crate::jobs;

/// Cheap to clone: everything inside is shared.
#[derive(Clone)]
pub struct Context {
    /// For requests that are answered at once: one that is not is an error after some seconds.
    pub client: kube::Client,
    /// For watches and logs, which may be silent for as long as they like.
    pub streams: kube::Client,
    pub pool: PgPool,
    pub recorder: Recorder,
    pub jobs: Arc<jobs::Settings>,
    pub metrics: metrics::Metrics,
    pub health: health::Health,
    /// Bytes of log kept for one attempt.
    pub log_bytes: u64,
}
