//! Checks that pushes come promptly to phones that are there, and that delivered pushes leave the stores.

use std::time::Duration;

use chrono::{DateTime, Utc};
use push::MessageId;

use crate::{
    calls::{Shared, State},
    ledger::{Ledger, Life, Record},
};

/// Most time that a push may take to a phone that is there and answers.
const PROMPT: Duration = Duration::from_secs(12);
/// Most time for which nothing is in the way of a push that expires undelivered.
const PROMPT_BEFORE_EXPIRY: Duration = Duration::from_secs(8);

/// Most time until a push whose result was told has left the queue, also while another account is slow.
const TO_SETTLE: Duration = Duration::from_secs(8);
/// Most time until the push has left the mailbox, into which it may have come since.
const TO_LEAVE: Duration = Duration::from_secs(25);
/// Most time until the push has left the mailbox, if only a sweep finds it.
const TO_BE_SWEPT: Duration = Duration::from_secs(680);

impl Ledger {
    /// Checks a push with `TTL: 0` that has left the stores: it was sent, unless its phone had just come.
    pub(crate) fn check_immediate(&mut self, id: MessageId, at: Duration) {
        let Some(push) = self.pushes.get(&id).filter(|push| push.sent.is_empty()) else { return };
        let offered = push.offered_at;
        let ready = self.ready.get(&push.message.registration).is_some_and(|since| *since + PROMPT < offered);
        let account = push.message.recipient.to_bare();
        let locked = self.locked.contains_key(&account);
        if ready && !locked && self.excused_until(&account) + PROMPT < offered {
            let detail = format!("{id} for {}, which is there", push.message.recipient);
            self.violate("a push with TTL 0 is sent to a phone that is there", at, detail);
        }
    }

    /// Returns the moment since which nothing is in the way of a push; `None`: something is.
    fn clear_since(&self, id: MessageId) -> Option<Duration> {
        let push = self.pushes.get(&id)?;
        let ready = *self.ready.get(&push.message.registration)?;
        let account = push.message.recipient.to_bare();
        let locked = self.locked.get(&account).copied().unwrap_or_default();
        Some(push.promised_at?.max(ready).max(self.excused_until(&account)).max(locked))
    }

    /// Checks a push that has expired undelivered: something was in its way until lately.
    pub(crate) fn check_expiry(&mut self, id: MessageId, at: Duration) {
        let Some(push) = self.pushes.get(&id) else { return };
        let waited = self.clear_since(id).and_then(|since| at.checked_sub(since));
        if waited.is_some_and(|waited| waited > PROMPT_BEFORE_EXPIRY) && !push.message.is_immediate() {
            let detail = format!("{id} for {}, and nothing was in its way", push.message.recipient);
            self.violate("no push expires needlessly", at, detail);
        }
    }
}

impl State {
    /// Checks all pushes that are owed.
    pub(crate) fn check(&mut self, at: Duration, wall: DateTime<Utc>) {
        let open: Vec<MessageId> = self.ledger.open.iter().copied().collect();
        for id in open {
            let Some(push) = self.ledger.pushes.get(&id) else { continue };
            let message = push.message.clone();
            let over = self.rows.life_of(&message, wall) == Life::Over || self.ledger.is_replaced(&message);
            if over || self.ledger.dropped.contains(&id) {
                self.ledger.open.remove(&id);
            } else if message.is_expired(wall) {
                self.ledger.check_expiry(id, at);
                self.ledger.open.remove(&id);
            } else if self.ledger.clear_since(id).is_some_and(|since| at.saturating_sub(since) > PROMPT) {
                let detail = format!("{id} for {} waits, and nothing is in its way", message.recipient);
                self.ledger.violate("a push that can be delivered is delivered", at, detail);
            }
        }
    }

    /// Checks that no push is in a store for long after its result was told.
    pub(crate) fn check_leaving(&mut self, shared: &Shared) {
        let now = shared.now();
        let overdue = self.ledger.leaving.iter().find(|(id, told)| {
            let Some(Record { message, .. }) = self.ledger.pushes.get(id) else { return false };
            let account = message.recipient.to_bare();
            let since = self.ledger.excused_until(&account).max(**told);
            let bound = match self.entries.holds(**id) {
                true => TO_SETTLE,
                false if self.ledger.untold.contains(id) => TO_BE_SWEPT,
                false => TO_LEAVE,
            };
            now.saturating_sub(since) > bound
                && self.ledger.has_no_trouble_since(**told)
                && !self.ledger.locked.contains_key(&account)
                && self.rows.life_of(message, shared.wall()) == Life::Lives
        });
        if let Some((id, told)) = overdue {
            let detail = format!("{id}, whose result was told at {told:?}");
            self.ledger.violate("a delivered push leaves the stores", now, detail);
        }
    }
}
