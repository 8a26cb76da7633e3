//! Waits for a condition, with a deadline and a description.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The deadline of events that come at once on an idle machine. A test that passes never waits for it. It is long,
/// because a busy machine is slow.
pub const SOON: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds. Panics with `what` when the deadline passes first.
pub async fn eventually(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(deadline, what, async || condition().await.then_some(())).await;
}

/// Polls `probe` until it yields a value. Panics with `what` when the deadline passes first.
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

/// Polls `probe` until `holds` is true of its value, and returns the value. Panics with `what` and the last value when
/// the deadline passes first.
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

/// Lets time pass if the test is about its passing: an outage lasts, or a sender waits as it was told. A test must not
/// wait for an event by it.
pub async fn time_passes(time: Duration) {
    sleep(time).await;
}

/// Lets time pass as `time_passes` does, up to a moment, such as the end of a registration's life.
pub async fn time_passes_until(moment: Instant) {
    sleep_until(moment).await;
}
