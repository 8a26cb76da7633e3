//! The clock that leases go by, and the sign that a process stood still.

use std::{fmt, sync::Arc, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Delay of a timer that shows that the process stood still.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(2);

/// A clock of the time since the machine's start, which goes on while the machine is suspended. It may be simulated.
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    /// Returns the system's clock.
    #[must_use]
    pub fn system() -> Self {
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::Monotonic;
        Self::new(|| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(CLOCK);
            // Neither part is ever negative, and the nanoseconds are less than a second.
            Duration::new(tv_sec.unsigned_abs(), tv_nsec.unsigned_abs() as u32)
        })
    }

    /// Makes a clock that shows what `now` returns.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the time that the clock shows.
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
