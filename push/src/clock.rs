//! The wall clock, passed to the code that needs the time. Its reading may be in doubt.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

/// The time that a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time to go by.
    pub now: DateTime<Utc>,
    /// The time that the machine's clock shows. While it differs from `now`, one of the two is wrong, and nobody knows
    /// which.
    pub wall: DateTime<Utc>,
}

impl Reading {
    /// Makes a reading of a trusted clock.
    #[must_use]
    pub const fn certain(now: DateTime<Utc>) -> Self {
        Self { now, wall: now }
    }

    /// Returns whether the clock is in doubt: then no endpoint may be ended for good.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.now != self.wall
    }

    /// Returns the earlier of the two times, which has passed for certain.
    #[must_use]
    pub fn least(&self) -> DateTime<Utc> {
        self.now.min(self.wall)
    }

    /// Returns how far the machine's clock is ahead of the time to go by.
    #[must_use]
    pub fn ahead(&self) -> TimeDelta {
        (self.wall - self.now).max(TimeDelta::zero())
    }
}

/// A wall clock: the system's, a guarded or a simulated one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Reading + Send + Sync>);

impl Clock {
    /// Returns the system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the edge; what decides takes `now` from here")]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// Makes a trusted clock that shows what `now` returns.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Reading::certain(now())))
    }

    /// Makes a clock whose readings may be in doubt.
    pub fn guarded(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the clock.
    #[must_use]
    pub fn read(&self) -> Reading {
        (self.0)()
    }

    /// Returns the time to go by.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.read().now
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_clock_that_shows_another_time_than_the_machines_is_in_doubt() {
        for (wall, least, ahead) in [(0, 0, 0), (9, 0, 9), (-9, -9, 0)] {
            let reading = Reading { now: at(0), wall: at(wall) };
            assert_eq!(reading.is_in_doubt(), wall != 0, "{wall}");
            assert_eq!((reading.least(), reading.ahead()), (at(least), TimeDelta::seconds(ahead)), "{wall}");
        }
        assert_eq!(Clock::new(|| at(1)).read(), Reading::certain(at(1)));
        assert_eq!(format!("{:?}", Clock::new(|| at(1))), "Clock");
    }
}
