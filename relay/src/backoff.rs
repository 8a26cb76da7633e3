//! How calls of the store and the queue are repeated.

use std::time::Duration;

use backon::ExponentialBuilder;
use push::ports::Unavailable;

/// Backs off from a store that does not answer: until it does.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
}

pub(crate) fn report(error: &Unavailable, _: Duration) {
    tracing::error!(%error, "the queue or the store does not answer; trying again");
}
