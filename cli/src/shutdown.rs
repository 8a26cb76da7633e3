//! Signals. The first SIGTERM or Ctrl-C begins a clean stop, and a second one stops at once. SIGUSR1 and SIGUSR2, by
//! which other servers reopen their logs, are ignored.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that SIGTERM or SIGINT cancels. Call it inside the runtime.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // The handler stays installed when the stream is dropped, so the signal no longer ends the process.
        drop(signal(kind)?);
    }
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::debug!("stopping");
        shutdown.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(1);
    });
    Ok(token)
}
