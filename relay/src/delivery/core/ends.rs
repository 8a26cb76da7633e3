//! The ends of pushes by delivery or expiry. Each end is counted once.

use super::*;

impl Core {
    pub(super) fn deliver(&mut self, held: Held, now: Now, actions: &mut Vec<Action>) {
        let delivered = u64::from(self.count_settled(&held.message, now, actions));
        self.finish(held, Counts { delivered, ..Counts::default() });
    }

    /// Counts the delivery of a push that is settled, unless its end was counted. Returns whether it was counted now.
    pub(super) fn count_settled(
        &mut self,
        message: &PushMessage,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.count_delivered(Name::of(message), message.accepted_at, now, actions)
    }

    /// Counts a delivery, unless the end of the push was counted. A push may end more than once: the queue gives it
    /// twice, or two full JIDs answer. Returns whether the delivery was counted now.
    pub(super) fn count_delivered(
        &mut self,
        name: Name,
        accepted_at: DateTime<Utc>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let is_new = self.counted.note(name);
        if is_new {
            actions.push(Action::Count(Measure::Delivered(now.wall - accepted_at)));
        }
        is_new
    }

    /// Returns whether a push is sent no more: it was replaced, or its registration has ended.
    pub(super) fn is_over(&self, push: &Push) -> bool {
        push.replaced || self.ended.contains(&life(&push.held.message))
    }

    /// Settles a push that was delivered or has expired, and counts its end for its tenant.
    pub(super) fn finish(&mut self, held: Held, mut counts: Counts) {
        if held.origin == Origin::Queue {
            self.accepted.note(Name::of(&held.message));
            counts += Counts::accepted(&held.message);
        }
        let message = Arc::clone(&held.message);
        self.settled.note(Name::of(&held.message));
        if held.origin == Origin::Mailbox {
            self.leaving.insert(Name::of(&held.message));
            self.left_lately.note(Name::of(&held.message));
        }
        self.decide(Fate::Done(held));
        self.count_for_tenant(&message.recipient, message.id, counts);
    }

    /// Takes a push out of the mailbox that was settled before it came there.
    pub(super) fn settle_kept(&mut self, account: BareJid, message: Arc<PushMessage>) {
        let name = Name::of(&message);
        if !self.counted.contains(&name) {
            // The late result that settled the push is counted when it removes the push.
            return self.decide(Fate::Late(account, message.id));
        }
        self.count_left(&account, 1);
        self.gone.note(name);
        self.finish(Held { origin: Origin::Mailbox, message }, Counts::default());
    }

    /// Removes the queue's copy of a push that waits or is settled. An earlier process may have put the push into the
    /// mailbox, and have ended before it counted that.
    pub(super) fn finish_copy(&mut self, message: Arc<PushMessage>, further: Counts) {
        let is_new = self.accepted.note(Name::of(&message)) || further.delivered > 0;
        let mut counts = if is_new { Counts::accepted(&message) } else { Counts::default() };
        if is_new {
            counts += further;
        }
        let (recipient, id) = (message.recipient.clone(), message.id);
        self.decide(Fate::Done(Held { origin: Origin::Queue, message }));
        self.count_for_tenant(&recipient, id, counts);
    }

    /// Decides counts of a tenant. They become durable with the fates that were decided before.
    pub(super) fn count_for_tenant(&mut self, jid: &Jid, id: MessageId, counts: Counts) {
        let has_tenant = || self.access.tenant_of(jid.domain().as_str()).is_some();
        if counts != Counts::default() && has_tenant() {
            self.decide(Fate::Count(jid.to_bare(), id, counts));
        }
    }

    pub(super) fn expire(&mut self, id: MessageId, now: Now, actions: &mut Vec<Action>) {
        if let Some(push) = self.take_push(id) {
            self.settle_expired(push.held, actions);
            self.conclude_all(&push.asks, now, actions);
        }
    }

    pub(super) fn settle_expired(&mut self, held: Held, actions: &mut Vec<Action>) {
        let is_new = self.counted.note(Name::of(&held.message));
        if is_new {
            actions.push(Action::Count(Measure::Expired));
        }
        self.finish(held, Counts { expired: u64::from(is_new), ..Counts::default() });
    }
}
