//! Signals: the first SIGTERM or Ctrl-C asks for a clean stop, a second one stops at once; SIGUSR1 and SIGUSR2, which other
//! servers reopen their logs by, end nothing.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that SIGTERM or SIGINT cancels. Call it inside the runtime.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // The handler stays for the life of the process, though nobody listens: the signal no longer ends it.
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
