//! The way of a push: admitted, in line, sent, given up, settled.

use super::*;
use crate::{
    delivery::{known::Knowledge, phone::Trust, reading::Cue},
    stream::stanza,
};

/// Delay before the queue's copy of a push comes again whose late result is being settled.
const COPY_AGAIN_AFTER: TimeDelta = TimeDelta::seconds(5);

/// The outcome of the last attempt to deliver a push. It decides whether another full JID is asked, and what the
/// mailbox notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// No full JID was asked.
    None,
    /// The push did not arrive.
    Failed,
    /// The push went out at this moment, and was not answered.
    Unanswered(DateTime<Utc>),
    /// The push went out at this moment, and its place was needed before an answer came. No other full JID is asked.
    TakenBack(DateTime<Utc>),
}

impl Attempt {
    const fn asked_at(self) -> Option<DateTime<Utc>> {
        match self {
            Self::None | Self::Failed => None,
            Self::Unanswered(asked_at) | Self::TakenBack(asked_at) => Some(asked_at),
        }
    }
}

impl Core {
    pub(super) fn admits(&self, jid: &FullJid) -> bool {
        self.access.admits(jid)
    }

    pub(super) fn take_received(
        &mut self,
        pushes: Vec<Arc<PushMessage>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.receiving = false;
        self.held += pushes.len();
        for message in pushes {
            if self.ending.is_some() {
                self.decide(Fate::Postpone(message.id, now.wall));
                continue;
            }
            if let Some(meter) = &mut self.settings.meter
                && self.metered.note(message.id)
                && let Some(until) = meter.count(message.registration, message.accepted_at)
            {
                actions.push(Action::Count(Measure::Throttled));
                let throttle = Fate::Throttle(message.registration, message.epoch, until);
                if !self.decide_if_settling_keeps_up(throttle) {
                    self.ask_again_to_wait(message.registration);
                }
            }
            self.admit(message, now, actions);
        }
    }

    /// Takes a push from the queue into a line, or into the mailbox behind what waits there.
    fn admit(&mut self, message: Arc<PushMessage>, now: Now, actions: &mut Vec<Action>) {
        match self.pushes.get(&message.id).map(|push| push.held.origin) {
            // This is a second entry of a push that is held. Its receipt is settled with the first.
            Some(Origin::Queue) => return self.held -= 1,
            // The mailbox has the push: this copy leaves the queue.
            Some(Origin::Mailbox) => {
                return self.finish_copy(message, Counts { waited: 1, ..Counts::default() });
            }
            None => {}
        }
        let name = Name::of(&message);
        if self.settled.contains(&name) && !mutant(Mutant::SettledForgotten) {
            if self.late.contains(&name) {
                return self.decide(Fate::Postpone(message.id, now.wall + COPY_AGAIN_AFTER));
            }
            let delivered = u64::from(self.count_settled(&message, now, actions));
            return self.finish_copy(message, Counts { delivered, ..Counts::default() });
        }
        let push = Held { origin: Origin::Queue, message };
        let message = &push.message;
        if self.ended.contains(&life(message)) {
            return self.leave_queue(push.message);
        }
        // While a registration is being revoked, its mailbox is passed over. A younger push has to wait, too.
        if !self.admits(&message.recipient) || self.is_being_revoked(message.registration) {
            return self.keep(push, Attempt::None, now, actions);
        }
        let named = self.named(message);
        let target = self.routed(message.registration, &named, now);
        // The mailbox may have it: readings pass it over, so another copy would stay there.
        if self.has_rejected(&target, message.id) {
            return self.keep(push, Attempt::Failed, now, actions);
        }
        let reading = self.phone(&target).is_some_and(|phone| phone.is_reading() || phone.line.is_shut());
        // Pushes that came into the mailbox since the reading began are older than this one, and go first.
        let overtakes = reading && self.is_kept_meanwhile(&target) && !mutant(Mutant::WaitingOvertaken);
        if message.is_immediate() || (reading && !overtakes) {
            return self.line_up(push, &target, now, actions);
        }
        // Waiting pushes go first: those for the target, and those for the full JID that it stands in for.
        let known = [&target, &named].map(|jid| self.known.of(jid));
        let waits = known.iter().any(|known| *known > Some(Knowledge::Nothing));
        let nothing_waits =
            known.iter().all(|known| *known == Some(Knowledge::Nothing)) || mutant(Mutant::WaitingOvertaken);
        if !overtakes && (nothing_waits || (!waits && self.cue(&target, Cue::Guess))) {
            self.line_up(push, &target, now, actions);
        } else {
            self.keep(push, Attempt::None, now, actions);
        }
    }

    /// Returns the full JID that the registration of a push names.
    pub(super) fn named(&self, message: &PushMessage) -> FullJid {
        let account = self.accounts.get(&message.recipient.to_bare());
        account.and_then(|account| account.named(message.registration)).unwrap_or(&message.recipient).clone()
    }

    /// Returns the full JID that a push goes to now, by its route.
    pub(super) fn route_of(&self, message: &PushMessage, now: Now) -> FullJid {
        self.routed(message.registration, &self.named(message), now)
    }

    /// Returns the full JID that pushes of a registration go to if it names `named`.
    fn routed(&self, registration: RegistrationId, named: &FullJid, now: Now) -> FullJid {
        let account = self.accounts.get(&named.to_bare());
        account.map_or(named, |account| account.route(registration, named, now)).clone()
    }

    /// Puts a push into the line of a full JID. A new push from the queue may have to wait in the mailbox or the queue
    /// instead.
    pub(super) fn line_up(&mut self, push: Held, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let is_new = !self.pushes.contains_key(&push.message.id);
        let room = self.settings.room;
        let crowded = self.held > room.held_crowded();
        let has_share = self.held > room.held_full()
            || self.loads.held(jid.domain().as_str()) >= self.loads.share_of(room.held_crowded());
        let phone = self.account(jid).phone(jid);
        if push.origin == Origin::Queue && is_new {
            let unproven = phone.trust() == Trust::Unproven;
            let keeps_others_waiting = crowded && unproven && (has_share || !phone.line.is_empty());
            if keeps_others_waiting || phone.line.awaits_answer() && phone.is_silent(now) {
                return self.keep(push, Attempt::None, now, actions);
            }
            if phone.line.is_line_full() {
                let delay = phone.line.requeue_delay(now.monotonic);
                let delay = TimeDelta::from_std(delay).unwrap_or_default();
                return self.decide(Fate::Postpone(push.message.id, now.wall + delay));
            }
        }
        phone.line.insert(&push.message);
        let id = push.message.id;
        if is_new {
            self.loads.hold(jid.domain().as_str());
        }
        let push = self.pushes.entry(id).or_insert_with(|| Push::new(push));
        push.lines.push(jid.clone());
        self.make_ready(jid);
    }

    /// Sends the pushes whose turn it is, while there are places.
    pub(super) fn send_ready(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(stream) = self.stream
            && let Some(jid) = self.next_turn()
        {
            if !self.admits(&jid) {
                self.give_up_reading(&jid, now, actions);
                continue;
            }
            let Some(phone) = self.phone_mut(&jid) else { continue };
            if !phone.line.may_send() {
                continue;
            }
            let Some(id) = phone.line.first() else { continue };
            let Some(push) = self.pushes.get(&id) else {
                debug_assert!(false, "a push in line is held");
                self.take_from_line(id, &jid);
                continue;
            };
            if self.is_over(push) {
                self.drop_from_lines(id);
            } else if push.held.message.is_expired(now.least) && !mutant(Mutant::ExpiryIgnored) {
                self.expire(id, now, actions);
                self.read_on(&jid, actions);
            } else {
                self.send(stream, id, &jid, now, actions);
            }
            self.make_ready(&jid);
        }
    }

    fn send(
        &mut self,
        stream: StreamNumber,
        id: MessageId,
        jid: &FullJid,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let account = self.account(jid);
        account.phone(jid).line.send_first(now.monotonic);
        account.in_flight += 1;
        self.in_flight += 1;
        self.loads.send(jid.domain().as_str());
        if let Some(push) = self.pushes.get_mut(&id) {
            push.lines.retain(|line| line != jid);
            push.asks.push(Ask { jid: jid.clone(), asked_at: now.wall, sent: now.monotonic });
            let xml = stanza::push(&self.settings.component, &push.held.message, jid);
            actions.push(Action::Send(stream, xml));
            if mutant(Mutant::RemovedBeforeResult) && push.held.origin == Origin::Mailbox {
                let held = push.held.clone();
                self.decide(Fate::Done(held));
            }
        }
        self.sent.push_back((now.monotonic, id));
        // The entries of answered pushes are dropped.
        if self.sent.len() > 4 * self.settings.room.in_flight {
            let pushes = &self.pushes;
            self.sent.retain(|(sent, id)| {
                pushes.get(id).is_some_and(|push| push.asks.iter().any(|ask| ask.sent == *sent))
            });
        }
    }

    /// Removes a push from those that are held.
    pub(super) fn let_go(&mut self, id: MessageId) -> Option<Push> {
        let push = self.pushes.remove(&id)?;
        self.loads.let_go(push.held.message.recipient.domain().as_str());
        Some(push)
    }

    /// Removes a push from those that are held, from all lines and from flight.
    pub(super) fn take_push(&mut self, id: MessageId) -> Option<Push> {
        let push = self.let_go(id)?;
        for jid in &push.lines {
            if let Some(phone) = self.phone_mut(jid) {
                phone.line.remove(id);
            }
            self.make_ready(jid);
        }
        for ask in &push.asks {
            self.land(id, &ask.jid);
        }
        Some(push)
    }

    /// Gives up a push at a full JID that does not take it. Once the push is in no line and not in flight, it goes to
    /// another full JID that is there, or waits.
    pub(super) fn give_up(
        &mut self,
        id: MessageId,
        failed: &FullJid,
        attempt: Attempt,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let (Some(push), Some(asked_at)) = (self.pushes.get_mut(&id), attempt.asked_at()) {
            push.note_unanswered(failed, asked_at);
        }
        let Some(push) = self.pushes.get(&id).filter(|push| !push.is_somewhere()) else { return };
        if self.is_over(push) {
            if let Some(Push { held: Held { origin: Origin::Queue, message }, .. }) = self.let_go(id) {
                self.leave_queue(message);
            }
            // No stand-in gets this push, so none reads the mailbox after its answer: stand-ins are cued here.
            return self.cue_stand_ins(&failed.to_bare(), now);
        }
        let (held, unanswered_at) = (push.held.clone(), push.unanswered_at);
        let named = self.named(&held.message);
        let target = self.routed(held.message.registration, &named, now);
        let onward = !matches!(attempt, Attempt::TakenBack(_)) && self.admits(&named);
        if onward && target != *failed && self.phone(&target).is_some_and(|phone| phone.takes_pushes(now)) {
            return self.line_up(held, &target, now, actions);
        }
        self.let_go(id);
        self.want_look(&named);
        self.keep(held, unanswered_at.map_or(attempt, Attempt::Unanswered), now, actions);
        // The push was for a full JID that is away, and a stand-in has not taken it.
        if named != *failed && self.known.of(&named) == Some(Knowledge::Away) && self.admits(&named) {
            self.try_for_more(&named, now);
        }
    }

    /// Puts a push into the mailbox, or ends it if it may not wait.
    fn keep(&mut self, push: Held, attempt: Attempt, now: Now, actions: &mut Vec<Action>) {
        // RFC 8030 §5.2: TTL 0 is delivered at once or not at all.
        if push.message.is_immediate() || push.message.is_expired(now.least) {
            return self.settle_expired(push, actions);
        }
        let named = self.named(&push.message);
        self.note_waiting(&named);
        let (asked_at, untried) = (attempt.asked_at(), attempt == Attempt::None);
        match (push.origin, asked_at) {
            (Origin::Queue, _) => {
                let target = self.route_of(&push.message, now);
                self.accepted.note(Name::of(&push.message));
                self.decide(Fate::Keep { message: push.message, target, asked_at, untried });
            }
            // The push is not written again: its sender may have withdrawn it meanwhile.
            (Origin::Mailbox, Some(asked_at)) => {
                self.decide(Fate::Asked { message: push.message, asked_at });
            }
            (Origin::Mailbox, None) => {}
        }
    }

    /// Sends again what earlier sessions of a full JID have left unanswered.
    pub(super) fn send_again(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let left: Vec<MessageId> =
            self.phone(jid).map(|phone| phone.line.left_by_earlier_sessions().collect()).unwrap_or_default();
        for id in left.into_iter().filter(|_| !mutant(Mutant::SessionForgotten)) {
            self.land(id, jid);
            let Some(push) = self.pushes.get_mut(&id) else { continue };
            for ask in push.asks.extract_if(.., |ask| ask.jid == *jid).collect::<Vec<_>>() {
                push.note_unanswered(jid, ask.asked_at);
            }
            let (held, is_elsewhere) = (push.held.clone(), push.is_somewhere());
            let is_over = self.pushes.get(&id).is_some_and(|push| self.is_over(push));
            if is_elsewhere || is_over || self.route_of(&held.message, now) != *jid {
                self.give_up(id, jid, Attempt::Failed, now, actions);
            } else {
                actions.push(Action::Count(Measure::Retried));
                self.line_up(held, jid, now, actions);
            }
        }
    }

    /// Notes a failed delivery. The push goes elsewhere or waits, and the full JID is suspect.
    pub(super) fn fail(
        &mut self,
        id: MessageId,
        ask: &Ask,
        attempt: Attempt,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Count(Measure::Retried));
        // A failure in an earlier session says nothing about this one.
        if let Some(phone) = self.phone_mut(&ask.jid).filter(|phone| phone.line.is_of_session(ask.sent)) {
            phone.line.suspect(id, ask.sent, attempt.asked_at().is_none());
        }
        self.give_up(id, &ask.jid, attempt, now, actions);
    }

    /// Ends the reading for a full JID, and gives up its line.
    pub(super) fn give_up_reading(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        self.stop_reading(jid);
        self.give_up_line(jid, now, actions);
    }

    /// Gives up the line of a full JID that takes nothing: its pushes go elsewhere, or wait in the mailbox.
    pub(super) fn give_up_line(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let Some(phone) = self.phone_mut(jid) else { return };
        let ids: Vec<MessageId> = phone.line.ids().collect();
        phone.line.set_gate(Gate::Open);
        for id in &ids {
            self.take_from_line(*id, jid);
        }
        for id in ids {
            self.give_up(id, jid, Attempt::Failed, now, actions);
        }
    }

    /// Takes a push out of all lines. If it is not in flight, it is not held any more, and is returned.
    pub(super) fn take_from_lines(&mut self, id: MessageId) -> Option<Held> {
        let lines = self.pushes.get(&id)?.lines.clone();
        lines.iter().for_each(|jid| self.take_from_line(id, jid));
        // These lines are shorter now: the next pages may be read.
        self.held_up.extend(lines);
        let asked = self.pushes.get(&id).is_some_and(|push| !push.asks.is_empty());
        if asked { None } else { self.let_go(id).map(|push| push.held) }
    }

    /// Takes a push out of one line. It stays in others, and in flight.
    pub(super) fn take_from_line(&mut self, id: MessageId, jid: &FullJid) {
        if let Some(phone) = self.phone_mut(jid) {
            phone.line.remove(id);
        }
        if let Some(push) = self.pushes.get_mut(&id) {
            push.lines.retain(|line| line != jid);
        }
        self.make_ready(jid);
    }
}
