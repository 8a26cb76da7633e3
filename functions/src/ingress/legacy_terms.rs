//! Terms for the endpoints of a predecessor. A holder of the predecessor's secret can make any number of them, for
//! anyone. So their number and their lifetime are bounded, and the access list applies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};
use push::AccessList;
use tokio::sync::watch;

/// Default lifetime of an endpoint from its first push on. A Prosody may issue them for a month.
pub const LEGACY_LIFE: TimeDelta = TimeDelta::days(30);
/// Default for the most endpoints that live.
pub const LEGACY_MAX: usize = 100_000;
/// Most living endpoints of one domain that the access list does not name.
pub const LEGACY_OF_DOMAIN_MAX: usize = 20_000;
/// Time between the end of a key's last endpoint and the end of the key. Clocks may disagree by less.
const KEY_MARGIN: TimeDelta = TimeDelta::days(1);

/// The terms.
#[derive(Debug, Clone)]
pub struct LegacyTerms {
    /// Longest lifetime of an endpoint, from its first push on. A key ends when it has been in use for this time and a
    /// day.
    pub life: TimeDelta,
    /// The accounts whose endpoints are admitted, which may change while the ingress runs; `None`: all accounts.
    pub access: Option<watch::Receiver<AccessList>>,
    /// The count of living endpoints.
    pub tally: LegacyTally,
}

impl Default for LegacyTerms {
    fn default() -> Self {
        Self {
            life: LEGACY_LIFE,
            access: None,
            tally: LegacyTally::at_most(LEGACY_MAX, LEGACY_OF_DOMAIN_MAX),
        }
    }
}

impl LegacyTerms {
    /// Returns whether a key that is in use since `since` has ended.
    #[must_use]
    pub fn key_ended(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        now - since >= self.life + KEY_MARGIN
    }

    pub(crate) fn admits(&self, user: &FullJid) -> bool {
        self.access.as_ref().is_none_or(|access| access.borrow().admits(user))
    }

    pub(crate) fn names(&self, user: &FullJid) -> bool {
        self.access.as_ref().is_some_and(|access| access.borrow().names(user))
    }
}

/// The count of a predecessor's living endpoints. Clones share the count.
#[derive(Debug, Clone)]
pub struct LegacyTally {
    max: usize,
    of_domain_max: usize,
    living: Arc<Mutex<Living>>,
}

#[derive(Debug, Default)]
struct Living {
    by_expiry: BTreeMap<DateTime<Utc>, Vec<BareJid>>,
    of_domains: HashMap<BareJid, usize>,
    all: usize,
}

impl LegacyTally {
    /// Bounds the living endpoints, in all and for one domain that the access list does not name.
    #[must_use]
    pub fn at_most(max: usize, of_domain_max: usize) -> Self {
        Self { max, of_domain_max, living: Arc::default() }
    }

    /// Counts one more endpoint, of this account, that lives until `expires_at`.
    pub fn count(&self, account: &BareJid, expires_at: DateTime<Utc>) {
        let domain = domain(account);
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.all += 1;
        *living.of_domains.entry(domain.clone()).or_default() += 1;
        living.by_expiry.entry(expires_at).or_default().push(domain);
    }

    pub(crate) fn has_room(&self, account: &BareJid, is_named: bool, now: DateTime<Utc>) -> bool {
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.forget_until(now);
        let of_domain = living.of_domains.get(&domain(account)).copied().unwrap_or(0);
        living.all < self.max && (is_named || of_domain < self.of_domain_max)
    }
}

impl Living {
    fn forget_until(&mut self, now: DateTime<Utc>) {
        while let Some(first) = self.by_expiry.first_entry().filter(|first| *first.key() <= now) {
            for domain in first.remove() {
                self.all -= 1;
                if let Some(left) = self.of_domains.get_mut(&domain) {
                    *left -= 1;
                    if *left == 0 {
                        self.of_domains.remove(&domain);
                    }
                }
            }
        }
    }
}

fn domain(account: &BareJid) -> BareJid {
    BareJid::from_parts(None, account.domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_makes_room() {
        let tally = LegacyTally::at_most(5, 3);
        let account = |text| BareJid::new(text).unwrap();
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        for (number, user) in ["a@one.example", "b@one.example", "a@one.example"].into_iter().enumerate() {
            assert!(tally.has_room(&account(user), false, at(0)));
            tally.count(&account(user), at(10 + number as i64));
        }
        assert!(!tally.has_room(&account("c@one.example"), false, at(9)));
        assert!(tally.has_room(&account("c@one.example"), true, at(9)), "its domain is named");
        assert!(tally.has_room(&account("c@two.example"), false, at(9)));
        tally.count(&account("c@two.example"), at(20));
        tally.count(&account("d@two.example"), at(20));
        assert!(!tally.has_room(&account("c@three.example"), true, at(9)), "there are five");
        assert!(tally.has_room(&account("c@one.example"), false, at(10)));
        assert!(tally.has_room(&account("c@three.example"), false, at(20)));
        assert_eq!(tally.living.lock().unwrap().of_domains.len(), 0);
    }
}
