//! The bound on pushes that this process takes for one registration in a minute, independent of the relay's rate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use push::RegistrationId;

/// Most registrations that are counted in a minute; pushes of others pass. An environment of the cloud function takes
/// less than a thousand pushes in that time.
const COUNTED_MAX: usize = 4096;

/// The bound, and the counts of the present minute. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// Most pushes of one registration in a minute; `None`: any number.
    per_minute: Option<u32>,
    counted: Arc<Mutex<Minute>>,
}

#[derive(Debug, Default)]
struct Minute {
    /// Minutes since 1970.
    number: i64,
    counts: HashMap<RegistrationId, u32>,
}

impl Allowance {
    /// Allows this many pushes for each registration in a minute; `None`: any number.
    #[must_use]
    pub fn per_minute(pushes: Option<u32>) -> Self {
        Self { per_minute: pushes, counted: Arc::default() }
    }

    /// Counts a push. The error is the time that its sender has to wait, if the push is one too many.
    pub(crate) fn take(&self, registration: RegistrationId, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let Some(most) = self.per_minute else { return Ok(()) };
        let seconds = now.timestamp();
        let mut minute = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.number != seconds.div_euclid(60) {
            *minute = Minute { number: seconds.div_euclid(60), counts: HashMap::new() };
        }
        if minute.counts.len() >= COUNTED_MAX && !minute.counts.contains_key(&registration) {
            return Ok(());
        }
        let count = minute.counts.entry(registration).or_default();
        if *count >= most {
            return Err(TimeDelta::seconds(60 - seconds.rem_euclid(60)));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registration_has_its_number_in_each_minute() {
        let (allowance, at) =
            (Allowance::per_minute(Some(2)), |seconds| DateTime::from_timestamp(seconds, 0).unwrap());
        let of = |id| RegistrationId::from_bytes([id; 16]);
        for id in [1, 2] {
            assert_eq!(allowance.take(of(id), at(60)), Ok(()));
            assert_eq!(allowance.clone().take(of(id), at(70)), Ok(()));
            assert_eq!(allowance.take(of(id), at(75)), Err(TimeDelta::seconds(45)));
        }
        assert_eq!(allowance.take(of(1), at(120)), Ok(()));
        let any = Allowance::per_minute(None);
        assert!((0..1000).all(|_| any.take(of(1), at(0)).is_ok()));
    }

    #[test]
    fn no_more_registrations_are_counted_than_there_is_room_for() {
        let (allowance, now) = (Allowance::per_minute(Some(1)), DateTime::UNIX_EPOCH);
        for id in 0..=COUNTED_MAX as u128 {
            assert_eq!(allowance.take(RegistrationId::from_bytes(id.to_be_bytes()), now), Ok(()));
        }
        assert_eq!(allowance.counted.lock().unwrap().counts.len(), COUNTED_MAX);
        assert!(allowance.take(RegistrationId::from_bytes([0; 16]), now).is_err());
    }
}
