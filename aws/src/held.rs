//! The entries of the queue that this process holds, and those that it has settled lately. SQS may deliver an entry
//! twice, and an ingress may have queued a push twice without knowing.
//!
//! Pure bookkeeping. A push is known by its own id, and has one or more copies in SQS.

use std::{collections::HashMap, time::Duration};

use push::{Lately, MessageId};
use tokio::time::Instant;

/// Most ids of settled pushes that are remembered.
const SETTLED_MAX: usize = 16_384;

/// One entry of the queue, as SQS knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqsCopy {
    /// SQS's message id, which is the same in each delivery.
    pub(crate) sqs_id: String,
    /// The receipt handle of the latest delivery. Earlier ones may be invalid.
    pub(crate) receipt: String,
    /// The entry itself, if SQS has delivered it so often that it has to be queued afresh.
    pub(crate) worn: Option<String>,
}

/// The next step for an entry that was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The push is new: hand it out.
    New,
    /// The push is handed out already. The copy is settled together with it.
    Held,
    /// The push is settled already: delete this copy.
    Settled,
}

#[derive(Debug)]
struct Entry {
    copies: Vec<SqsCopy>,
    /// The time at which SQS shows it to others again.
    visible_at: Instant,
}

#[derive(Debug)]
pub(crate) struct HeldEntries {
    entries: HashMap<MessageId, Entry>,
    settled: Lately<MessageId>,
}

impl Default for HeldEntries {
    fn default() -> Self {
        Self { entries: HashMap::new(), settled: Lately::new(SETTLED_MAX) }
    }
}

impl HeldEntries {
    /// Notes an entry that was received and is hidden from others until `visible_at`.
    pub(crate) fn note_arrival(&mut self, id: MessageId, copy: SqsCopy, visible_at: Instant) -> Arrival {
        if self.settled.contains(&id) {
            return Arrival::Settled;
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            self.entries.insert(id, Entry { copies: vec![copy], visible_at });
            return Arrival::New;
        };
        match entry.copies.iter_mut().find(|known| known.sqs_id == copy.sqs_id) {
            Some(known) => *known = copy,
            None => entry.copies.push(copy),
        }
        Arrival::Held
    }

    /// Returns all copies of a push; none if it is not held.
    pub(crate) fn copies(&self, id: MessageId) -> &[SqsCopy] {
        self.entries.get(&id).map_or(&[], |entry| &entry.copies)
    }

    /// Stops holding a push, and returns its copies. A copy that is received from now on counts as new.
    pub(crate) fn take(&mut self, id: MessageId) -> Vec<SqsCopy> {
        self.entries.remove(&id).map(|entry| entry.copies).unwrap_or_default()
    }

    /// Notes that a push has left the queue for good.
    pub(crate) fn note_settled(&mut self, id: MessageId) {
        self.entries.remove(&id);
        self.settled.note(id);
    }

    /// Returns the pushes that others could receive within `margin`, with their copies.
    pub(crate) fn running_out(&self, now: Instant, margin: Duration) -> Vec<(MessageId, SqsCopy)> {
        let running_out = self.entries.iter().filter(|(_, entry)| entry.visible_at <= now + margin);
        running_out.flat_map(|(id, entry)| entry.copies.iter().map(|copy| (*id, copy.clone()))).collect()
    }

    /// Notes that a push stays hidden until `visible_at`.
    pub(crate) fn note_extended(&mut self, id: MessageId, visible_at: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.visible_at = visible_at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> MessageId {
        let mut bytes = [0; MessageId::BYTES];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        MessageId::from_bytes(bytes)
    }

    fn copy(sqs_id: &str, receipt: &str) -> SqsCopy {
        SqsCopy { sqs_id: sqs_id.to_owned(), receipt: receipt.to_owned(), worn: None }
    }

    #[tokio::test]
    async fn a_second_delivery_is_not_handed_out_and_its_receipt_is_the_one_that_counts() {
        let (mut held, now) = (HeldEntries::default(), Instant::now());
        assert_eq!(held.note_arrival(id(1), copy("a", "first"), now), Arrival::New);
        assert_eq!(held.note_arrival(id(1), copy("a", "second"), now), Arrival::Held);
        assert_eq!(held.copies(id(1)), [copy("a", "second")]);
        assert_eq!(held.take(id(1)).len(), 1);
        assert_eq!(held.note_arrival(id(1), copy("a", "third"), now), Arrival::New, "it may be tried again");
    }

    #[tokio::test]
    async fn copies_of_one_push_are_settled_together_and_a_late_one_is_known() {
        let (mut held, now) = (HeldEntries::default(), Instant::now());
        held.note_arrival(id(1), copy("a", "r1"), now);
        assert_eq!(held.note_arrival(id(1), copy("b", "r2"), now), Arrival::Held);
        assert_eq!(held.copies(id(1)).len(), 2);
        held.note_settled(id(1));
        assert_eq!(held.copies(id(1)), []);
        assert_eq!(held.note_arrival(id(1), copy("c", "r3"), now), Arrival::Settled);
    }

    #[tokio::test]
    async fn only_so_many_settled_pushes_are_remembered() {
        let (mut held, now) = (HeldEntries::default(), Instant::now());
        (0..=SETTLED_MAX as u32).for_each(|number| held.note_settled(id(number)));
        held.note_settled(id(1));
        assert_eq!(held.note_arrival(id(0), copy("a", "r"), now), Arrival::New, "the oldest is forgotten");
        assert_eq!(held.note_arrival(id(1), copy("b", "r"), now), Arrival::Settled);
    }

    #[tokio::test]
    async fn what_others_could_receive_soon_is_found_until_it_is_extended() {
        let (mut held, now) = (HeldEntries::default(), Instant::now());
        let in_seconds = |seconds| now + Duration::from_secs(seconds);
        held.note_arrival(id(1), copy("a", "r1"), in_seconds(60));
        held.note_arrival(id(2), copy("b", "r2"), in_seconds(20));
        assert_eq!(held.running_out(now, Duration::from_secs(30)), [(id(2), copy("b", "r2"))]);
        held.note_extended(id(2), in_seconds(80));
        assert_eq!(held.running_out(now, Duration::from_secs(30)), []);
    }
}
