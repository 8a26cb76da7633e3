//! The readings of mailboxes, a page at a time.

use std::mem::take;

use super::*;
use crate::{
    delivery::{
        account::Look,
        known::Knowledge,
        reading::{Cue, PAGE_MAX, Reading},
    },
    stream::stanza,
};

/// Most mailboxes that are read at a time, in all and for one account.
const READINGS_MAX: usize = 128;
const READINGS_PER_ACCOUNT_MAX: usize = 8;
/// Most accounts that are looked up at a time.
const LOOKS_MAX: usize = 64;
/// Number of pushes in line at which the next page is read.
const PAGE_LOW: usize = PAGE_MAX / 4;

impl Core {
    pub(super) fn abandon_reading(&mut self, jid: &FullJid) {
        let account = self.account(jid);
        if let Some(reading) = account.phone(jid).reading.take() {
            account.readings -= 1;
            self.readings -= 1;
            self.stale += usize::from(reading.is_asked());
        }
    }

    /// Ends the reading for a full JID whose line is given up.
    pub(super) fn stop_reading(&mut self, jid: &FullJid) {
        self.abandon_reading(jid);
        self.account(jid).phone(jid).cue = None;
        self.known.learn(jid, Knowledge::Something);
    }

    /// Begins to read as many mailboxes as may be read at a time, while settling keeps up. Nothing that is read without
    /// the lease could go out.
    pub(super) fn begin_readings(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.stream.is_none() || !now.leased || !self.settling_keeps_up() {
            return;
        }
        for jid in take(&mut self.held_up) {
            self.read_on(&jid, actions);
        }
        while self.readings + self.stale < READINGS_MAX
            && let Some(jid) = self.cued.pop_front()
        {
            self.begin_reading(&jid, now, actions);
        }
        while self.looking < LOOKS_MAX
            && let Some(account) = self.looks.pop_front()
        {
            self.looking += 1;
            actions.push(Action::Start(Job::Look(account)));
        }
    }

    fn begin_reading(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        let Some(cue) = self.phone(jid).and_then(|phone| phone.cue) else { return };
        let admits = self.admits(jid);
        self.want_look(jid);
        let account = self.account(jid);
        if account.look == Look::Asked || account.readings >= READINGS_PER_ACCOUNT_MAX {
            account.blocked.push_back(jid.clone());
            return;
        }
        account.phone(jid).cue = None;
        let of = if admits { account.routed_to(jid, now) } else { BTreeSet::new() };
        if of.is_empty() {
            if !admits {
                // Nothing is known of what waits for a full JID that is not admitted.
                self.known.learn(jid, Knowledge::Away);
            } else if !account.names(jid) {
                self.known.learn(jid, Knowledge::Nothing);
            } else if let Some(retry) = &mut account.phone(jid).retry {
                // Stand-ins take what waits for this full JID.
                retry.put_off(now.monotonic);
            }
            return self.set_gate(jid, Gate::Open);
        }
        account.readings += 1;
        self.begun += 1;
        self.readings += 1;
        let reading = Reading::new(self.begun, cue, of);
        self.account(jid).phone(jid).reading = Some(reading);
        self.ask_page(jid, actions);
    }

    /// Asks for the next page. An account has one page on its way at a time.
    fn ask_page(&mut self, jid: &FullJid, actions: &mut Vec<Action>) {
        let account = self.account(jid);
        if account.page_asked {
            return account.blocked.push_back(jid.clone());
        }
        if let Some(reading) = &mut account.phone(jid).reading {
            let request = reading.ask(jid);
            account.page_asked = true;
            actions.push(Action::Start(Job::Read(request)));
        }
    }

    /// Lets full JIDs go on that waited for a page or a look of their account.
    fn unblock(&mut self, bare: &BareJid, actions: &mut Vec<Action>) {
        let Some(account) = self.accounts.get_mut(bare) else { return };
        for jid in take(&mut account.blocked).into_iter().rev() {
            match self.phone(&jid) {
                Some(phone) if phone.cue.is_some() => self.cued.push_front(jid),
                Some(phone) if phone.reading.as_ref().is_some_and(|reading| !reading.is_asked()) => {
                    self.ask_page(&jid, actions);
                }
                _ => {}
            }
        }
    }

    /// Reads the next page of a mailbox when most of the last one has gone out.
    pub(super) fn read_on(&mut self, jid: &FullJid, actions: &mut Vec<Action>) {
        let Some(phone) = self.phone(jid) else { return };
        if phone.reading.as_ref().is_none_or(Reading::is_asked)
            || phone.line.count_passing(PAGE_LOW + 1) > PAGE_LOW
        {
            return;
        }
        if self.settling_keeps_up() && self.stream.is_some() {
            self.ask_page(jid, actions);
        } else {
            self.held_up.insert(jid.clone());
        }
    }

    /// Lines up the pushes of a page.
    pub(super) fn take_page(&mut self, page: Page, now: Now, actions: &mut Vec<Action>) {
        let Page { reader, reading: number, pushes, upto, left_out, end } = page;
        if let Some(account) = self.accounts.get_mut(&reader.to_bare()) {
            account.page_asked = false;
        }
        let reading = self.phone(&reader).and_then(|phone| phone.reading.as_ref());
        if reading.is_none_or(|reading| reading.number() != number) {
            self.stale -= 1;
        } else if self.ending.is_none() {
            let guess = reading.is_some_and(|reading| reading.cue() == Cue::Guess);
            let mut missed = if left_out { Knowledge::Away } else { Knowledge::Nothing };
            for message in pushes {
                if guess && self.is_noted_as_asked(&message) {
                    missed = Knowledge::Away;
                } else if !self.line_up_read(message, &reader, now, actions) {
                    missed = missed.max(Knowledge::Something);
                }
            }
            self.go_on_reading(&reader, upto, missed, end, now, actions);
        }
        if let Some(account) = self.accounts.get_mut(&reader.to_bare()) {
            account.forget_page();
        }
        self.unblock(&reader.to_bare(), actions);
    }

    /// Returns whether a push went out a moment ago, which the page may not show.
    fn is_noted_as_asked(&self, message: &PushMessage) -> bool {
        let account = self.accounts.get(&message.recipient.to_bare());
        account.is_some_and(|account| account.was_asked(message.id))
    }

    /// Lines up a push of a mailbox. Returns `false` if it goes on waiting for a later reading.
    fn line_up_read(
        &mut self,
        message: PushMessage,
        reader: &FullJid,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.recall_named(message.registration, message.epoch, &message.recipient);
        let account = self.accounts.get(&reader.to_bare());
        if account.is_some_and(|account| account.is_gone(message.id)) && !mutant(Mutant::ReplacedIsSent) {
            return true;
        }
        if self.is_being_revoked(message.registration) {
            return false;
        }
        let target = self.route_of(&message, now);
        if target != *reader {
            let passed_over = mutant(Mutant::MovePassedOver);
            if !passed_over {
                self.note_waiting(&target);
                self.try_for_more(&target, now);
            }
            return passed_over;
        }
        let (id, name) = (message.id, Name::of(&message));
        let push = Held { origin: Origin::Mailbox, message: Arc::new(message) };
        if self.settled.contains(&name) && !mutant(Mutant::SettledForgotten) {
            // If the push is not on its way out of the mailbox, it was settled as a push of the queue. An earlier
            // process had put it into the mailbox.
            if !self.leaving.contains(&name) {
                // A late result is counted when it removes the push.
                let counts = !self.gone.contains(&name) && self.count_settled(&push.message, now, actions);
                let delivered = u64::from(counts);
                self.finish(push, Counts { delivered, ..Counts::default() });
            }
            return true;
        }
        if self.has_rejected(reader, id) {
            return true;
        }
        self.note_waits_already(id);
        let Some(held) = self.pushes.get(&id) else {
            self.line_up(push, reader, now, actions);
            return true;
        };
        if held.asks.is_empty() && !held.lines.contains(reader) {
            let lines = held.lines.clone();
            lines.iter().for_each(|jid| self.take_from_line(id, jid));
            self.line_up(push, reader, now, actions);
            return true;
        }
        // A push that is only at other full JIDs waits on if it fails there.
        held.lines.contains(reader) || held.asks.iter().any(|ask| ask.jid == *reader)
    }

    /// Returns whether a full JID has rejected a push, which is put off.
    pub(super) fn has_rejected(&self, jid: &FullJid, id: MessageId) -> bool {
        self.phone(jid).and_then(|phone| phone.retry.as_ref()).is_some_and(|retry| retry.has_rejected(id))
    }

    /// Notes that a push that is held is in the mailbox. If it came from the queue, an earlier process had put it
    /// there, and had not deleted it from the queue.
    pub(super) fn note_waits_already(&mut self, id: MessageId) {
        if let Some(push) = self.pushes.get_mut(&id).filter(|push| push.held.origin == Origin::Queue) {
            push.held.origin = Origin::Mailbox;
            let copy = Arc::clone(&push.held.message);
            self.finish_copy(copy, Counts { waited: 1, ..Counts::default() });
        }
    }

    fn go_on_reading(
        &mut self,
        reader: &FullJid,
        upto: Option<MessageId>,
        missed: Knowledge,
        end: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(phone) = self.phone_mut(reader) else { return };
        let Some(reading) = &mut phone.reading else { return };
        reading.note_page(upto, missed);
        if !end {
            self.set_gate(reader, upto.map_or(Gate::Shut, Gate::UpTo));
            return self.read_on(reader, actions);
        }
        let (mut outcome, cue, of) = (reading.outcome(), reading.cue(), reading.of());
        if mutant(Mutant::ReadingForgetsKept) {
            outcome = Some(Knowledge::Nothing);
        }
        self.abandon_reading(reader);
        // Pushes that stand-ins take for this full JID were not read.
        let passed_over = self.account(reader).names_beyond(reader, &of) && !mutant(Mutant::MovePassedOver);
        let outcome = outcome.map(|known| if passed_over { known.max(Knowledge::Something) } else { known });
        let Some(knowledge) = outcome else {
            self.known.learn(reader, Knowledge::Something);
            self.cue(reader, cue);
            return;
        };
        if self.keeping.contains_key(reader) {
            // Pushes on their way into the mailbox are older than those in line: the line waits for them.
            self.known.learn(reader, knowledge.max(Knowledge::Something));
            return self.set_gate(reader, Gate::Shut);
        }
        self.known.learn(reader, knowledge);
        self.set_gate(reader, Gate::Open);
        match knowledge {
            Knowledge::Away if now.leased => self.probe(reader, now, actions),
            // Asked when the lease is back.
            Knowledge::Away => drop(self.cue(reader, cue)),
            Knowledge::Nothing | Knowledge::Something => {}
        }
    }

    /// Probes a full JID to which the XMPP server may still deliver what waits. Sending that again could deliver it
    /// twice.
    fn probe(&mut self, jid: &FullJid, now: Now, actions: &mut Vec<Action>) {
        if let Some(stream) = self.stream {
            if self.account(jid).phone(jid).note_probe(now) {
                self.probed.push_back((now.monotonic, jid.clone()));
            }
            actions.push(Action::Send(stream, stanza::probe(&self.settings.component, jid)));
        }
    }

    pub(super) fn is_being_revoked(&self, registration: RegistrationId) -> bool {
        self.revoking.contains_key(&registration)
    }

    /// Has the pushes of mailboxes that were held when the stream ended read again, on the next stream. While they
    /// wait, their senders may withdraw or replace them.
    pub(super) fn read_again(&mut self, now: Now, actions: &mut Vec<Action>) {
        let of_the_mailbox: Vec<MessageId> = self
            .pushes
            .iter()
            .filter(|(_, push)| push.held.origin == Origin::Mailbox)
            .map(|(id, _)| *id)
            .collect();
        let mut readers: BTreeSet<FullJid> = BTreeSet::new();
        for id in of_the_mailbox {
            let Some(push) = self.take_push(id) else { continue };
            let named = self.named(&push.held.message);
            self.note_waiting(&named);
            readers.insert(self.route_of(&push.held.message, now));
            readers.extend(push.lines);
        }
        let accounts = self.accounts.values().flat_map(|account| &account.phones);
        readers.extend(accounts.filter(|(_, phone)| phone.reading.is_some()).map(|(jid, _)| jid.clone()));
        for jid in readers {
            self.stop_reading(&jid);
            if !self.cue(&jid, Cue::Guess) {
                self.give_up_line(&jid, now, actions);
            }
        }
    }
}
