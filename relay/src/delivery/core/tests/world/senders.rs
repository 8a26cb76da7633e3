//! Those who post, and the queue between them and the core.

use super::*;

impl World {
    /// An application server posts; the push is in the queue.
    pub(in super::super) fn post(&mut self, registration: RegistrationId) -> MessageId {
        self.post_for(registration, 86_400)
    }

    pub(in super::super) fn post_some(
        &mut self,
        registration: RegistrationId,
        count: usize,
    ) -> Vec<MessageId> {
        (0..count).map(|_| self.post(registration)).collect()
    }

    pub(in super::super) fn post_for(&mut self, registration: RegistrationId, ttl: u32) -> MessageId {
        self.post_with(registration, testing::wishes(ttl))
    }

    pub(in super::super) fn post_with(&mut self, registration: RegistrationId, wishes: Wishes) -> MessageId {
        self.posted += 1;
        // Ids order by the moment.
        self.wall += Duration::from_millis(1);
        let (chance, body) = (testing::chance(self.posted), Body::from_bytes(b"x"));
        let message = PushMessage::new(chance, &self.rows[&registration], wishes, body, self.wall);
        let id = message.id;
        self.posts.insert(id, message.clone());
        self.queue.insert(id, message);
        self.due.insert(id);
        self.serve_queue();
        id
    }

    /// A push comes while its account is off the access list. It waits, and nobody was asked for it.
    pub(in super::super) fn post_untried(&mut self, registration: RegistrationId) -> MessageId {
        self.admit("example.org");
        let push = self.post(registration);
        self.admit("example.com");
        assert!(self.mailbox.contains_key(&push), "{:?}", self.rest());
        push
    }

    /// The queue gives a push once more, by another entry of it.
    pub(in super::super) fn queue_again(&mut self, push: MessageId) {
        self.queue.insert(push, self.posts[&push].clone());
        self.due.insert(push);
        self.serve_queue();
    }

    /// A write that had been given up puts a push into the mailbox after all.
    pub(in super::super) fn keep_late(&mut self, push: MessageId) {
        let message = self.posts[&push].clone();
        self.kept.entry(message.recipient.to_bare()).or_default().insert(push);
        self.mailbox.insert(push, (message.clone(), None));
        self.take(Input::KeptLate(Arc::new(message), ports::Kept::default()));
    }

    /// Its sender withdraws a push that waits.
    pub(in super::super) fn withdraw(&mut self, push: MessageId) {
        assert!(self.mailbox.remove(&push).is_some(), "it waits");
    }

    pub(super) fn serve_queue(&mut self) {
        let Some(max) = self.receiving else { return };
        let mut received = Vec::new();
        while received.len() < max
            && let Some(id) = self.due.pop_first()
        {
            received.extend(self.queue.get(&id).map(|message| Arc::new(message.clone())));
        }
        if !received.is_empty() {
            self.receiving = None;
            self.take(Input::Received(received));
        }
    }
}
