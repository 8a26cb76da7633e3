//! The clock that leases go by, and the sign of a process that stood still.

use std::{fmt, sync::Arc, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A timer that comes so late tells that the process stood still.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(2);

/// A clock that shows the time since the machine's start, and goes on while it is suspended; or a simulated one.
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::Monotonic;
        Self::new(|| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(CLOCK);
            // Neither is ever negative, nor are there more nanoseconds than a second has.
            Duration::new(tv_sec.unsigned_abs(), tv_nsec.unsigned_abs() as u32)
        })
    }

    /// One that shows what `now` says.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uptime")
    }
}
