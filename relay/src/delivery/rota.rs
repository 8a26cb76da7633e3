//! A set whose members are looked at again and again, a few at a time.

use std::{collections::BTreeSet, ops::Bound};

/// A set whose members take turns.
#[derive(Debug)]
pub(crate) struct Rota<T> {
    members: BTreeSet<T>,
    /// The last member that was taken while others were left.
    last: Option<T>,
}

impl<T> Default for Rota<T> {
    fn default() -> Self {
        Self { members: BTreeSet::new(), last: None }
    }
}

impl<T: Ord + Clone> Rota<T> {
    /// Adds a member, unless it is there already.
    pub(crate) fn insert(&mut self, member: T) {
        self.members.insert(member);
    }

    pub(crate) fn remove(&mut self, member: &T) {
        self.members.remove(member);
    }

    pub(crate) fn contains(&self, member: &T) -> bool {
        self.members.contains(member)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.members.iter()
    }

    /// Takes the next `max` members off the rota, or all of them if they are no more than that.
    pub(crate) fn take(&mut self, max: usize) -> BTreeSet<T> {
        if self.members.len() <= max {
            self.last = None;
            return std::mem::take(&mut self.members);
        }
        let from = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.members.range((from, Bound::Unbounded)).chain(&self.members).take(max);
        let taken: Vec<T> = next.cloned().collect();
        for member in &taken {
            self.members.remove(member);
        }
        self.last = taken.last().cloned();
        taken.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_stay_have_their_turn_again_behind_the_others() {
        let mut rota = Rota::default();
        (0..5).for_each(|member| rota.insert(member));
        let mut turns = Vec::new();
        for _ in 0..4 {
            let taken = rota.take(2);
            turns.push(taken.iter().copied().collect::<Vec<_>>());
            taken.into_iter().for_each(|member| rota.insert(member));
        }
        assert_eq!(turns, [vec![0, 1], vec![2, 3], vec![0, 4], vec![1, 2]]);
    }

    #[test]
    fn all_are_taken_where_there_is_room_for_all() {
        let mut rota = Rota::default();
        (0..3).for_each(|member| rota.insert(member));
        rota.take(2);
        rota.insert(0);
        assert_eq!(rota.take(2), [0, 2].into());
        assert_eq!(rota.len(), 0);
    }

    #[test]
    fn a_member_that_is_removed_has_no_turn() {
        let mut rota = Rota::default();
        (0..3).for_each(|member| rota.insert(member));
        assert!(rota.contains(&1) && !rota.contains(&3));
        rota.remove(&1);
        assert!(!rota.contains(&1));
        assert_eq!(rota.take(3), [0, 2].into());
    }
}
