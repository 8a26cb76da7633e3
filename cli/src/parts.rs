//! The parts of a server: HTTP listeners, and how all parts start, end and stop together.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long requests that are under way at a stop may take, and with them everything else.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Listens on an address that `variable` names.
pub(crate) async fn listen(address: SocketAddr, variable: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: stop what does, or set {variable} to a free port of this machine"
        )
    })
}

/// Answers requests until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listener.tap_io(|socket| {
        // An answer is one small write: it must not wait for the sender's acknowledgement.
        let _ = socket.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serving.into_future().await.context("the HTTP server has ended")
}

/// Waits for every part. One that ends before the stop, or fails, stops the others.
pub(crate) async fn wait(
    mut parts: JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let first = tokio::select! {
        first = parts.join_next() => first,
        () = stop.cancelled() => None,
    };
    let failed = first.map(|ended| match ended {
        Ok(Ok(())) if stop.is_cancelled() => Ok(()),
        Ok(Ok(())) => Err(anyhow!("a part of the server has ended")),
        Ok(Err(error)) => Err(error),
        Err(died) => Err(anyhow!("a part of the server has died: {died}")),
    });
    stop.cancel();
    let rest = async {
        let mut outcome = failed.unwrap_or(Ok(()));
        while let Some(ended) = parts.join_next().await {
            outcome = outcome.and(ended.map_err(anyhow::Error::from).flatten());
        }
        outcome
    };
    let outcome = timeout(STOP_TIMEOUT, rest).await.unwrap_or_else(|_| {
        tracing::warn!("what was still under way after ten seconds was cut off; pushes with a 201 are kept");
        Ok(())
    });
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}
