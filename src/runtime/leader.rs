//! One operator leads, the others stand by. The lease keeps the work from being done twice; that
//! nothing breaks when two lead for a moment (a leader was paused, the API server was away) is
//! Postgres' part: claims take turns, every transition is guarded, every Job has one name.

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "image-factory";
/// Seconds after its last renewal at which a lease is free for another.
const DURATION_SECONDS: u64 = 15;
/// Seconds before that at which the leader renews.
const GRACE_SECONDS: u64 = 10;

/// The lease, held until this is released or the process dies.
pub struct Leadership {
    leads: watch::Receiver<bool>,
    task: JoinHandle<Result<kube_lease_manager::LeaseManager, LeaseManagerError>>,
}

/// Waits to become the leader. `identity` must be this process's alone.
///
/// # Errors
/// When the lease can't be read or made, or the API server refuses it.
pub async fn lead(client: Client, namespace: &str, identity: &str) -> Result<Leadership, LeaseManagerError> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(DURATION_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await?;
    let (mut leads, task) = manager.watch().await;
    // The channel ends only with the process.
    let _ = leads.wait_for(|leads| *leads).await;
    Ok(Leadership { leads, task })
}

impl Leadership {
    /// Waits until another leads.
    pub async fn lost(&mut self) {
        let _ = self.leads.wait_for(|leads| !leads).await;
    }

    /// Frees the lease, so that another need not wait for it to expire.
    pub async fn release(self) {
        let Self { leads, task } = self;
        drop(leads);
        if let Ok(Err(error)) = task.await {
            tracing::warn!(%error, "the lease could not be released; it expires by itself");
        }
    }
}

/// Cancels `stop` when the leadership is lost, and releases it when `stop` is cancelled by others.
pub async fn hold(mut leadership: Leadership, stop: CancellationToken) {
    tokio::select! {
        () = leadership.lost() => {
            tracing::error!("another operator leads now: this one ends and stands by again");
            stop.cancel();
        }
        () = stop.cancelled() => {}
    }
    leadership.release().await;
}
