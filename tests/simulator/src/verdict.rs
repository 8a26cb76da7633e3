//! Promptness, which the relay owes to phones that are there.

use std::time::Duration;

use chrono::{DateTime, Utc};
use push::MessageId;

use crate::{
    calls::State,
    ledger::{Ledger, Life},
};

/// The most time that a push may take to a phone that is there and answers.
const PROMPT: Duration = Duration::from_secs(12);
/// The least time without anything in its way that makes its expiry needless.
const PROMPT_BEFORE_EXPIRY: Duration = Duration::from_secs(8);

impl Ledger {
    /// A push that is for now has left the queue, and was sent to nobody; its phone may not have been there for long.
    pub(crate) fn check_immediate(&mut self, id: MessageId, at: Duration) {
        let Some(push) = self.pushes.get(&id).filter(|push| push.sent.is_empty()) else { return };
        let offered = push.offered_at;
        let ready = self.ready.get(&push.message.registration).is_some_and(|since| *since + PROMPT < offered);
        let locked = self.locked.contains_key(&push.message.recipient.to_bare());
        if ready && !locked && self.trouble_until + PROMPT < offered {
            let detail = format!("{id} for {}, who is there", push.message.recipient);
            self.violate("what is for now is sent to who is there", at, detail);
        }
    }

    /// Since when nothing is in the way of a push; `None`: something is.
    fn clear_since(&self, id: MessageId) -> Option<Duration> {
        let push = self.pushes.get(&id)?;
        let ready = *self.ready.get(&push.message.registration)?;
        let locked = self.locked.get(&push.message.recipient.to_bare()).copied().unwrap_or_default();
        Some(push.promised_at?.max(ready).max(self.trouble_until).max(locked))
    }

    /// A push has expired undelivered; nothing may have been in order for long.
    pub(crate) fn check_expiry(&mut self, id: MessageId, at: Duration) {
        let Some(push) = self.pushes.get(&id) else { return };
        let waited = self.clear_since(id).and_then(|since| at.checked_sub(since));
        if waited.is_some_and(|waited| waited > PROMPT_BEFORE_EXPIRY) && !push.message.is_immediate() {
            let detail = format!("{id} for {}, in whose way nothing was", push.message.recipient);
            self.violate("nothing expires needlessly", at, detail);
        }
    }
}

impl State {
    /// Looks at all that is owed.
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
                self.ledger.violate("what can be delivered is delivered", at, detail);
            }
        }
    }
}
