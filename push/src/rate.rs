//! A rate: a burst, and the pushes per second after it.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A burst of pushes, and the pushes per second after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    burst: u32,
    per_second: f64,
}

/// A rate was not `BURST/PER_SECOND`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: write the burst, a slash, and the pushes per second after it, as in 60/1; or off")]
pub struct BadRate(String);

impl FromStr for Rate {
    type Err = BadRate;

    /// Parses `60/1` or `10/0.5`: a burst of at least one push, and more than none per second.
    fn from_str(text: &str) -> Result<Self, BadRate> {
        let parse = || {
            let (burst, per_second) = text.split_once('/')?;
            let rate =
                Self { burst: burst.trim().parse().ok()?, per_second: per_second.trim().parse().ok()? };
            let sound = rate.burst >= 1 && (0.001..=100_000.0).contains(&rate.per_second);
            sound.then_some(rate)
        };
        parse().ok_or_else(|| BadRate(text.to_owned()))
    }
}

impl Rate {
    /// Returns the most pushes that the rate lets through within a minute.
    #[must_use]
    pub fn in_a_minute(self) -> u64 {
        u64::from(self.burst) + (self.per_second * 60.0).ceil() as u64
    }

    /// Returns the time that one push takes up (the generic cell rate algorithm).
    #[must_use]
    pub fn interval(self) -> TimeDelta {
        TimeDelta::microseconds((1e6 / self.per_second) as i64)
    }

    /// Returns the time after which the burst is available again in full.
    #[must_use]
    pub fn burst(self) -> TimeDelta {
        self.interval() * i32::try_from(self.burst).unwrap_or(i32::MAX)
    }

    /// Lets a push through at `now`, and moves `whole_at`, the moment at which the burst is available again in full.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(self, whole_at: &mut DateTime<Utc>, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let next = (*whole_at).max(now) + self.interval();
        let wait = next - self.burst() - now;
        if wait > TimeDelta::zero() {
            return Err(wait);
        }
        *whole_at = next;
        Ok(())
    }
}

/// Writes the form that `from_str` parses.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.burst, self.per_second)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_burst_and_so_many_per_second() {
        assert_eq!("60/1".parse(), Ok(Rate { burst: 60, per_second: 1.0 }));
        assert_eq!("5 / 0.5".parse(), Ok(Rate { burst: 5, per_second: 0.5 }));
        for wrong in ["", "60", "/", "0/1", "60/0", "60/-1", "60/NaN", "60/inf", "x/1", "-1/1", "1/1/1"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!(Rate { burst: 5, per_second: 0.5 }.to_string(), "5/0.5");
    }

    #[test]
    fn within_a_minute_a_burst_passes_and_a_minute_s_worth() {
        for (rate, most) in [("60/1", 120), ("5/0.5", 35), ("1/0.001", 2)] {
            assert_eq!(rate.parse::<Rate>().unwrap().in_a_minute(), most, "{rate}");
        }
    }

    #[test]
    fn a_burst_passes_and_the_next_push_waits_for_its_share() {
        let (rate, at) = ("3/2".parse::<Rate>().unwrap(), DateTime::UNIX_EPOCH);
        let mut whole_at = DateTime::UNIX_EPOCH;
        assert!((0..3).all(|_| rate.take(&mut whole_at, at).is_ok()));
        assert_eq!(rate.take(&mut whole_at, at), Err(TimeDelta::milliseconds(500)));
        assert!(rate.take(&mut whole_at, at + TimeDelta::milliseconds(500)).is_ok());
        assert!(rate.take(&mut whole_at, at + TimeDelta::milliseconds(600)).is_err());
    }
}
