//! Settlements: batches of fates are made durable, one after the other.

use super::*;
use crate::delivery::{known::Knowledge, phone::Phone, reading::Cue};

/// The settlement that is under way.
#[derive(Debug, Default)]
pub(super) struct Settling {
    fates: usize,
    of_the_queue: usize,
    /// Full JIDs for which pushes go into the mailbox.
    kept_for: Vec<FullJid>,
    revoked: Vec<RegistrationId>,
    followed: Vec<RegistrationId>,
    /// Registrations that were made or renewed since the settlement began: they are newer than its notes.
    pub(super) registered: BTreeSet<RegistrationId>,
    /// Pushes in the mailbox for which this settlement writes that they went out.
    asked: Vec<(BareJid, MessageId)>,
    /// Pushes that leave the mailbox.
    removed: Vec<(BareJid, MessageId)>,
    late: Vec<Name>,
    late_revocations: usize,
}

impl Core {
    pub(super) fn decide(&mut self, fate: Fate) {
        match &fate {
            Fate::Revoke { push, .. } => {
                *self.revoking.entry(push.message.registration).or_default() += 1;
            }
            Fate::Follow { registration, .. } => *self.following.entry(*registration).or_default() += 1,
            Fate::LateRevoke(..) => self.late_revocations += 1,
            Fate::Late(account, id) => {
                let name = Name::new(account, *id);
                self.gone.note(name);
                self.late.insert(name);
            }
            Fate::Done(push)
                if push.origin == Origin::Mailbox && !self.gone.contains(&Name::of(&push.message)) =>
            {
                self.count_left(&push.message.recipient.to_bare(), 1);
            }
            Fate::Keep { target, .. } => *self.keeping.entry(target.clone()).or_default() += 1,
            Fate::Asked { message, .. } => self.account(&message.recipient).note_asked(message.id),
            _ => {}
        }
        self.fates.push_back(fate);
    }

    /// Decides a fate, unless settling is behind: the event recurs. Returns whether the fate was decided.
    pub(super) fn decide_if_settling_keeps_up(&mut self, fate: Fate) -> bool {
        let keeps_up = self.settling_keeps_up();
        if keeps_up {
            self.decide(fate);
        }
        keeps_up
    }

    /// Notes that the senders of a registration were not asked to wait. The next push over the rate asks them again.
    pub(super) fn ask_again_to_wait(&mut self, registration: RegistrationId) {
        if let Some(meter) = &mut self.settings.meter {
            meter.forget_asked(registration);
        }
    }

    pub(super) fn settling_keeps_up(&self) -> bool {
        self.fates.len() + self.settling.as_ref().map_or(0, |settling| settling.fates)
            < self.settings.room.unsettled()
    }

    /// Starts the next settlement, if none is under way.
    pub(super) fn settle(&mut self, actions: &mut Vec<Action>) {
        if self.settling.is_some() || self.fates.is_empty() {
            return;
        }
        let mut count = self.fates.len().min(BATCH_MAX);
        // The counts of a push go with the fate before them.
        while matches!(self.fates.get(count), Some(Fate::Count(..))) {
            count += 1;
        }
        let fates: Vec<Fate> = self.fates.drain(..count).collect();
        let mut settling = Settling { fates: count, ..Settling::default() };
        for fate in &fates {
            settling.of_the_queue += usize::from(fate.is_of_the_queue());
            match fate {
                Fate::Revoke { push, .. } => settling.revoked.push(push.message.registration),
                Fate::Follow { registration, .. } => settling.followed.push(*registration),
                Fate::Late(account, id) => settling.late.push(Name::new(account, *id)),
                Fate::LateRevoke(..) => settling.late_revocations += 1,
                Fate::Keep { target, .. } => settling.kept_for.push(target.clone()),
                Fate::Asked { message, .. } => {
                    settling.asked.push((message.recipient.to_bare(), message.id));
                }
                Fate::Done(push) if push.origin == Origin::Mailbox => {
                    settling.removed.push((push.message.recipient.to_bare(), push.message.id));
                }
                _ => {}
            }
        }
        self.settling = Some(settling);
        actions.push(Action::Start(Job::Settle(fates)));
    }

    pub(super) fn take_settled(&mut self, notes: Vec<Note>, now: Now, actions: &mut Vec<Action>) {
        let mut settling = self.settling.take().unwrap_or_default();
        self.held -= settling.of_the_queue;
        self.late_revocations -= settling.late_revocations;
        for name in &settling.late {
            self.late.remove(name);
        }
        for target in &settling.kept_for {
            forget_one(&mut self.keeping, target);
        }
        for registration in &settling.revoked {
            forget_one(&mut self.revoking, registration);
        }
        for note in &notes {
            if let Note::Late { account, id, accepted_at, expired } = note {
                self.count_left(account, 1);
                let name = Name::new(account, *id);
                // The tenant's count is written with the removal.
                if !expired {
                    self.count_delivered(name, *accepted_at, now, actions);
                } else if self.counted.note(name) {
                    actions.push(Action::Count(Measure::Expired));
                }
            }
        }
        for (account, message) in std::mem::take(&mut settling.asked) {
            if let Some(account) = self.accounts.get_mut(&account) {
                account.note_asked_written(message);
            }
        }
        for (account, message) in std::mem::take(&mut settling.removed) {
            // A write that comes later puts it there once more.
            self.leaving.remove(&Name::new(&account, message));
            if let Some(account) = self.accounts.get_mut(&account) {
                account.note_gone(message);
            }
        }
        if self.ending.is_some() {
            return;
        }
        for target in std::mem::take(&mut settling.kept_for) {
            let waits = |phone: &Phone| phone.line.is_shut() && !phone.is_reading();
            if !self.keeping.contains_key(&target) && self.phone(&target).is_some_and(waits) {
                self.cue(&target, Cue::Guess);
            }
        }
        for note in notes {
            match note {
                Note::Waits { message, recipient, untried, kept } => {
                    if let Some(kept) = &kept {
                        self.count_kept(&message.recipient.to_bare(), kept);
                    }
                    let named = self.note_named_by(&settling, &message, recipient);
                    self.take_kept(&message, named, untried, &kept.unwrap_or_default(), now);
                }
                Note::Names(registration, ..) if settling.registered.contains(&registration) => {}
                Note::Names(registration, epoch, recipient) => {
                    self.note_named(registration, epoch, &recipient);
                    // A push that was refused may go on waiting: its registration was renewed meanwhile.
                    if self.known.of(&recipient) != Some(Knowledge::Nothing) && self.admits(&recipient) {
                        self.cue(&recipient, Cue::There);
                    }
                }
                Note::Moved(account, registration) => {
                    if let Some(account) = self.accounts.get_mut(&account) {
                        account.note_moved(registration, now);
                    }
                }
                Note::Ended { account, registration, epoch, waited } => {
                    self.count_ended(&account, registration, epoch, waited);
                    if let Some(account) = self.accounts.get_mut(&account) {
                        account.forget_registration(registration, epoch);
                    }
                    self.ended.note((registration, epoch));
                    self.drop_lines_of(registration, epoch);
                }
                Note::Late { .. } => {}
                Note::NotThrottled(registration) => self.ask_again_to_wait(registration),
                Note::NotSeen(account) => self.note_seen_again(account),
                Note::Trimmed(trim, trimmed) => self.take_trimmed(&trim, &trimmed),
            }
        }
        for registration in settling.followed {
            forget_one(&mut self.following, &registration);
        }
        self.trim_domains();
    }

    /// Drops the pushes in line of a registration that has ended. Its waiting pushes were removed with it.
    fn drop_lines_of(&mut self, registration: RegistrationId, epoch: Epoch) {
        let of_it =
            |push: &Push| push.held.message.registration == registration && push.held.message.epoch <= epoch;
        let of_them = self.pushes.iter().filter(|(_, push)| of_it(push));
        let of_them: Vec<_> = of_them.map(|(id, push)| (*id, life(&push.held.message))).collect();
        for (id, life) in of_them {
            // It may be of an earlier life, whose end another process has seen.
            self.ended.note(life);
            self.drop_from_lines(id);
        }
    }

    /// Drops a push that is over from all lines.
    pub(super) fn drop_from_lines(&mut self, id: MessageId) {
        if let Some(Held { origin: Origin::Queue, message }) = self.take_from_lines(id) {
            self.leave_queue(message);
        }
    }

    /// Takes a push out of the queue by `Fate::Keep`. If its registration has ended, the mailbox does not take it, and
    /// its end is counted.
    pub(super) fn leave_queue(&mut self, message: Arc<PushMessage>) {
        let target = self.named(&message);
        self.decide(Fate::Keep { message, target, asked_at: None, untried: false });
    }

    /// Notes the full JID that a registration named when its row was read. A full JID that is known for the same life
    /// stays: this relay alone moves registrations, so the row is not newer.
    pub(super) fn recall_named(&mut self, registration: RegistrationId, epoch: Epoch, recipient: &FullJid) {
        if self.account(recipient).epoch(registration).is_none_or(|known| known < epoch) {
            self.note_named(registration, epoch, recipient);
        }
    }

    /// Notes the full JID that a push's registration named when the push went into the mailbox, unless the registration
    /// has moved since, or is about to. Returns the full JID that the registration names.
    fn note_named_by(&mut self, settling: &Settling, message: &PushMessage, read: FullJid) -> FullJid {
        let registration = message.registration;
        if self.following.contains_key(&registration) || settling.registered.contains(&registration) {
            return self.named(message);
        }
        self.note_named(registration, message.epoch, &read);
        read
    }

    /// Notes the full JID that a registration names. If it moved, something may wait for it there.
    pub(super) fn note_named(&mut self, registration: RegistrationId, epoch: Epoch, recipient: &FullJid) {
        let before = self.account(recipient).note_recipient(registration, epoch, recipient.clone());
        if before.as_ref() != Some(recipient) && !mutant(Mutant::MovePassedOver) {
            self.note_waiting(recipient);
        }
    }
}

/// Decrements the count of a key, and removes it at zero.
fn forget_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
