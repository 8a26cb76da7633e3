//! Matrix notifications that no push can carry. The relay never sees them, so the ingress bounds their rate itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use push::RegistrationId;

const INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// Most registrations that are counted at a time. Beyond it, all counts start again at 0.
const COUNTED_MAX: usize = 4096;

/// Counts the dropped notifications of each registration. Beyond the bound, its homeserver has to wait. Clones share
/// the counts.
#[derive(Debug, Clone)]
pub struct Dropped {
    in_a_minute_max: u64,
    counts: Arc<Mutex<BTreeMap<RegistrationId, Count>>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    begun: DateTime<Utc>,
    notifications: u64,
}

impl Dropped {
    /// Makes a count that allows this many notifications of one registration in a minute.
    #[must_use]
    pub fn at_most(in_a_minute_max: u64) -> Self {
        Self { in_a_minute_max, counts: Arc::default() }
    }

    /// Counts a notification for each of these registrations. Returns the time to wait, if one of them is over the
    /// bound.
    pub(crate) fn count(
        &self,
        registrations: impl Iterator<Item = RegistrationId>,
        now: DateTime<Utc>,
    ) -> Option<TimeDelta> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wait = None;
        for registration in registrations {
            if counts.len() >= COUNTED_MAX && !counts.contains_key(&registration) {
                counts.clear();
            }
            let fresh = Count { begun: now, notifications: 0 };
            let count = counts.entry(registration).or_insert(fresh);
            let left = count.begun + INTERVAL - now;
            if left <= TimeDelta::zero() || left > INTERVAL {
                *count = fresh;
            }
            count.notifications = count.notifications.saturating_add(1);
            if count.notifications > self.in_a_minute_max {
                wait = wait.max(Some(count.begun + INTERVAL - now));
            }
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registration_has_a_minutes_worth() {
        let (dropped, start) = (Dropped::at_most(3), DateTime::UNIX_EPOCH);
        let ids = [1, 2].map(|byte| RegistrationId::from_bytes([byte; 16]));
        let at =
            |id: usize, seconds| dropped.count([ids[id]].into_iter(), start + TimeDelta::seconds(seconds));
        assert_eq!([at(0, 0), at(0, 1), at(0, 2), at(1, 2)], [None; 4]);
        assert_eq!(at(0, 20), Some(TimeDelta::seconds(40)));
        assert_eq!(
            dropped.clone().count(ids.into_iter(), start),
            Some(TimeDelta::minutes(1)),
            "a copy counts, too"
        );
        assert_eq!(at(0, 60), None);
        assert_eq!(at(0, -3600), None, "the clock went back");
    }

    #[test]
    fn what_is_counted_has_a_bound() {
        let dropped = Dropped::at_most(1);
        for number in 0..10_000_u128 {
            dropped
                .count([RegistrationId::from_bytes(number.to_be_bytes())].into_iter(), DateTime::UNIX_EPOCH);
        }
        assert!(dropped.counts.lock().unwrap().len() <= COUNTED_MAX);
    }
}
