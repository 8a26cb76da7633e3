//! The meaning of answers: a push is delivered, refused or failed, in time or late.

use super::{pushes::Attempt, *};
use crate::{
    delivery::{fate::Verdict, known::Knowledge, retry::Retry},
    stream::stanza::{Answer, PROBE_ID},
};

impl Core {
    pub(super) fn take_answer(&mut self, answer: &Answer, now: Now, actions: &mut Vec<Action>) {
        let Ok(jid) = answer.from.clone().try_into_full() else { return };
        let verdict = Verdict::of(answer.error);
        let Some(id) = answer.message_id() else {
            if answer.id == PROBE_ID {
                self.take_probes_answer(&jid, verdict, now, actions);
            }
            return;
        };
        let is_theirs = |ask: &&Ask| ask.jid == jid || mutant(Mutant::StrangerAnswers);
        let ask = self.pushes.get(&id).and_then(|push| push.asks.iter().find(is_theirs)).cloned();
        let Some(ask) = ask else { return self.take_late_answer(id, &jid, verdict, now, actions) };
        if let Some(push) = self.pushes.get_mut(&id) {
            push.asks.retain(|other| other.jid != jid);
        }
        self.land(id, &jid);
        if verdict != Verdict::Failed
            && let Some(phone) = self.phone_mut(&jid)
        {
            phone.prove();
            phone.line.note_answer(ask.sent, now.monotonic);
            self.unheard_until = None;
            self.note_life(&jid, now);
            self.ask_no_others(&jid);
        }
        match verdict {
            // The push is overdue, and only its tick is late. Its result does not move the registration, either.
            Verdict::Delivered if self.is_overdue(&ask, now) => self.settle_delivered(id, now, actions),
            Verdict::Delivered => self.take_result(id, &jid, now, actions),
            Verdict::Refused => self.take_refusal(id, &ask, now, actions),
            Verdict::Failed => self.fail(id, &ask, Attempt::Failed, now, actions),
        }
        if verdict != Verdict::Failed {
            self.note_answer(&jid, now);
        }
        self.conclude(&jid, now, actions);
    }

    /// Notes that a full JID has answered. It may have greeted while nobody listened, so pushes that wait for others of
    /// its account may be for it. They are cued once it has caught up.
    fn note_life(&mut self, jid: &FullJid, now: Now) {
        if self.phone_mut(jid).is_some_and(|phone| phone.show_life(now)) {
            self.unseen.insert(jid.to_bare());
            self.let_catch_up(jid, now);
        }
    }

    fn take_result(&mut self, id: MessageId, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        if let Some(push) = self.pushes.get(&id) {
            let message = Arc::clone(&push.held.message);
            self.follow(&message, jid, now);
        }
        self.settle_delivered(id, now, actions);
    }

    fn settle_delivered(&mut self, id: MessageId, now: Now, actions: &mut Vec<Action>) {
        let Some(push) = self.take_push(id) else { return };
        self.deliver(push.held, now, actions);
        self.conclude_all(&push.asks, now, actions);
    }

    /// Moves a registration to the full JID that takes its push (docs/protocol.md, "Resources change"). One that is being
    /// stored names whom it is stored for: that full JID has asked for it.
    fn follow(&mut self, message: &PushMessage, jid: &FullJid, now: Now) {
        let PushMessage { registration, epoch, .. } = *message;
        let is_asked_for = self.asked_for.contains(&registration);
        if is_asked_for || !self.settling_keeps_up() || mutant(Mutant::NotFollowed) {
            return;
        }
        let named = self.named(message);
        let account = self.account(jid);
        if account.named(registration).is_none() && named != *jid {
            account.note_recipient(registration, epoch, named);
        }
        if let Some(from) = account.follow(registration, jid, now) {
            let waits = from.iter().any(|from| {
                let retry = self.phone(from).and_then(|phone| phone.retry.as_ref());
                retry.is_some_and(Retry::rejects) || self.known.of(from) != Some(Knowledge::Nothing)
            });
            if waits && !mutant(Mutant::MovePassedOver) {
                self.note_waiting(jid);
            }
            let follow = Fate::Follow { registration, epoch, from, to: jid.clone() };
            self.decide(follow);
        }
    }

    /// Takes a refusal in time. Only the full JID that the registration names can end it; any other merely does not
    /// have it.
    fn take_refusal(&mut self, id: MessageId, ask: &Ask, now: Now, actions: &mut Vec<Action>) {
        let Some(push) = self.pushes.get(&id) else { return };
        let message = Arc::clone(&push.held.message);
        let registration = message.registration;
        // This full JID is no stand-in for the registration, either, if another full JID makes it again.
        if let Some(phone) = self.phone_mut(&ask.jid).filter(|_| !mutant(Mutant::BarForgotten)) {
            phone.bar(registration, now);
        }
        if self.named(&message) == ask.jid || mutant(Mutant::RecipientNotCompared) {
            if let Some(Push { held: push, asks, .. }) = self.take_push(id) {
                let (mut recipient, mut asked_at) = (ask.jid.clone(), ask.asked_at);
                if mutant(Mutant::RecipientNotCompared) {
                    recipient = self.named(&push.message);
                }
                if mutant(Mutant::LateRefusalRevokes) {
                    asked_at = now.wall;
                }
                if push.origin == Origin::Mailbox {
                    // The push waits if the registration goes on.
                    self.note_waiting(&recipient);
                }
                self.decide(Fate::Revoke { push, recipient, asked_at });
                self.conclude_all(&asks, now, actions);
            }
            // If the registration goes on, these pushes wait behind the one that was refused.
            return self.give_up_registration(registration, &ask.jid, now, actions);
        }
        self.give_up_registration(registration, &ask.jid, now, actions);
        self.give_up(id, &ask.jid, Attempt::Failed, now, actions);
        // Stand-ins are cued: pushes of this registration that came later wait in the mailbox.
        self.fell_away.insert(ask.jid.to_bare());
    }

    /// Takes the pushes of a registration out of the line of a full JID that has refused one of them.
    fn give_up_registration(
        &mut self,
        registration: RegistrationId,
        jid: &FullJid,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let line: Vec<MessageId> =
            self.phone(jid).map(|phone| phone.line.ids().collect()).unwrap_or_default();
        let of_it = |id: &MessageId| {
            self.pushes.get(id).is_some_and(|push| push.held.message.registration == registration)
        };
        let refused: Vec<MessageId> = line.into_iter().filter(of_it).collect();
        for id in &refused {
            self.take_from_line(*id, jid);
        }
        for id in refused {
            self.give_up(id, jid, Attempt::Failed, now, actions);
        }
    }

    /// Takes the answer to a probe. A result says that all pushes sent before it have arrived, or never will. A failure
    /// says that nobody is there, unless the full JID has shown life meanwhile.
    fn take_probes_answer(&mut self, jid: &FullJid, verdict: Verdict, now: Now, actions: &mut Vec<Action>) {
        let Some(phone) = self.phone_mut(jid) else { return };
        let lives_since = phone.lives_since_probe();
        match verdict {
            Verdict::Delivered => {
                if let Some(retry) = &mut phone.retry {
                    retry.note_there();
                }
                self.note_life(jid, now);
                self.cue_soon(jid, now);
            }
            Verdict::Failed if !lives_since && phone.line.in_flight() == 0 => {
                self.mark_away(jid, now, actions)
            }
            Verdict::Failed | Verdict::Refused => {}
        }
    }

    /// Takes an answer to a push that is not in flight: it came late, it came after a restart, or its push is none of
    /// ours.
    fn take_late_answer(
        &mut self,
        id: MessageId,
        jid: &FullJid,
        verdict: Verdict,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !self.admits(jid) {
            return;
        }
        let account = jid.to_bare();
        let name = Name::new(&account, id);
        match verdict {
            // The push was given up already, or was settled by a result: an error changes nothing.
            Verdict::Failed => {}
            Verdict::Delivered if mutant(Mutant::LateResultIgnored) => {}
            Verdict::Delivered => {
                // The push may be in line again, or in flight to another full JID of the account. A push that was to
                // go into the mailbox was given up before, and the full JIDs that were asked then are forgotten.
                let was_asked = |push: &Push| {
                    let given_up = push.held.origin == Origin::Mailbox || self.accepted.contains(&name);
                    let of_the_account = push.held.message.recipient.to_bare() == account;
                    given_up && of_the_account || push.lines.contains(jid) || push.unanswered.contains(jid)
                };
                if self.pushes.get(&id).is_some_and(was_asked) {
                    if mutant(Mutant::LateResultMoves) {
                        return self.take_result(id, jid, now, actions);
                    }
                    self.settle_delivered(id, now, actions);
                    self.read_on(jid, actions);
                } else if !self.settled.contains(&name) && self.settling_keeps_up() {
                    // An earlier process may have sent the push, and the queue may give it once more.
                    self.settled.note(name);
                    if self.may_have_waiting(jid) {
                        self.decide(Fate::Late(account, id));
                    }
                }
                self.note_life(jid, now);
                self.note_late_answer(jid, now);
            }
            Verdict::Refused => {
                if self.may_have_waiting(jid) {
                    // If this is skipped, the push is delivered again, and refused again.
                    let _ = self.decide_if_settling_keeps_up(Fate::LateRevoke(jid.clone(), id));
                }
            }
        }
    }
}
