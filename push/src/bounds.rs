//! Bounds on what one account may have in the stores: registrations, and pushes that wait.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
};

use crate::{message::MessageId, registration::RegistrationId};

/// Returns how many registrations of an account count against its bound `max`. The store has `kept` rows of the
/// account, and `living` of them live.
///
/// The row of an ended registration is kept for some days, and does not count at first. But an account has at most
/// twice `max` rows in all, so that registering and revoking again and again cannot fill the store.
#[must_use]
pub fn registrations_counted(living: usize, kept: usize, max: usize) -> usize {
    living.max(kept.saturating_sub(max))
}

/// Most pushes that may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxBounds {
    /// For one registration.
    pub of_registration: usize,
    /// For one account.
    pub of_account: usize,
}

impl MailboxBounds {
    /// Bounds an account, and no single registration.
    #[must_use]
    pub const fn of_account(of_account: usize) -> Self {
        Self { of_registration: usize::MAX, of_account }
    }

    /// Returns the pushes that an account has beyond its bound, in the order in which they are dropped. Each is the
    /// oldest push of the registration that has the most at that point. Among registrations with equally many, the one
    /// with the oldest push goes first.
    #[must_use]
    pub fn beyond_account(
        self,
        waiting: impl IntoIterator<Item = (RegistrationId, MessageId)>,
    ) -> Vec<MessageId> {
        let mut lines: HashMap<RegistrationId, Vec<MessageId>> = HashMap::new();
        let mut count = 0_usize;
        for (registration, message) in waiting {
            lines.entry(registration).or_default().push(message);
            count += 1;
        }
        let mut lines: Vec<VecDeque<MessageId>> = lines
            .into_values()
            .map(|mut line| {
                line.sort_unstable_by(|one, other| one.age().cmp(other.age()));
                line.into()
            })
            .collect();
        let mut beyond = Vec::new();
        for _ in self.of_account..count {
            let fullest = lines
                .iter_mut()
                .max_by_key(|line| (line.len(), Reverse(line.front().map(|oldest| oldest.age().to_vec()))));
            beyond.extend(fullest.and_then(VecDeque::pop_front));
        }
        beyond
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::message::Urgency;

    fn push(registration: u8, urgency: Urgency, second: i64) -> (RegistrationId, MessageId) {
        let moment = DateTime::from_timestamp(second, 0).unwrap();
        let id = RegistrationId::from_bytes([registration; RegistrationId::BYTES]);
        (id, MessageId::new(urgency, moment, [registration; MessageId::CHANCE_BYTES]))
    }

    #[test]
    fn the_fullest_registration_gives_its_oldest() {
        let waiting = [
            push(1, Urgency::VeryLow, 1),
            push(2, Urgency::High, 2),
            push(2, Urgency::VeryLow, 3),
            push(2, Urgency::Normal, 9),
            push(3, Urgency::High, 4),
            push(3, Urgency::Low, 5),
        ];
        for (of_account, going) in [
            (7, &[][..]),
            (6, &[]),
            (5, &[1]),
            (4, &[1, 2]),
            (3, &[1, 2, 4]),
            (2, &[1, 2, 4, 0]),
            (0, &[1, 2, 4, 0, 5, 3]),
        ] {
            let bounds = MailboxBounds { of_registration: 3, of_account };
            let expected: Vec<_> = going.iter().map(|at: &usize| waiting[*at].1).collect();
            assert_eq!(bounds.beyond_account(waiting), expected, "at most {of_account}");
        }
    }

    #[test]
    fn what_has_ended_counts_when_as_much_has_as_may_live() {
        for (living, kept, counted) in
            [(0, 0, 0), (3, 3, 3), (3, 10, 3), (0, 14, 4), (0, 20, 10), (9, 20, 10)]
        {
            assert_eq!(registrations_counted(living, kept, 10), counted, "{living} of {kept}");
        }
    }
}
