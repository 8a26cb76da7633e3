//! Waiting on a condition, with a deadline and in words.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds; panics with `what` when the deadline passes first.
pub async fn eventually(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(deadline, what, async || condition().await.then_some(())).await;
}

/// Polls `probe` until it yields something; panics with `what` when the deadline passes first.
pub async fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    let poll = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    match timeout_at(end, poll).await {
        Ok(found) => found,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}
