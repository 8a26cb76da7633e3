//! The parts of a server, which stop together.

use std::time::Duration;

use anyhow::anyhow;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest time of a stop, in which requests under way end.
const SERVE_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for every part. A part that fails, or ends before the stop, stops the others.
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
    let outcome = timeout(SERVE_STOP_TIMEOUT, rest).await.unwrap_or_else(|_| {
        tracing::warn!("what was still under way after ten seconds was cut off; pushes with a 201 are kept");
        Ok(())
    });
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

/// Runs a part that never ends by itself, until `stop`.
pub(crate) async fn until(stop: CancellationToken, part: impl Future<Output = ()>) -> anyhow::Result<()> {
    stop.run_until_cancelled(part).await;
    Ok(())
}
