//! Shares of the queue: counts of its pushes by registration, so that no registration can fill it.

use std::collections::HashMap;

use parking_lot::Mutex;
use push::RegistrationId;

/// Counts the rows of the queue by registration, including rows on their way to the disk.
#[derive(Default)]
pub(crate) struct Shares {
    counts: Mutex<HashMap<RegistrationId, u64>>,
}

impl Shares {
    /// Makes the shares of the rows that an earlier process left.
    pub(crate) fn of(counts: HashMap<RegistrationId, u64>) -> Self {
        Self { counts: Mutex::new(counts) }
    }

    /// Counts a push for each of these ids; `None`: a registration would have more than `max`.
    pub(crate) fn reserve(&self, ids: Vec<RegistrationId>, max: u64) -> Option<Reservation<'_>> {
        let mut counts = self.counts.lock();
        for (counted, id) in ids.iter().enumerate() {
            let count = counts.entry(*id).or_default();
            if *count >= max {
                ids[..counted].iter().for_each(|id| lower(&mut counts, *id));
                return None;
            }
            *count += 1;
        }
        Some(Reservation { shares: self, ids })
    }

    /// Notes that pushes have left the queue.
    pub(crate) fn give_back(&self, ids: &[RegistrationId]) {
        let mut counts = self.counts.lock();
        ids.iter().for_each(|id| lower(&mut counts, *id));
    }
}

fn lower(counts: &mut HashMap<RegistrationId, u64>, id: RegistrationId) {
    if let Some(count) = counts.get_mut(&id) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&id);
        }
    }
}

/// Places that are counted for pushes. Dropping it gives them back.
pub(crate) struct Reservation<'a> {
    shares: &'a Shares,
    ids: Vec<RegistrationId>,
}

impl Reservation<'_> {
    /// Keeps the places for good. Returns their number.
    pub(crate) fn confirm(mut self) -> u64 {
        let count = self.ids.len() as u64;
        self.ids.clear();
        count
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.shares.give_back(&self.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_has_its_bound_and_gets_back_what_did_not_come_to_be() {
        let shares = Shares::default();
        let [one, other] = [1, 2].map(|number| RegistrationId::from_bytes([number; RegistrationId::BYTES]));
        let reserve = |ids: &[RegistrationId]| shares.reserve(ids.to_vec(), 2);
        reserve(&[one, other]).unwrap().confirm();
        assert!(reserve(&[other, one, one]).is_none(), "all or none");
        let lost = reserve(&[other, one]).unwrap();
        assert!(reserve(&[one]).is_none() && reserve(&[other]).is_none());
        drop(lost);
        reserve(&[other]).unwrap().confirm();
        assert!(reserve(&[other]).is_none());
        shares.give_back(&[other, other, other]);
        reserve(&[other, other, one]).unwrap().confirm();
        assert!(reserve(&[one]).is_none());
        shares.give_back(&[one, other, one, other]);
        assert!(shares.counts.lock().is_empty(), "nobody is remembered for nothing");
    }
}
