//! Chance by an algorithm that is the same on all platforms.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// The chance of one actor. Its draws do not depend on those of other actors.
#[derive(Debug, Clone)]
pub(crate) struct Chance(Xoshiro256PlusPlus);

impl Chance {
    pub(crate) fn of(seed: u64, actor: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add(actor << 40)))
    }

    /// Draws a number from `from` to `to`, both included.
    pub(crate) fn number(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to)
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count.max(1) as u64) as usize
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.number(from, to))
    }

    pub(crate) fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.number(from, to))
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.number(0, 99) < percent
    }

    /// Draws one of these choices, each with its weight.
    pub(crate) fn choose<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.number(0, total - 1);
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *choice,
            }
        }
        unreachable!("the weights add up")
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.number(0, 255) as u8)
    }
}
