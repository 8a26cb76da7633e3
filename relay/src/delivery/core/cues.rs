//! Cues: the reasons to read a mailbox. Somebody may be there for whom something waits.

use std::mem::take;

use super::{ticks::PER_TICK_MAX, *};
use crate::delivery::{
    account::Look,
    known::Knowledge,
    phone::{Phone, SILENT_AFTER},
    reading::Cue,
    retry::Retry,
};

/// Most full JIDs whose mailboxes are still to be read. A sweep finds the others.
const CUED_MAX: usize = 65_536;
/// Time for a distributor to answer pushes that were given up.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Core {
    /// Returns whether something may wait for a full JID, or for another one of its account that it may stand in for.
    pub(super) fn may_have_waiting(&self, jid: &FullJid) -> bool {
        // A push that a phone rejected waits, too, although its mailbox was read past it.
        let rejects =
            |jid| self.phone(jid).and_then(|phone| phone.retry.as_ref()).is_some_and(Retry::rejects);
        let waits = |jid| self.known.of(jid) != Some(Knowledge::Nothing) || rejects(jid);
        if waits(jid) {
            return true;
        }
        let account = self.accounts.get(&jid.to_bare());
        account.is_none_or(|account| account.all_named().any(|(_, named)| waits(named)))
    }

    /// Notes that something waits for a full JID.
    pub(super) fn note_waiting(&mut self, jid: &FullJid) {
        if self.known.of(jid) != Some(Knowledge::Away) {
            self.known.learn(jid, Knowledge::Something);
        }
        // The reading under way may have passed it already.
        if let Some(reading) = self.phone_mut(jid).and_then(|phone| phone.reading.as_mut()) {
            reading.note_left_out(Knowledge::Something);
        }
    }

    /// Cues a mailbox. If cues of its account come too fast, they are put off, and merged into one.
    pub(super) fn cue_within_bounds(&mut self, jid: &FullJid, cue: Cue, now: Now) {
        if self.account(jid).take_cue(now) {
            self.cue(jid, cue);
        } else {
            self.note_waiting(jid);
            self.deferred.insert(jid.to_bare());
        }
    }

    /// Cues a mailbox 2 s later, if something may wait in it. A session that is resumed gets all that was sent to it at
    /// once. Its distributor answers one push after the other, perhaps after the probe that followed them.
    pub(super) fn cue_soon(&mut self, jid: &FullJid, now: Now) {
        if self.known.of(jid) != Some(Knowledge::Nothing) {
            self.let_catch_up(jid, now);
        }
    }

    pub(super) fn let_catch_up(&mut self, jid: &FullJid, now: Now) {
        if self.catching_up.len() < CUED_MAX {
            self.catching_up.entry(jid.clone()).or_insert(now.monotonic + CATCH_UP);
        }
    }

    /// Resumes delivery to full JIDs that have had their time to answer. Pushes that their earlier sessions left
    /// unanswered go out again, and their mailboxes are read. Stand-ins in their accounts are cued.
    pub(super) fn go_on_after_catching_up(&mut self, now: Now, actions: &mut Vec<Action>) {
        let caught_up = self.catching_up.iter().filter(|(_, at)| **at <= now.monotonic);
        let caught_up: Vec<FullJid> = caught_up.map(|(jid, _)| jid.clone()).collect();
        for jid in caught_up {
            self.catching_up.remove(&jid);
            if let Some(phone) = self.phone_mut(&jid) {
                phone.forget_unanswered();
            }
            self.send_again(&jid, now, actions);
            if self.known.of(&jid) != Some(Knowledge::Nothing) && self.admits(&jid) {
                self.cue_within_bounds(&jid, Cue::There, now);
            }
            self.cue_stand_ins(&jid.to_bare(), now);
        }
    }

    /// Takes the cues that were put off: reads the mailboxes of full JIDs that are there and for whom something may
    /// wait.
    pub(super) fn take_deferred_cues(&mut self, now: Now) {
        for bare in self.deferred.take(PER_TICK_MAX) {
            let Some(account) = self.accounts.get_mut(&bare) else { continue };
            if !account.take_cue(now) {
                self.deferred.insert(bare);
                continue;
            }
            let account = &self.accounts[&bare];
            let routes = account.routes(now);
            let there = account.all_named().map(|(id, named)| routes.route(id, named));
            // A silent full JID has its mailbox read when it answers.
            let there = there.filter(|jid| {
                account.phones.get(*jid).is_some_and(|phone| phone.is_present() && !phone.is_silent(now))
            });
            let there: BTreeSet<FullJid> = there.cloned().collect();
            for jid in there {
                if self.known.of(&jid) != Some(Knowledge::Nothing) {
                    self.cue(&jid, Cue::There);
                }
            }
        }
    }

    /// Cues stand-ins for full JIDs that owe the answer to a probe.
    pub(super) fn relieve_probed(&mut self, now: Now) {
        let is_due = |(at, _): &(Instant, FullJid)| now.monotonic.duration_since(*at) >= SILENT_AFTER;
        while self.probed.front().is_some_and(is_due)
            && let Some((_, jid)) = self.probed.pop_front()
        {
            if self.phone(&jid).is_some_and(|phone| phone.is_silent(now)) {
                self.cue_stand_ins(&jid.to_bare(), now);
            }
        }
    }

    /// Returns whether a push came into the mailbox behind the reading that is under way, or is about to.
    pub(super) fn is_kept_meanwhile(&self, jid: &FullJid) -> bool {
        let reading = self.phone(jid).and_then(|phone| phone.reading.as_ref());
        reading.is_some_and(|reading| reading.outcome().is_none() || self.keeping.contains_key(jid))
    }

    /// Cues a mailbox. Until it is read, nothing overtakes what may wait in it. Returns `false` if too many mailboxes
    /// are to be read already.
    pub(super) fn cue(&mut self, jid: &FullJid, cue: Cue) -> bool {
        let full = self.cued.len() >= CUED_MAX;
        let phone = self.account(jid).phone(jid);
        match &mut phone.reading {
            Some(reading) if cue == Cue::Guess => {
                reading.repeat();
                return true;
            }
            // Pushes that the guess left out go before those that it would read next.
            Some(_) => self.abandon_reading(jid),
            None if full && phone.cue.is_none() => {
                self.note_waiting(jid);
                return false;
            }
            None => {}
        }
        let phone = self.account(jid).phone(jid);
        let waits = phone.cue.is_some();
        phone.cue = Some(phone.cue.map_or(cue, |before| before.max(cue)));
        if !waits {
            self.cued.push_back(jid.clone());
            self.set_gate(jid, Gate::Shut);
        }
        true
    }

    /// Asks the store about an account: which full JIDs its registrations name, and which were seen lately.
    pub(super) fn want_look(&mut self, jid: &FullJid) {
        let account = self.account(jid);
        if account.look == Look::Unknown {
            account.look = Look::Asked;
            self.looks.push_back(jid.to_bare());
        }
    }

    pub(super) fn take_look(&mut self, bare: &BareJid, found: Option<ports::Account>, now: Now) {
        self.looking -= 1;
        let Some(account) = self.accounts.get_mut(bare) else { return };
        match found {
            Some(found) => account.recall(found),
            None => account.look = Look::Unknown,
        }
        for jid in take(&mut account.blocked).into_iter().rev() {
            self.cued.push_front(jid);
        }
        if self.ending.is_none() {
            self.cue_stand_ins(bare, now);
        }
    }

    /// Cues the mailboxes of full JIDs that stand in for others for which something may wait.
    pub(super) fn cue_stand_ins(&mut self, bare: &BareJid, now: Now) {
        let Some(account) = self.accounts.get(bare) else { return };
        let routes = account.routes(now);
        let waiting = account.all_named().filter_map(|(id, named)| {
            let other = routes.route(id, named);
            (other != named && self.known.of(named) != Some(Knowledge::Nothing)).then(|| other.clone())
        });
        let others: BTreeSet<FullJid> = waiting.collect();
        for other in others {
            if self.admits(&other) {
                self.cue_within_bounds(&other, Cue::There, now);
            }
        }
    }

    /// Takes a push that is in its mailbox now. Pushes that it replaced are not sent any more. Its recipient is tried
    /// if it may be there.
    pub(super) fn take_kept(
        &mut self,
        message: &PushMessage,
        recipient: FullJid,
        untried: bool,
        kept: &ports::Kept,
        now: Now,
    ) {
        let PushMessage { id, registration, .. } = *message;
        self.forget_gone(&message.recipient.to_bare(), kept.replaced.iter().chain(&kept.dropped));
        if kept.replaced.contains(&id) || kept.dropped.contains(&id) || !self.admits(&recipient) {
            return;
        }
        let account = self.account(&recipient);
        let target = account.route(registration, &recipient, now).clone();
        self.note_waiting(&recipient);
        if target != recipient {
            self.note_waiting(&target);
        }
        if self.phone(&target).is_some_and(Phone::is_reading) {
            self.cue(&target, Cue::Guess);
            return;
        }
        if untried || self.known.of(&target) != Some(Knowledge::Away) {
            self.try_for_more(&target, now);
        }
    }

    /// Takes a push that came into its mailbox after its settlement. The queue has it, too, or it was delivered
    /// meanwhile.
    pub(super) fn take_kept_late(&mut self, message: Arc<PushMessage>, kept: &ports::Kept, now: Now) {
        if self.ending.is_some() {
            return;
        }
        let account = message.recipient.to_bare();
        self.count_kept(&account, kept);
        if self.settled.contains(&Name::of(&message)) && !mutant(Mutant::SettledForgotten) {
            self.forget_gone(&account, kept.replaced.iter().chain(&kept.dropped));
            return self.settle_kept(account, message);
        }
        let recipient = self.named(&message);
        self.take_kept(&message, recipient, true, kept, now);
    }

    /// Tries a full JID that may take a push that waits, and was not asked for it.
    pub(super) fn try_for_more(&mut self, jid: &FullJid, now: Now) {
        match self.known.of(jid) {
            Some(Knowledge::Away) => self.try_soon(jid, now),
            _ => self.guess_within_bounds(jid),
        }
    }

    /// Tries a full JID that is away. If it failed less than 2 s ago, its next try is brought forward instead.
    fn try_soon(&mut self, jid: &FullJid, now: Now) {
        let retry = self.phone_mut(jid).and_then(|phone| phone.retry.as_mut());
        match retry.filter(|retry| retry.is_recent(now.monotonic)) {
            Some(retry) => retry.hurry(),
            None => self.guess_within_bounds(jid),
        }
    }

    /// Cues a full JID that may be there, unless its domain already has `Room::held` pushes in memory. A sweep finds it
    /// then.
    fn guess_within_bounds(&mut self, jid: &FullJid) {
        if self.loads.held(jid.domain().as_str()) < self.settings.room.held {
            self.guess(jid);
        }
    }

    /// Drops pushes that wait no longer from all lines. A push in flight is kept for its answer.
    pub(super) fn forget_gone<'a>(
        &mut self,
        account: &BareJid,
        gone: impl IntoIterator<Item = &'a MessageId>,
    ) {
        for gone in gone {
            if let Some(account) = self.accounts.get_mut(account) {
                account.note_gone(*gone);
            }
            self.note_waits_already(*gone);
            let Some(push) = self.pushes.get_mut(gone) else { continue };
            self.gone.note(Name::new(account, *gone));
            if mutant(Mutant::ReplacedIsSent) {
                continue;
            }
            push.replaced = true;
            self.take_from_lines(*gone);
        }
    }

    /// Cues a full JID that may be there.
    pub(super) fn guess(&mut self, jid: &FullJid) {
        let phone = self.phone(jid);
        // A push in flight will show whether the full JID is there.
        if phone.is_none_or(|phone| phone.is_reading() || phone.line.in_flight() == 0) {
            self.cue(jid, Cue::Guess);
        }
    }

    /// Tries full JIDs whose retries are due, and forgets retries that are over.
    pub(super) fn retry_due(&mut self, now: Now) {
        for jid in self.retrying.take(PER_TICK_MAX) {
            let Some(retry) = self.phone_mut(&jid).and_then(|phone| phone.retry.as_mut()) else { continue };
            if retry.take_due(now.monotonic) {
                // Other readings have passed over the pushes that the full JID rejected.
                self.note_waiting(&jid);
                self.guess(&jid);
            } else if retry.is_over(now.monotonic) {
                self.forget_retry(&jid);
                continue;
            }
            self.retrying.insert(jid);
        }
    }

    pub(super) fn forget_retry(&mut self, jid: &FullJid) {
        self.retrying.remove(jid);
        let retry = self.phone_mut(jid).and_then(|phone| phone.retry.take());
        if retry.is_some_and(|retry| retry.rejects()) {
            // Other readings have passed over the pushes that the full JID rejected.
            self.note_waiting(jid);
        }
    }
}
