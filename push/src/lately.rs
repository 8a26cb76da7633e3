//! A bounded set of ids that were seen lately.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

/// Ids that were seen lately. Beyond a bound, the oldest is forgotten.
#[derive(Debug)]
pub struct Lately<Id> {
    ids: HashSet<Id>,
    order: VecDeque<Id>,
    max: usize,
}

impl<Id: Clone + Eq + Hash> Lately<Id> {
    /// Makes an empty set of at most `max` ids.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { ids: HashSet::new(), order: VecDeque::new(), max }
    }

    /// Adds an id; returns whether it is new.
    pub fn note(&mut self, id: Id) -> bool {
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

    /// Returns whether an id is remembered.
    pub fn contains(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_is_forgotten() {
        let mut lately = Lately::new(2);
        assert_eq!([1, 1, 2, 3].map(|id| lately.note(id)), [true, false, true, true]);
        assert!(!lately.contains(&1) && lately.contains(&2) && lately.contains(&3));
        assert_eq!((lately.ids.len(), lately.order.len()), (2, 2));
    }
}
