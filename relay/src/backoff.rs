//! The repetition of failed calls of the store and the queue.

use std::time::Duration;

use backon::ExponentialBuilder;
use push::ports::Unavailable;

/// Returns the delays between calls of a store that does not answer; they do not end. Jitter at most doubles a delay,
/// so that a caller goes on within five seconds after the store is back.
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
