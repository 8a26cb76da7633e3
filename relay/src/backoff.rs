//! The repetition of calls of the store and the queue.

use std::time::Duration;

use backon::ExponentialBuilder;
use push::ports::Unavailable;

/// Backs off from a store that does not answer: until it does. The jitter doubles a delay at most, so whoever waits
/// goes on within five seconds.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_millis(2500))
        .without_max_times()
}

pub(crate) fn report(error: &Unavailable, _: Duration) {
    tracing::error!(%error, "the queue or the store does not answer; trying again");
}
