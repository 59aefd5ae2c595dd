//! SIGTERM and SIGINT ask every part to stop at its next step.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `asked`, then `stop`, at the first signal.
///
/// # Errors
/// When the process can't listen for signals.
pub fn on_signal(asked: CancellationToken, stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        asked.cancel();
        stop.cancel();
    });
    Ok(())
}
