//! A deleted Build cancels what of it is live. The watch only hands over its UID: Postgres may be
//! away, and the watch waits for nobody.

use std::time::Duration;

use image_factory_core::reason::Reason;
use tokio::sync::mpsc;

use crate::{db::builds, runtime::Context};

const RETRY: Duration = Duration::from_secs(5);

/// Cancels for ever what comes. One that fails comes again, after the others; what an operator that
/// dies leaves undone is the sweep's.
pub async fn cancel(
    context: &Context,
    again: mpsc::UnboundedSender<String>,
    mut uids: mpsc::UnboundedReceiver<String>,
) {
    while let Some(uid) = uids.recv().await {
        let cancelled = builds::request_cancel(&context.pool, &uid, Reason::Deleted, "the Build was deleted").await;
        if let Err(error) = cancelled {
            tracing::warn!(build.uid = uid, %error, "a deleted Build could not be cancelled; it is tried again");
            context.metrics.failed("build");
            tokio::time::sleep(RETRY).await;
            // The receiver is this function's.
            let _ = again.send(uid);
        }
    }
}
