//! Views of the world that the tests assert on.

use super::*;

impl World {
    /// Takes the number of deliveries that were counted since the last look.
    pub(in super::super) fn take_delivered_count(&mut self) -> usize {
        let delivered = |measure: &Measure| matches!(measure, Measure::Delivered(_));
        self.take_measured().iter().filter(|measure| delivered(measure)).count()
    }

    pub(in super::super) fn take_sent(&mut self) -> Vec<(MessageId, String)> {
        std::mem::take(&mut self.sent)
    }

    pub(in super::super) fn take_measured(&mut self) -> Vec<Measure> {
        std::mem::take(&mut self.measured)
    }

    pub(in super::super) fn waiting(&self) -> Vec<MessageId> {
        self.mailbox.keys().copied().collect()
    }

    pub(in super::super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(in super::super) fn is_queued(&self, push: MessageId) -> bool {
        self.queue.contains_key(&push)
    }

    /// Returns whether a push was for a life of its registration that is over.
    pub(in super::super) fn began_anew(&self, registration: RegistrationId, push: MessageId) -> bool {
        self.posts.get(&push).is_some_and(|message| message.epoch != self.rows[&registration].epoch)
    }

    /// Returns whether a push is in flight to a full JID.
    pub(in super::super) fn is_asked(&self, push: MessageId, to: &str) -> bool {
        let asks = self.core.pushes.get(&push).into_iter().flat_map(|push| &push.asks);
        asks.into_iter().any(|ask| ask.jid.as_str() == to)
    }

    pub(in super::super) fn has_expired(&self, push: MessageId) -> bool {
        self.posts[&push].is_expired(self.wall)
    }

    pub(in super::super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.mailbox.is_empty() && self.core.pushes.is_empty()
    }

    pub(in super::super) fn names(&self, registration: RegistrationId) -> String {
        self.rows[&registration].target.recipient.to_string()
    }

    /// Returns whether it was ever stored.
    pub(in super::super) fn has_stored(&self, registration: RegistrationId) -> bool {
        self.rows.contains_key(&registration)
    }

    pub(in super::super) fn lives(&self, registration: RegistrationId) -> bool {
        self.rows[&registration].lives(self.wall)
    }

    pub(in super::super) fn expiry(&self, registration: RegistrationId) -> DateTime<Utc> {
        self.rows[&registration].expires_at
    }

    pub(in super::super) fn core(&self) -> &Core {
        &self.core
    }
}
