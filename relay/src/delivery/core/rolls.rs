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
