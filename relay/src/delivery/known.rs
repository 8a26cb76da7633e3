//! A bounded memory of which mailboxes hold pushes. The older half is forgotten first.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use tokio_xmpp::jid::FullJid;

/// Most full JIDs in each of the two generations; each takes 16 bytes.
const KNOWN_MAX: usize = 524_288;

/// The relay's knowledge of whether a mailbox holds pushes for a full JID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Knowledge {
    #[default]
    Nothing,
    Something,
    /// Something waits, and the full JID did not take it when it was tried last.
    Away,
}

/// The knowledge of mailboxes, by full JID. A full JID that was forgotten has its mailbox read before its next push
/// goes out.
#[derive(Debug)]
pub(crate) struct Known {
    /// Most full JIDs in one generation.
    max: usize,
    /// Has a random key, so that nobody can choose full JIDs whose hashes collide. Full JIDs with the same hash of 64
    /// bits would share their knowledge.
    hasher: RandomState,
    generations: [HashMap<u64, Knowledge>; 2],
}

impl Default for Known {
    fn default() -> Self {
        Self { max: KNOWN_MAX, hasher: RandomState::default(), generations: Default::default() }
    }
}

impl Known {
    pub(crate) fn of(&self, jid: &FullJid) -> Option<Knowledge> {
        let key = self.hasher.hash_one(jid);
        self.generations.iter().find_map(|generation| generation.get(&key)).copied()
    }

    pub(crate) fn learn(&mut self, jid: &FullJid, knowledge: Knowledge) {
        if self.generations[0].len() >= self.max {
            self.generations.swap(0, 1);
            self.generations[0].clear();
        }
        let key = self.hasher.hash_one(jid);
        self.generations[0].insert(key, knowledge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn jid(number: usize) -> FullJid {
        format!("user{number}@example.com/phone").parse().unwrap()
    }

    #[test]
    fn the_older_half_of_what_is_known_is_forgotten_first() {
        let mut known = Known { max: MAX, ..Known::default() };
        for number in 0..2 * MAX {
            known.learn(&jid(number), Knowledge::Nothing);
        }
        known.learn(&jid(usize::MAX), Knowledge::Nothing);
        assert_eq!(known.of(&jid(0)), None);
        assert_eq!(known.of(&jid(2 * MAX - 1)), Some(Knowledge::Nothing));
        assert!(known.generations.iter().map(HashMap::len).sum::<usize>() <= 2 * MAX);
    }
}
