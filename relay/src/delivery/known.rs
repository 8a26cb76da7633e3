//! Facts of bounded number: the older half of them is forgotten first.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
};

use tokio_xmpp::jid::FullJid;

/// Most full JIDs whose mailboxes are known to be empty or not, in each of two generations: 16 bytes each.
const KNOWN_MAX: usize = 524_288;

/// What a mailbox is known to hold for a full JID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Knowledge {
    #[default]
    Nothing,
    Something,
    /// Something, and nobody took it when it was tried last.
    Away,
}

/// What is known of mailboxes. A full JID that was forgotten is unknown, and its mailbox is read before the next
/// push goes out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    hasher: RandomState,
    generations: [HashMap<u64, Knowledge>; 2],
}

impl Known {
    pub(crate) fn of(&self, jid: &FullJid) -> Option<Knowledge> {
        let key = self.hasher.hash_one(jid);
        self.generations.iter().find_map(|generation| generation.get(&key)).copied()
    }

    pub(crate) fn learn(&mut self, jid: &FullJid, knowledge: Knowledge) {
        if self.generations[0].len() >= KNOWN_MAX {
            self.generations.swap(0, 1);
            self.generations[0].clear();
        }
        let key = self.hasher.hash_one(jid);
        self.generations[0].insert(key, knowledge);
    }
}

/// Ids seen lately, of a bounded number.
#[derive(Debug)]
pub(crate) struct Lately<Id> {
    ids: HashSet<Id>,
    order: VecDeque<Id>,
    max: usize,
}

impl<Id: Clone + Eq + Hash> Lately<Id> {
    pub(crate) fn new(max: usize) -> Self {
        Self { ids: HashSet::new(), order: VecDeque::new(), max }
    }

    /// Notes an id; whether it is new.
    pub(crate) fn note(&mut self, id: Id) -> bool {
        let new = self.ids.insert(id.clone());
        if new {
            self.order.push_back(id);
            if self.order.len() > self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
        new
    }

    pub(crate) fn contains(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(number: usize) -> FullJid {
        format!("user{number}@example.com/phone").parse().unwrap()
    }

    #[test]
    fn the_older_half_of_what_is_known_is_forgotten_first() {
        let mut known = Known::default();
        for number in 0..2 * KNOWN_MAX {
            known.learn(&jid(number), Knowledge::Nothing);
        }
        known.learn(&jid(usize::MAX), Knowledge::Nothing);
        assert_eq!(known.of(&jid(0)), None);
        assert_eq!(known.of(&jid(2 * KNOWN_MAX - 1)), Some(Knowledge::Nothing));
        assert!(known.generations.iter().map(HashMap::len).sum::<usize>() <= 2 * KNOWN_MAX);
    }

    #[test]
    fn ids_of_late_are_bounded() {
        let mut lately = Lately::new(2);
        assert_eq!([1, 1, 2, 3].map(|id| lately.note(id)), [true, false, true, true]);
        assert!(!lately.contains(&1) && lately.contains(&2) && lately.contains(&3));
    }
}
