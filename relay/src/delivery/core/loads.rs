//! The load of each domain: its pushes in line or in flight.

use std::collections::BTreeMap;

/// The loads of all domains that have pushes in line or in flight.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeMap<String, Load>);

#[derive(Debug, Default)]
struct Load {
    held: usize,
    in_flight: usize,
}

impl Loads {
    pub(super) fn held(&self, domain: &str) -> usize {
        self.0.get(domain).map_or(0, |load| load.held)
    }

    pub(super) fn in_flight(&self, domain: &str) -> usize {
        self.0.get(domain).map_or(0, |load| load.in_flight)
    }

    /// Returns the part of `places` that each domain has if all have the same.
    pub(super) fn share_of(&self, places: usize) -> usize {
        places / self.0.len().max(1)
    }

    pub(super) fn hold(&mut self, domain: &str) {
        match self.0.get_mut(domain) {
            Some(load) => load.held += 1,
            None => drop(self.0.insert(domain.to_owned(), Load { held: 1, in_flight: 0 })),
        }
    }

    pub(super) fn let_go(&mut self, domain: &str) {
        self.change(domain, |load| load.held -= 1);
    }

    pub(super) fn send(&mut self, domain: &str) {
        self.change(domain, |load| load.in_flight += 1);
    }

    pub(super) fn land(&mut self, domain: &str, pushes: usize) {
        self.change(domain, |load| load.in_flight -= pushes);
    }

    fn change(&mut self, domain: &str, change: impl FnOnce(&mut Load)) {
        let Some(load) = self.0.get_mut(domain) else { return };
        change(load);
        if load.held == 0 && load.in_flight == 0 {
            self.0.remove(domain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_with_pushes_have_equal_shares() {
        let mut loads = Loads::default();
        assert_eq!((loads.held("x.example"), loads.share_of(90)), (0, 90));
        for domain in ["x.example", "y.example", "x.example", "z.example"] {
            loads.hold(domain);
        }
        assert_eq!((loads.held("x.example"), loads.held("y.example"), loads.share_of(90)), (2, 1, 30));
        loads.let_go("y.example");
        assert_eq!((loads.held("y.example"), loads.share_of(90)), (0, 45));
    }
}
