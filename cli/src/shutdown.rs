//! Signals: the first SIGTERM or Ctrl-C asks for a clean stop, a second one stops at once; SIGUSR1 and SIGUSR2, which other
//! servers reopen their logs by, end nothing.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM or SIGINT. Call it inside the runtime.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // Once it is listened for, it does not end the process any more, whoever listens.
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
