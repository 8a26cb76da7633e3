//! Failures of the stores: a 503 for the sender, and a line in the log for the operator.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use push::ports::{NotQueued, Unavailable};

use crate::{rejection::Rejection, seldom::Seldom};

pub(crate) fn not_queued(error: &NotQueued) -> Rejection {
    match error {
        NotQueued::TooMany => Rejection::QUEUE_SHARE_USED_UP,
        NotQueued::Unavailable(error) => unavailable(error),
    }
}

/// True if the store failed since it last took a push.
static REFUSING: AtomicBool = AtomicBool::new(false);

/// Logs once that the store takes pushes again.
pub(crate) fn note_accepted() {
    static LINE: Seldom = Seldom::new();
    if REFUSING.load(Relaxed)
        && REFUSING.swap(false, Relaxed)
        && let Some(times) = LINE.due()
    {
        tracing::info!(times, "the store takes pushes again");
    }
}

pub(crate) fn unavailable(error: &Unavailable) -> Rejection {
    static LINE: Seldom = Seldom::new();
    REFUSING.store(true, Relaxed);
    if let Some(times) = LINE.due() {
        tracing::error!(%error, times, "a push was answered 503: the store does not take it now");
    }
    Rejection::Unavailable
}
