//! The turns of full JIDs: domains take turns, then the accounts within a domain, then the full JIDs within an account.

use std::collections::{BTreeMap, VecDeque};

use tokio_xmpp::jid::{BareJid, FullJid};

/// The full JIDs that have something to send, each once.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    domains: Round<String, Round<BareJid, VecDeque<FullJid>>>,
}

/// Keys that take turns, and the value of each.
#[derive(Debug)]
struct Round<K, V> {
    order: VecDeque<K>,
    below: BTreeMap<K, V>,
}

impl<K, V> Default for Round<K, V> {
    fn default() -> Self {
        Self { order: VecDeque::new(), below: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V: Default> Round<K, V> {
    fn entry(&mut self, key: &K) -> &mut V {
        if !self.below.contains_key(key) {
            self.order.push_back(key.clone());
        }
        self.below.entry(key.clone()).or_default()
    }

    /// Gives each key its turn until `take` returns something for one. A key that has had its turn goes behind the
    /// others.
    fn next<T>(
        &mut self,
        mut take: impl FnMut(&K, &mut V) -> Option<T>,
        is_empty: impl Fn(&V) -> bool,
    ) -> Option<T> {
        for _ in 0..self.order.len() {
            let key = self.order.pop_front()?;
            let Some(below) = self.below.get_mut(&key) else { continue };
            let taken = take(&key, below);
            if is_empty(below) {
                self.below.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

impl Turns {
    pub(crate) fn is_empty(&self) -> bool {
        self.domains.order.is_empty()
    }

    /// Lines a full JID up for its turn.
    pub(crate) fn line_up(&mut self, jid: FullJid) {
        let account = jid.to_bare();
        let domain = account.domain().as_str().to_owned();
        self.domains.entry(&domain).entry(&account).push_back(jid);
    }

    /// Takes the next full JID in turn, among the domains and accounts that may have one.
    pub(crate) fn next(
        &mut self,
        domain_may: impl Fn(&str) -> bool,
        may: impl Fn(&BareJid) -> bool,
    ) -> Option<FullJid> {
        let of_account = |account: &BareJid, jids: &mut VecDeque<FullJid>| {
            if may(account) { jids.pop_front() } else { None }
        };
        self.domains.next(
            |domain, accounts| {
                if domain_may(domain) { accounts.next(of_account, VecDeque::is_empty) } else { None }
            },
            |accounts| accounts.order.is_empty(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(jids: &[&str]) -> Turns {
        let mut turns = Turns::default();
        jids.iter().for_each(|jid| turns.line_up(jid.parse().unwrap()));
        turns
    }

    fn all(turns: &mut Turns, may: impl Fn(&BareJid) -> bool) -> Vec<String> {
        std::iter::from_fn(|| turns.next(|_| true, &may)).map(|jid| jid.to_string()).collect()
    }

    #[test]
    fn a_busy_account_and_a_busy_domain_delay_no_other() {
        let mut turns = turns(&["a@x/1", "a@x/2", "a@x/3", "b@x/1", "b@x/2", "c@y/1", "d@z/1", "d@z/2"]);
        let order = all(&mut turns, |_| true);
        assert_eq!(order, ["a@x/1", "c@y/1", "d@z/1", "b@x/1", "d@z/2", "a@x/2", "b@x/2", "a@x/3"]);
        assert!(turns.is_empty() && turns.domains.below.is_empty());
    }

    #[test]
    fn an_account_without_room_is_passed_over_and_keeps_its_place() {
        let mut turns = turns(&["a@x/1", "a@x/2", "b@x/1"]);
        assert_eq!(all(&mut turns, |account| account.as_str() == "b@x"), ["b@x/1"]);
        assert!(!turns.is_empty());
        assert_eq!(all(&mut turns, |_| true), ["a@x/1", "a@x/2"]);
    }
}
