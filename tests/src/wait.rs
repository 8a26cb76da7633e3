//! Waiting on a condition, with a deadline and in words.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The deadline of what comes at once on an idle machine. A test that passes never waits for it; it is long because
/// a busy machine takes its time.
pub const SOON: Duration = Duration::from_secs(180);

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

/// Polls `probe` until what it yields is as it should be, and returns that; panics with `what` and with what it saw
/// last when the deadline passes first.
pub async fn settles<T: Debug>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> T,
    mut holds: impl FnMut(&T) -> bool,
) -> T {
    let end = Instant::now() + deadline;
    let mut last = None;
    let poll = async {
        loop {
            let seen = probe().await;
            if holds(&seen) {
                return seen;
            }
            last = Some(seen);
            sleep(POLL_INTERVAL).await;
        }
    };
    match timeout_at(end, poll).await {
        Ok(settled) => settled,
        Err(_) => panic!("not within {deadline:?}: {what}; seen last: {last:?}"),
    }
}

/// Lets time pass where its passing is what is tested (an outage lasts, a sender waits as it was told). Nothing may be
/// waited for by it.
pub async fn time_passes(time: Duration) {
    sleep(time).await;
}

/// The same, up to a moment: a life has ended.
pub async fn time_passes_until(moment: Instant) {
    sleep_until(moment).await;
}
