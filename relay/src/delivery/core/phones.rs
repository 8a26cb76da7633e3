//! The coming and going of full JIDs.

use std::ops::Bound;

use super::{pushes::Attempt, ticks::PER_TICK_MAX, *};
use crate::delivery::{
    account::{Look, SeenNews},
    known::Knowledge,
    line::LINE_MAX,
    phone::{Phone, SILENT_AFTER},
    reading::Cue,
    retry::Retry,
};

/// Most full JIDs that are tried again by themselves. A sweep finds the others.
const RETRIED_MAX: usize = 4096;
/// Most pushes in other lines that are looked at when a full JID comes back: as many as one line has. A full JID that
/// comes again and again costs no more.
const BROUGHT_BACK_MAX: usize = LINE_MAX;
/// Most accounts in memory before idle ones are forgotten. The store has what they need.
const ACCOUNTS_MAX: usize = 16_384;
/// Most accounts that are checked for idleness in one tick.
const TIDIED_PER_TICK: usize = 1024;

impl Core {
    pub(super) fn phone(&self, jid: &FullJid) -> Option<&Phone> {
        self.accounts.get(&jid.to_bare())?.phones.get(jid)
    }

    pub(super) fn phone_mut(&mut self, jid: &FullJid) -> Option<&mut Phone> {
        self.accounts.get_mut(&jid.to_bare())?.phones.get_mut(jid)
    }

    pub(super) fn go_online(&mut self, stream: StreamNumber, now: Now) {
        self.stream = Some(stream);
        self.unheard_until = Some(now.monotonic + SILENT_AFTER);
        // The sweep that follows tries rejected pushes, too.
        let retrying: Vec<FullJid> = self.retrying.iter().cloned().collect();
        retrying.iter().for_each(|jid| self.try_rejected(jid));
        if !mutant(Mutant::NoSweep) {
            self.sweep_anew();
        }
    }

    /// Makes the pushes that a full JID rejected due again at once.
    fn try_rejected(&mut self, jid: &FullJid) {
        let retry = self.phone_mut(jid).and_then(|phone| phone.retry.as_mut());
        if let Some(retry) = retry.filter(|retry| retry.rejects()) {
            retry.forget_rejected();
            self.note_waiting(jid);
        }
    }

    /// Puts all pushes in flight back into line: the stream that they went out on is gone.
    pub(super) fn go_offline(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.stream = None;
        self.sent.clear();
        self.probed.clear();
        let asked: Vec<(MessageId, FullJid)> = self
            .pushes
            .iter()
            .flat_map(|(id, push)| push.asks.iter().map(|ask| (*id, ask.jid.clone())))
            .collect();
        for (id, jid) in asked {
            self.land(id, &jid);
            let Some(push) = self.pushes.get_mut(&id) else { continue };
            push.asks.clear();
            if push.lines.is_empty() && !mutant(Mutant::OfflineForgets) {
                let held = push.held.clone();
                push.lines.push(jid.clone());
                self.account(&jid).phone(&jid).line.insert(&held.message);
            }
        }
        let phones = self.accounts.values_mut().flat_map(|account| account.phones.iter_mut());
        for (_, phone) in phones {
            phone.line.land_all();
            phone.line.forget_pace();
            phone.forget_probe();
        }
        self.read_again(now, actions);
        let lines: BTreeSet<FullJid> = self.pushes.values().flat_map(|push| push.lines.clone()).collect();
        lines.iter().for_each(|jid| self.make_ready(jid));
    }

    /// Notes a directed presence, which begins a session (docs/protocol.md, "Coming online").
    pub(super) fn begin_session(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        if self.ending.is_some() || !self.admits(jid) || mutant(Mutant::PresenceIgnored) {
            return;
        }
        let phone = self.account(jid).phone(jid);
        phone.begin_session(now);
        self.free_line(jid, now);
        self.bring_back(jid, now, actions);
        self.unseen.insert(jid.to_bare());
        self.forget_retry(jid);
        if !self.may_have_waiting(jid) {
            return self.want_look(jid);
        }
        self.cue_within_bounds(jid, Cue::There, now);
        self.guess_others(jid);
    }

    /// Moves pushes from the lines of other full JIDs of the account into the line of this one, if they would go there
    /// now.
    fn bring_back(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let Some(account) = self.accounts.get(&jid.to_bare()) else { return };
        let others = account.phones.iter().filter(|(other, _)| *other != jid);
        let in_line = others.flat_map(|(other, phone)| phone.line.ids().map(|id| (id, other.clone())));
        for (id, other) in in_line.take(BROUGHT_BACK_MAX).collect::<Vec<_>>() {
            let is_asked = |push: &&Push| push.asks.iter().any(|ask| ask.jid == *jid);
            let Some(push) = self.pushes.get(&id).filter(|push| !is_asked(push)) else { continue };
            let is_full = self.phone(jid).is_some_and(|phone| phone.line.is_line_full());
            let held = push.held.clone();
            if !is_full && self.route_of(&held.message, now) == *jid {
                self.take_from_line(id, &other);
                self.line_up(held, jid, now, actions);
            }
        }
    }

    /// Lets the line of a new session go on. Pushes that earlier sessions left unanswered have 2 s more for their
    /// answers.
    fn free_line(&mut self, jid: &FullJid, now: Now) {
        if self.phone(jid).is_some_and(|phone| phone.line.left_by_earlier_sessions().next().is_some()) {
            // The time begins with this session: a time that an answer in an earlier session began would be over too
            // soon.
            self.catching_up.remove(jid);
            self.let_catch_up(jid, now);
        }
        self.make_ready(jid);
    }

    /// Tries the other full JIDs that the account's registrations name. The phone that greets may have had one of them:
    /// pushes to it then fail, and come here.
    fn guess_others(&mut self, jid: &FullJid) {
        let Some(account) = self.accounts.get(&jid.to_bare()) else { return };
        let named = account.all_named().map(|(_, named)| named).filter(|named| *named != jid);
        let others: BTreeSet<FullJid> = named.cloned().collect();
        for other in others {
            self.try_rejected(&other);
            let is_failing = self.phone(&other).is_some_and(Phone::is_failing);
            if !is_failing && self.known.of(&other) > Some(Knowledge::Nothing) {
                self.guess(&other);
            }
        }
    }

    /// Notes a request for a registration. Its session shows life now: until the registration is stored, it may have
    /// ended, and others may have begun.
    pub(super) fn note_registering(&mut self, jid: &FullJid, now: Now) {
        self.account(jid).phone(jid).greet(now);
    }

    /// Notes a registration: whatever waits for it may be delivered.
    pub(super) fn note_registered(
        &mut self,
        registration: &Registration,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let recipient = registration.target.recipient.clone();
        let id = registration.target.registration_id();
        if let Some(settling) = &mut self.settling {
            settling.registered.insert(id);
        }
        let account = self.account(&recipient);
        let before = account.note_recipient(id, registration.epoch, recipient.clone());
        let phone = account.phone(&recipient);
        phone.lift_bar(id);
        // A session that registers may have sent no presence.
        phone.line.begin_session(now.monotonic);
        self.free_line(&recipient, now);
        self.bring_back(&recipient, now, actions);
        self.unseen.insert(recipient.to_bare());
        if before.is_some_and(|before| before != recipient) && !mutant(Mutant::MovePassedOver) {
            self.note_waiting(&recipient);
        }
        self.forget_retry(&recipient);
        self.cue_within_bounds(&recipient, Cue::There, now);
    }

    /// Ends a session. Pushes that were sent to it were not delivered, and the XMPP server does not hold them.
    pub(super) fn end_session(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let Some(phone) = self.phone_mut(jid) else {
            if self.known.of(jid) > Some(Knowledge::Nothing) {
                self.mark_away(jid, now, actions);
            }
            return;
        };
        phone.end_session();
        let lost = phone.line.land_all();
        let was_reading = phone.is_reading();
        let account = self.account(jid);
        account.in_flight -= lost.len();
        self.in_flight -= lost.len();
        self.loads.land(jid.domain().as_str(), lost.len());
        for id in &lost {
            if let Some(push) = self.pushes.get_mut(id) {
                push.asks.retain(|ask| ask.jid != *jid);
            }
        }
        for id in lost {
            actions.push(Action::Count(Measure::Retried));
            self.give_up(id, jid, Attempt::Failed, now, actions);
        }
        if was_reading || self.known.of(jid) > Some(Knowledge::Nothing) {
            self.mark_away(jid, now, actions);
        } else {
            self.give_up_line(jid, now, actions);
        }
    }

    /// Notes that a full JID takes nothing. It is tried again after a while, and then ever later: it may have another
    /// session by then, or have one that sends no presence.
    pub(super) fn mark_away(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        self.stop_reading(jid);
        self.known.learn(jid, Knowledge::Away);
        if let Some(phone) = self.phone_mut(jid) {
            phone.mark_away();
        }
        self.retry_later(jid, now);
        self.give_up_line(jid, now, actions);
        self.fell_away.insert(jid.to_bare());
    }

    fn retry_later(&mut self, jid: &FullJid, now: Now) {
        let room = self.retrying.len() < RETRIED_MAX;
        let Some(phone) = self.phone_mut(jid) else { return };
        match &mut phone.retry {
            Some(retry) => retry.fail(now.monotonic),
            None if room => phone.retry = Some(Retry::new(now.monotonic)),
            None => return,
        }
        self.retrying.insert(jid.clone());
    }

    /// Decides whether a full JID is there, once all that was in flight to it is answered or overdue.
    pub(super) fn conclude(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let suspicion = self.phone_mut(jid).and_then(|phone| phone.line.conclude());
        match suspicion {
            None => {}
            Some(suspicion) if suspicion.proven => {
                self.retry_later(jid, now);
                if let Some(retry) = self.phone_mut(jid).and_then(|phone| phone.retry.as_mut()) {
                    retry.reject(&suspicion.failed);
                }
                // Failed pushes may have been read again meanwhile.
                for id in suspicion.failed {
                    if self.pushes.get(&id).is_some_and(|push| push.held.origin == Origin::Mailbox) {
                        self.take_from_line(id, jid);
                        self.forget_unless_elsewhere(id);
                    }
                }
                self.note_answer(jid, now);
            }
            Some(suspicion) => {
                self.mark_away(jid, now, actions);
                if let Some(retry) = self.phone_mut(jid).and_then(|phone| phone.retry.as_mut()) {
                    retry.note_away(suspicion);
                }
            }
        }
        self.make_ready(jid);
        self.read_on(jid, actions);
    }

    /// Concludes for each full JID that was asked for a push that is over.
    pub(super) fn conclude_all(&mut self, asks: &[Ask], now: Now, actions: &mut Vec<Action>) {
        for Ask { jid, .. } in asks {
            self.conclude(jid, now, actions);
            // The relay awaits no answer to this push any more. A guess finds out whether the full JID is there.
            if self.known.of(jid).is_some_and(|known| known != Knowledge::Nothing) {
                self.guess(jid);
            }
        }
    }

    /// Forgets a push that waits in the mailbox, if it is in no line and not in flight.
    fn forget_unless_elsewhere(&mut self, id: MessageId) {
        if self.pushes.get(&id).is_some_and(|push| !push.is_somewhere()) {
            self.let_go(id);
        }
    }

    /// Takes the answer of a full JID that is there: its retry ends, and its mailbox is read if something may wait in
    /// it.
    pub(super) fn note_answer(&mut self, jid: &FullJid, now: Now) {
        let Some(phone) = self.phone(jid) else { return };
        if phone.line.is_suspect() {
            return;
        }
        let known = self.known.of(jid);
        if phone.has_unanswered() || known == Some(Knowledge::Away) {
            return self.note_late_answer(jid, now);
        }
        let reading = phone.is_reading();
        self.end_retry(jid);
        if !reading && known != Some(Knowledge::Nothing) {
            self.cue(jid, Cue::There);
        }
    }

    /// Takes an answer to a push that was given up, here or by an earlier process. More such answers may follow, so the
    /// mailbox is read 2 s later.
    pub(super) fn note_late_answer(&mut self, jid: &FullJid, now: Now) {
        if self.phone(jid).is_some_and(|phone| !phone.line.is_suspect()) {
            self.end_retry(jid);
            self.cue_soon(jid, now);
        }
    }

    /// Ends the retry of a full JID that answers, unless it rejects some pushes. Those are put off until the retry is
    /// due.
    fn end_retry(&mut self, jid: &FullJid) {
        let retry = self.phone(jid).and_then(|phone| phone.retry.as_ref());
        if retry.is_some_and(|retry| !retry.rejects()) {
            self.forget_retry(jid);
        }
    }

    /// Has the full JIDs seen lately written, at most once a minute for each account.
    pub(super) fn note_seen(&mut self, now: Now) {
        if !self.settling_keeps_up() {
            return;
        }
        for bare in self.unseen.take(PER_TICK_MAX) {
            let Some(account) = self.accounts.get_mut(&bare) else { continue };
            if account.look != Look::Known {
                self.unseen.insert(bare);
                continue;
            }
            match account.take_seen(now) {
                SeenNews::Write(seen) => self.decide(Fate::NoteSeen(bare, seen)),
                SeenNews::None => {}
                SeenNews::Later => {
                    self.unseen.insert(bare);
                }
            }
        }
    }

    /// Has an account's full JIDs seen lately written again, a minute after a failure.
    pub(super) fn note_seen_again(&mut self, bare: BareJid) {
        if let Some(account) = self.accounts.get_mut(&bare) {
            account.forget_stored_seen();
            self.unseen.insert(bare);
        }
    }

    /// Forgets accounts for which nothing is under way, when there are many.
    pub(super) fn tidy(&mut self) {
        if self.accounts.len() <= ACCOUNTS_MAX {
            return;
        }
        let from = self.tidied.take().map_or(Bound::Unbounded, Bound::Excluded);
        let looked_at: Vec<BareJid> = self
            .accounts
            .range((from, Bound::Unbounded))
            .take(TIDIED_PER_TICK)
            .map(|(bare, _)| bare.clone())
            .collect();
        for bare in &looked_at {
            let idle = self.accounts.get(bare).is_some_and(Account::is_idle);
            if idle && !self.unseen.contains(bare) && !self.deferred.contains(bare) {
                self.accounts.remove(bare);
            }
        }
        self.tidied = looked_at.into_iter().next_back();
    }
}
