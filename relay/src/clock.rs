//! Where the relay reads the wall clock.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

/// A wall clock: the system's, or a simulated one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The system's.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the relay; what decides takes `now` from here"
    )]
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// One that shows what `now` says.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
