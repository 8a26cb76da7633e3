//! Loads of the domains that the access list does not name: their registrations, and their pushes that wait.
//!
//! The counts are in memory. Readings of the stores rebuild them now and then. Between two readings, a count may be too
//! high by what has lapsed, expired or been withdrawn, and too low by what was not read yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
};

use tokio_xmpp::jid::BareJid;

/// Most domains that are counted, and most accounts with pushes that wait. Only the bounds of accounts hold for others.
const DOMAINS_MAX: usize = 65_536;
const ACCOUNTS_MAX: usize = 262_144;

/// Bounds on what one domain may have if the access list does not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainBounds {
    /// Most registrations.
    pub registrations: usize,
    /// Most pushes that wait.
    pub mailbox: usize,
}

/// The loads of all domains.
#[derive(Debug)]
pub(crate) struct Domains {
    bounds: DomainBounds,
    domains: BTreeMap<String, Domain>,
    /// Number of accounts in all domains.
    accounts: usize,
    /// Number of sweeps so far.
    sweep: u64,
    /// Domains that have more pushes waiting than when they were trimmed last.
    grown: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Domain {
    registrations: usize,
    /// Registrations that the count under way has found, and registrations that have begun since it did.
    found: usize,
    begun: usize,
    waiting: usize,
    accounts: BTreeMap<BareJid, Waiting>,
    /// The same accounts, by how many pushes wait.
    fullest: BTreeSet<(usize, BareJid)>,
}

/// The pushes that wait for an account.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    pushes: usize,
    /// The last sweep that has found the account, or during which more pushes came.
    sweep: u64,
}

/// An order to leave an account no more than `max` waiting pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trim {
    pub(crate) account: BareJid,
    pub(crate) max: usize,
}

impl Domain {
    fn is_empty(&self) -> bool {
        self.registrations == 0 && self.found == 0 && self.begun == 0 && self.accounts.is_empty()
    }

    fn set(&mut self, account: &BareJid, pushes: usize, sweep: u64) {
        self.forget(account);
        if pushes > 0 {
            self.accounts.insert(account.clone(), Waiting { pushes, sweep });
            self.fullest.insert((pushes, account.clone()));
            self.waiting += pushes;
        }
    }

    fn forget(&mut self, account: &BareJid) {
        if let Some(Waiting { pushes, .. }) = self.accounts.remove(account) {
            self.fullest.remove(&(pushes, account.clone()));
            self.waiting -= pushes;
        }
    }

    /// Returns the trims that lower the fullest accounts to one level, so that no more than `max` pushes wait.
    fn level(&self, max: usize) -> Vec<Trim> {
        let mut excess = self.waiting.saturating_sub(max);
        if excess == 0 {
            return Vec::new();
        }
        let mut above: Vec<(usize, BareJid)> = Vec::new();
        let mut rest = self.fullest.iter().rev();
        let mut next = rest.next();
        let mut level = 0;
        while let Some((pushes, account)) = next {
            level = *pushes;
            above.push((*pushes, account.clone()));
            next = rest.next();
            let below = next.map_or(0, |(pushes, _)| *pushes);
            let room = (level - below) * above.len();
            if room >= excess {
                break;
            }
            excess -= room;
        }
        // Each account is lowered by the same number of pushes, and the first ones by one more.
        let (steps, more) = (excess / above.len(), excess % above.len());
        let lowered = above.into_iter().enumerate().filter_map(|(place, (pushes, account))| {
            let max = level - steps - usize::from(place < more);
            (max < pushes).then_some(Trim { account, max })
        });
        lowered.collect()
    }
}

impl Domains {
    pub(crate) fn new(bounds: DomainBounds) -> Self {
        Self { bounds, domains: BTreeMap::new(), accounts: 0, sweep: 0, grown: BTreeSet::new() }
    }

    /// Forgets all counts: the access list has changed.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.bounds);
    }

    fn domain(&mut self, name: &str) -> Option<&mut Domain> {
        if !self.domains.contains_key(name) && self.domains.len() < DOMAINS_MAX {
            self.domains.insert(name.to_owned(), Domain::default());
        }
        self.domains.get_mut(name)
    }

    /// Returns the most registrations that a domain may have, if it has as many.
    pub(crate) fn full(&self, domain: &str) -> Option<usize> {
        let has = self.domains.get(domain).map_or(0, |domain| domain.registrations);
        (has >= self.bounds.registrations).then_some(self.bounds.registrations)
    }

    pub(crate) fn note_begun(&mut self, domain: &str) {
        if let Some(domain) = self.domain(domain) {
            domain.registrations += 1;
            domain.begun += 1;
        }
    }

    /// Begins a count of all registrations.
    pub(crate) fn begin_count(&mut self) {
        for domain in self.domains.values_mut() {
            (domain.found, domain.begun) = (0, 0);
        }
    }

    /// Counts a registration that was found.
    pub(crate) fn count_registration(&mut self, domain: &str) {
        if let Some(domain) = self.domain(domain) {
            domain.found += 1;
        }
    }

    pub(crate) fn end_count(&mut self) {
        for domain in self.domains.values_mut() {
            // A registration that has begun meanwhile may have been found, too, and is counted twice.
            domain.registrations = domain.found + domain.begun;
            (domain.found, domain.begun) = (0, 0);
        }
        self.domains.retain(|_, domain| !domain.is_empty());
    }

    fn set(&mut self, account: &BareJid, change: impl FnOnce(usize) -> usize) {
        let (sweep, room) = (self.sweep, self.accounts < ACCOUNTS_MAX);
        let Some(domain) = self.domain(account.domain().as_str()) else { return };
        let (before, known) = (domain.accounts.get(account).copied(), domain.accounts.len());
        if before.is_none() && !room {
            return;
        }
        let (pushes, seen) = before.map_or((0, sweep), |waiting| (waiting.pushes, waiting.sweep));
        let changed = change(pushes);
        domain.set(account, changed, if changed > pushes { sweep } else { seen });
        let (now, grows) = (domain.accounts.len(), changed > pushes);
        self.accounts = self.accounts + now - known;
        if grows {
            self.grown.insert(account.domain().to_string());
        }
    }

    pub(crate) fn note_more(&mut self, account: &BareJid, pushes: usize) {
        self.set(account, |before| before + pushes);
    }

    pub(crate) fn note_less(&mut self, account: &BareJid, pushes: usize) {
        if self.domains.contains_key(account.domain().as_str()) {
            self.set(account, |before| before.saturating_sub(pushes));
        }
    }

    /// Notes how many pushes a trim to `max` has left of an account.
    pub(crate) fn note_trimmed(&mut self, account: &BareJid, max: usize, left: usize) {
        // More pushes may have come since the trim was decided, and the account may have had fewer than were counted.
        self.grown.insert(account.domain().to_string());
        self.set(account, |now| (now + left).saturating_sub(max));
    }

    pub(crate) fn begin_sweep(&mut self) {
        self.sweep += 1;
    }

    /// Notes how many pushes of an account a sweep has found. `further`: these come beside those that it found just
    /// before.
    pub(crate) fn note_found(&mut self, account: &BareJid, pushes: usize, further: bool) {
        self.set(account, |before| if further { before + pushes } else { pushes });
        let sweep = self.sweep;
        let domain = self.domains.get_mut(account.domain().as_str());
        if let Some(waiting) = domain.and_then(|domain| domain.accounts.get_mut(account)) {
            waiting.sweep = sweep;
        }
    }

    /// Ends a sweep. Nothing waits for the accounts that it has not found.
    pub(crate) fn end_sweep(&mut self) {
        for domain in self.domains.values_mut() {
            let unseen = domain.accounts.iter().filter(|(_, waiting)| waiting.sweep < self.sweep);
            let unseen: Vec<BareJid> = unseen.map(|(account, _)| account.clone()).collect();
            self.accounts -= unseen.len();
            unseen.iter().for_each(|account| domain.forget(account));
        }
        self.domains.retain(|_, domain| !domain.is_empty());
    }

    /// Returns the trims of the domains for which too much waits. Their pushes count as gone from now on.
    pub(crate) fn trim(&mut self) -> Vec<Trim> {
        let grown = take(&mut self.grown);
        let grown = grown.iter().filter_map(|name| self.domains.get(name));
        let trims: Vec<Trim> = grown.flat_map(|domain| domain.level(self.bounds.mailbox)).collect();
        for Trim { account, max } in &trims {
            self.set(account, |_| *max);
        }
        trims
    }
}

#[cfg(test)]
mod tests;
