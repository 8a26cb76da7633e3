//! The wall clock, as it is handed to whoever stamps and judges: perhaps one that nobody should go by for now.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

/// The time that a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time to go by.
    pub now: DateTime<Utc>,
    /// The time that the machine's clock shows. While it is not `now`, one of the two is wrong, and which is not known.
    pub wall: DateTime<Utc>,
}

impl Reading {
    /// Of a clock that is trusted.
    #[must_use]
    pub const fn certain(now: DateTime<Utc>) -> Self {
        Self { now, wall: now }
    }

    /// Returns whether nothing may be ended for good.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.now != self.wall
    }

    /// A moment that has passed for certain: what was over then, is.
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
    /// The system's.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the edge; what decides takes `now` from here")]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// One that shows what `now` says.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Reading::certain(now())))
    }

    /// One that may be in doubt.
    pub fn guarded(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time that it shows.
    #[must_use]
    pub fn read(&self) -> Reading {
        (self.0)()
    }

    /// The time to go by.
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
