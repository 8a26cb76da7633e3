//! The rate at which the senders of one registration may push: a burst, then a number per second.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use push::{Rate, RegistrationId};

/// Most registrations whose pushes are counted. Beyond it, those whose burst is whole again are forgotten; if none is,
/// a further registration is not counted.
const COUNTED_MAX: usize = 65_536;
/// Least time for which senders are asked to wait, because each request costs a write.
const THROTTLED_MIN: TimeDelta = TimeDelta::seconds(5);

/// Counts the pushes that were accepted for each registration (the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Meter {
    rate: Rate,
    /// Most registrations whose pushes are counted.
    max: usize,
    /// For each registration: the time at which its burst is whole again, and the time until which its senders were
    /// asked to wait.
    counted: HashMap<RegistrationId, (DateTime<Utc>, DateTime<Utc>)>,
}

impl Meter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, max: COUNTED_MAX, counted: HashMap::new() }
    }

    /// Counts a push. If it is one too many, returns the time until which the senders have to wait; `None` if they were
    /// asked already.
    pub(crate) fn count(&mut self, id: RegistrationId, accepted_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.counted.len() >= self.max && !self.counted.contains_key(&id) {
            self.counted.retain(|_, (whole_at, _)| *whole_at > accepted_at);
            if self.counted.len() >= self.max {
                return None;
            }
        }
        let (interval, burst) = (self.rate.interval(), self.rate.burst());
        let (whole_at, asked_until) = self.counted.entry(id).or_insert((accepted_at, DateTime::UNIX_EPOCH));
        *whole_at = (*whole_at).max(accepted_at) + interval;
        let room_at = *whole_at - burst;
        if room_at <= accepted_at || *asked_until > accepted_at {
            return None;
        }
        *asked_until = room_at.max(accepted_at + THROTTLED_MIN);
        Some(*asked_until)
    }

    /// Returns whether this meter has asked the senders of a registration to wait at `now`.
    pub(crate) fn asks(&self, id: RegistrationId, now: DateTime<Utc>) -> bool {
        self.counted.get(&id).is_some_and(|(_, asked_until)| *asked_until > now)
    }

    /// Notes that the senders of a registration were not asked to wait after all.
    pub(crate) fn forget_asked(&mut self, id: RegistrationId) {
        if let Some((_, asked_until)) = self.counted.get_mut(&id) {
            *asked_until = DateTime::UNIX_EPOCH;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + milliseconds).unwrap()
    }

    const ID: RegistrationId = RegistrationId::from_bytes([1; 16]);

    #[test]
    fn a_burst_passes_and_what_comes_after_it_too_fast_does_not() {
        let mut meter = Meter::new("60/1".parse().unwrap());
        for _ in 0..60 {
            assert_eq!(meter.count(ID, at(0)), None);
        }
        assert_eq!(meter.count(ID, at(0)), Some(at(5000)), "the least wait");
        assert!(meter.asks(ID, at(10)) && !meter.asks(ID, at(5000)));
        assert_eq!(meter.count(ID, at(10)), None, "they were asked before");
        meter.forget_asked(ID);
        assert_eq!(meter.count(ID, at(20)), Some(at(5020)), "they were not, after all");
        assert_eq!(meter.count(RegistrationId::from_bytes([2; 16]), at(0)), None, "each for itself");
    }

    #[test]
    fn one_push_a_second_goes_on_for_ever_and_the_burst_comes_back() {
        let mut meter = Meter::new("60/1".parse().unwrap());
        assert!((0..1000).all(|second| meter.count(ID, at(1000 * second)).is_none()));
        let later = 1_000_000 + 60_000;
        assert!((0..60).all(|_| meter.count(ID, at(later)).is_none()));
        assert!(meter.count(ID, at(later)).is_some());
    }

    #[test]
    fn a_flood_has_to_wait_until_there_is_room() {
        let mut meter = Meter::new("10/2".parse().unwrap());
        let asked: Vec<_> = (0..1000).filter_map(|_| meter.count(ID, at(0))).collect();
        assert_eq!(asked, [at(5000)]);
        // Pushes that were accepted meanwhile count: 990 too many take 495 s.
        assert_eq!(meter.count(ID, at(5000)), Some(at(495_500)));
    }

    #[test]
    fn a_full_meter_counts_no_further_registration_until_the_burst_of_others_is_whole() {
        let id = |number: usize| RegistrationId::from_bytes((number as u128).to_be_bytes());
        let flood = |meter: &mut Meter, of, moment| (0..100).any(|_| meter.count(of, at(moment)).is_some());
        let mut meter = Meter { max: 100, ..Meter::new("60/1".parse().unwrap()) };
        for number in 0..100 {
            meter.count(id(number), at(0));
        }
        let further = id(100);
        assert!(!flood(&mut meter, further, 0), "it is not counted");
        assert!(flood(&mut meter, id(0), 0), "those that are known are");
        assert!(flood(&mut meter, further, 1000), "the others' bursts are whole again");
        assert_eq!(meter.counted.len(), 2);
    }
}
