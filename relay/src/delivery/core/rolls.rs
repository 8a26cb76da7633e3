//! The number of each tenant's registrations that live. They are counted as they begin, and anew by each census.

use std::collections::BTreeMap;

use push::TenantName;

/// The rolls of all tenants.
#[derive(Debug, Default)]
pub(super) struct Rolls(BTreeMap<TenantName, Roll>);

#[derive(Debug, Default)]
struct Roll {
    living: usize,
    /// Registrations that the census under way has found, and registrations that have begun since it did.
    found: usize,
    begun: usize,
}

impl Rolls {
    pub(super) fn living(&self, tenant: &TenantName) -> usize {
        self.0.get(tenant).map_or(0, |roll| roll.living)
    }

    /// Notes that a registration has begun. Returns how many live now.
    pub(super) fn note_begun(&mut self, tenant: &TenantName) -> usize {
        let roll = self.0.entry(tenant.clone()).or_default();
        roll.living += 1;
        roll.begun += 1;
        roll.living
    }

    pub(super) fn begin_census(&mut self) {
        self.0.values_mut().for_each(|roll| (roll.found, roll.begun) = (0, 0));
    }

    /// Notes a registration that the census has found.
    pub(super) fn note_found(&mut self, tenant: &TenantName) {
        match self.0.get_mut(tenant) {
            Some(roll) => roll.found += 1,
            None => drop(self.0.insert(tenant.clone(), Roll { found: 1, ..Roll::default() })),
        }
    }

    /// Ends a census. Returns the number of each tenant's registrations that live.
    pub(super) fn end_census(&mut self) -> Vec<(TenantName, usize)> {
        for roll in self.0.values_mut() {
            // A registration that has begun meanwhile may have been found, too, and is counted twice.
            roll.living = roll.found + roll.begun;
            (roll.found, roll.begun) = (0, 0);
        }
        let counts = self.0.iter().map(|(name, roll)| (name.clone(), roll.living)).collect();
        self.0.retain(|_, roll| roll.living > 0);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_counts_those_that_it_finds_and_those_that_begin_meanwhile() {
        let [first, second] = ["first.example", "second.example"].map(|name| name.parse().unwrap());
        let mut rolls = Rolls::default();
        assert_eq!([(); 3].map(|()| rolls.note_begun(&first)), [1, 2, 3]);
        rolls.begin_census();
        rolls.note_found(&first);
        rolls.note_found(&second);
        assert_eq!((rolls.note_begun(&first), rolls.living(&second)), (4, 0), "it is not over yet");
        assert_eq!(rolls.end_census(), [(first.clone(), 2), (second.clone(), 1)]);
        assert_eq!((rolls.living(&first), rolls.living(&second)), (2, 1));
        rolls.begin_census();
        assert_eq!(rolls.end_census(), [(first, 0), (second, 0)], "all have ended");
        assert!(rolls.0.is_empty());
    }
}
