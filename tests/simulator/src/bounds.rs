//! Keeps the bounds of mailboxes as DynamoDB does, and checks that they hold.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use push::{
    MailboxBounds, MessageId, PushMessage, RegistrationId,
    ports::{Kept, Unavailable, Waiting},
};
use tokio_xmpp::jid::BareJid;

use crate::{
    calls::{Port, Shared, State},
    mailbox::Key,
};

/// The item that counts the waiting pushes of an account (aws/src/mailbox/counts.rs). A count may be too high. It is
/// too low only for pushes that are being written.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pushes: usize,
    of_each: BTreeMap<RegistrationId, usize>,
}

impl Counts {
    fn add(&mut self, registration: RegistrationId) {
        self.pushes += 1;
        *self.of_each.entry(registration).or_default() += 1;
    }
}

fn key(message: &PushMessage) -> Key {
    (message.recipient.to_bare(), message.id)
}

impl Port {
    /// Keeps a push as the table does: writes it, counts it, and makes room if a count is at its bound. If two are kept
    /// at the same time, one of the calls sees both. A crash in between leaves one push too many.
    pub(crate) async fn keep_in_steps(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
    ) -> Result<Kept, Unavailable> {
        let account = waiting.message.recipient.to_bare();
        let accounts = |_: &State| vec![account.clone()];
        let step = waiting.clone();
        let put = move |state: &mut State, shared: &Shared| {
            state.mailboxes.unfinished.insert(key(&step.message));
            state.put(step, shared);
        };
        self.call_store("keep", accounts, put).await?;
        let step = waiting.clone();
        let count = move |state: &mut State, shared: &Shared| state.count(&step, bounds, shared);
        if !self.call_store("count", accounts, count).await? {
            let room =
                move |state: &mut State, shared: &Shared| state.make_room_and_count(&waiting, bounds, shared);
            return self.call_store("make_room", accounts, room).await;
        }
        if waiting.message.topic.is_none() {
            return Ok(Kept::default());
        }
        let unbounded = MailboxBounds { of_registration: usize::MAX, of_account: usize::MAX };
        let replace = move |state: &mut State, shared: &Shared| state.make_room(&waiting, unbounded, shared);
        self.call_store("replace", accounts, replace).await
    }
}

impl State {
    /// Counts a push that was written. `false`: too many may wait now, and the push is not counted.
    fn count(&mut self, waiting: &Waiting, bounds: MailboxBounds, shared: &Shared) -> bool {
        let message = &waiting.message;
        let (account, registration) = (message.recipient.to_bare(), message.registration);
        let has_room = |counts: &&mut Counts| {
            let of_registration = counts.of_each.get(&registration).copied().unwrap_or_default();
            counts.pushes < bounds.of_account && of_registration < bounds.of_registration
        };
        let Some(counts) = self.mailboxes.counts.get_mut(&account).filter(has_room) else { return false };
        counts.add(registration);
        self.mailboxes.unfinished.remove(&key(message));
        self.check_bounds(&account, shared);
        true
    }

    /// Removes the pushes that a push replaces and those beyond the bounds, and makes anew the counts at their bounds.
    fn make_room_and_count(&mut self, waiting: &Waiting, bounds: MailboxBounds, shared: &Shared) -> Kept {
        let message = &waiting.message;
        let (account, registration) = (message.recipient.to_bare(), message.registration);
        let counts = self.mailboxes.counts.get(&account);
        let account_full = counts.is_none_or(|counts| counts.pushes >= bounds.of_account);
        let counted =
            counts.and_then(|counts| counts.of_each.get(&registration)).copied().unwrap_or_default();
        let looked_at =
            if account_full { bounds } else { MailboxBounds { of_account: usize::MAX, ..bounds } };
        let kept = self.make_room(waiting, looked_at, shared);
        let lives = |one: &&Waiting| one.message.expires_at > message.accepted_at;
        let left: Vec<RegistrationId> =
            self.mailboxes.of(&account).filter(lives).map(|one| one.message.registration).collect();
        let of_registration = left.iter().filter(|one| **one == registration).count();
        let counts = self.mailboxes.counts.entry(account.clone()).or_default();
        if account_full {
            *counts = Counts::default();
            left.iter().for_each(|registration| counts.add(*registration));
        } else if of_registration < bounds.of_registration || counted < bounds.of_registration {
            counts.pushes = (counts.pushes + of_registration).saturating_sub(counted);
            counts.of_each.insert(registration, of_registration);
        }
        // Other pushes that are being written may still be too many: each makes room in its turn.
        self.mailboxes.unfinished.remove(&key(message));
        self.check_bounds(&account, shared);
        kept
    }

    /// Returns the pushes of an account that have not expired at a moment: those of each registration, oldest first.
    fn lines(&self, account: &BareJid, moment: DateTime<Utc>) -> BTreeMap<RegistrationId, Vec<MessageId>> {
        let mut lines = BTreeMap::<_, Vec<MessageId>>::new();
        for one in self.mailboxes.of(account).filter(|one| one.message.expires_at > moment) {
            lines.entry(one.message.registration).or_default().push(one.message.id);
        }
        lines.values_mut().for_each(|line| line.sort_by(|one, other| one.age().cmp(other.age())));
        lines
    }

    /// Checks the pushes that are to be dropped for a push. Each has to be the oldest of its registration: the push's
    /// own, if that is over its bound, or the account's fullest one, if the account is over its bound.
    pub(crate) fn check_drops(&mut self, message: &PushMessage, kept: &Kept, shared: &Shared) {
        let bounds = shared.plan.mailbox;
        let mut lines = self.lines(&message.recipient.to_bare(), message.accepted_at);
        lines.values_mut().for_each(|line| line.retain(|id| !kept.replaced.contains(id)));
        for id in &kept.dropped {
            let all: usize = lines.values().map(Vec::len).sum();
            let longest = lines.values().map(Vec::len).max().unwrap_or_default();
            let found = lines.iter_mut().find(|(_, line)| line.first() == Some(id));
            let full = found.is_some_and(|(registration, line)| {
                let length = line.len();
                line.remove(0);
                *registration == message.registration && length > bounds.of_registration
                    || all > bounds.of_account && length == longest
            });
            if !full {
                let detail = format!("{id} for {}, of {all}", message.recipient);
                self.ledger.violate("only a full mailbox drops, oldest first", shared.now(), detail);
            }
        }
    }

    /// Checks that an account and its registrations are within their bounds, but for pushes that are being written.
    pub(crate) fn check_bounds(&mut self, account: &BareJid, shared: &Shared) {
        let bounds = shared.plan.mailbox;
        let lines = self.lines(account, shared.wall());
        let unfinished = |line: &Vec<MessageId>| {
            line.iter().filter(|id| self.mailboxes.unfinished.contains(&(account.clone(), **id))).count()
        };
        let counts = lines.values().map(|line| (line.len(), unfinished(line)));
        let (all, excess) =
            counts.clone().fold((0, 0), |(all, excess), (one, more)| (all + one, excess + more));
        let too_many = all > bounds.of_account + excess
            || counts.clone().any(|(one, more)| one > bounds.of_registration + more);
        if too_many {
            let detail = format!("{all} for {account}, {excess} of them being written");
            self.ledger.violate("no mailbox is over its bounds", shared.now(), detail);
        }
    }
}
