//! What waits: mailboxes are read when their recipients may be there, a page at a time.

use std::mem::take;

use super::*;
use crate::{
    delivery::{
        account::Look,
        known::Knowledge,
        phone::Phone,
        reading::{Cue, PAGE_MAX, Reading},
    },
    stream::stanza,
};

/// Most mailboxes that are read at a time, in all and for one account.
pub(crate) const READINGS_MAX: usize = 128;
const READINGS_PER_ACCOUNT_MAX: usize = 8;
/// Most accounts that are looked up at a time.
const LOOKS_MAX: usize = 64;
/// Most full JIDs whose mailbox is still to be read. A sweep finds those beyond.
const CUED_MAX: usize = 65_536;
/// With so few of a page left in line, the next one is read.
const PAGE_LOW: usize = PAGE_MAX / 4;
/// Between sweeps: those who send no presence are found by them alone.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Registrations of a sweep that are tried in one tick: one each 10 ms.
const SWEPT_PER_TICK: usize = 25;

impl Core {
    /// Whether something may wait for a full JID: for it, or for one in whose place it may be.
    pub(super) fn may_have_waiting(&self, jid: &FullJid) -> bool {
        if self.known.of(jid) != Some(Knowledge::Nothing) {
            return true;
        }
        let account = self.accounts.get(&jid.to_bare());
        account.is_none_or(|account| {
            let mut others = account.all_named().filter(|(_, named)| *named != jid);
            others.any(|(_, named)| self.known.of(named) != Some(Knowledge::Nothing))
        })
    }

    /// Notes that something waits for it.
    pub(super) fn something_waits(&mut self, jid: &FullJid) {
        if self.known.of(jid) != Some(Knowledge::Away) {
            self.known.learn(jid, Knowledge::Something);
        }
    }

    /// Has a mailbox read, unless cues of its account come too fast: those merge into one, a little later.
    pub(super) fn cue_within_bounds(&mut self, jid: &FullJid, cue: Cue, now: Now) {
        if self.account(jid).take_cue(now) {
            self.cue(jid, cue);
        } else {
            self.something_waits(jid);
            self.deferred.insert(jid.to_bare());
        }
    }

    /// Has the mailboxes read of all who are there and for whom something may wait.
    pub(super) fn take_deferred_cues(&mut self, now: Now) {
        for bare in take(&mut self.deferred) {
            let Some(account) = self.accounts.get_mut(&bare) else { continue };
            if !account.take_cue(now) {
                self.deferred.insert(bare);
                continue;
            }
            let account = &self.accounts[&bare];
            let there = account.all_named().map(|(id, named)| account.route(id, named, now));
            let there = there.filter(|jid| account.phones.get(*jid).is_some_and(Phone::is_present));
            let there: BTreeSet<FullJid> = there.cloned().collect();
            for jid in there {
                if self.known.of(&jid) != Some(Knowledge::Nothing) {
                    self.cue(&jid, Cue::There);
                }
            }
        }
    }

    /// Has a mailbox read; until then, nothing overtakes what may wait in it. Whether it will be read: not if too many
    /// are to be read already.
    pub(super) fn cue(&mut self, jid: &FullJid, cue: Cue) -> bool {
        let full = self.cued.len() >= CUED_MAX;
        let phone = self.account(jid).phone(jid);
        match &mut phone.reading {
            Some(reading) if cue == Cue::Guess => {
                reading.repeat();
                return true;
            }
            // What it left out goes out before what it would read next.
            Some(_) => self.abandon_reading(jid),
            None if full && phone.cue.is_none() => {
                self.something_waits(jid);
                return false;
            }
            None => {}
        }
        let phone = self.account(jid).phone(jid);
        let waits = phone.cue.is_some();
        phone.cue = Some(phone.cue.map_or(cue, |before| before.max(cue)));
        if !waits {
            self.cued.push_back(jid.clone());
        }
        if cue == Cue::There || !waits {
            self.set_gate(jid, Gate::Shut);
        }
        true
    }

    fn abandon_reading(&mut self, jid: &FullJid) {
        let account = self.account(jid);
        if let Some(reading) = account.phone(jid).reading.take() {
            account.readings -= 1;
            self.readings -= 1;
            self.stale += usize::from(reading.is_asked());
        }
    }

    /// Ends a reading whose line is given up.
    pub(super) fn stop_reading(&mut self, jid: &FullJid) {
        self.abandon_reading(jid);
        self.account(jid).phone(jid).cue = None;
        self.known.learn(jid, Knowledge::Something);
    }

    /// Begins to read as many mailboxes as may be read at a time, while settling keeps up.
    pub(super) fn begin_readings(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.session.is_none() || !self.settling_keeps_up() {
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
            // Of a stranger it is not known what waits.
            let knowledge = if admits { Knowledge::Nothing } else { Knowledge::Away };
            self.known.learn(jid, knowledge);
            return self.set_gate(jid, Gate::Open);
        }
        account.readings += 1;
        self.begun += 1;
        self.readings += 1;
        let reading = Reading::new(self.begun, cue, of);
        self.account(jid).phone(jid).reading = Some(reading);
        self.ask_page(jid, actions);
    }

    /// Asks for the next page; one of an account is on its way at a time.
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

    /// Lets those go on that waited for a page or a look of their account.
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
        if self.settling_keeps_up() && self.session.is_some() {
            self.ask_page(jid, actions);
        } else {
            self.held_up.insert(jid.clone());
        }
    }

    /// Lines up what was read.
    pub(super) fn take_page(&mut self, page: Page, now: Now, actions: &mut Vec<Action>) {
        let Page { reader, reading: number, pushes, upto, left_out, end } = page;
        if let Some(account) = self.accounts.get_mut(&reader.to_bare()) {
            account.page_asked = false;
        }
        let reading = self.phone(&reader).and_then(|phone| phone.reading.as_ref());
        if reading.is_none_or(|reading| reading.number() != number) {
            self.stale -= 1;
        } else if self.ending.is_none() {
            let mut missed = if left_out { Knowledge::Away } else { Knowledge::Nothing };
            for message in pushes {
                if !self.line_up_read(message, &reader, now, actions) {
                    missed = missed.max(Knowledge::Something);
                }
            }
            self.go_on_reading(&reader, upto, missed, end, actions);
        }
        self.unblock(&reader.to_bare(), actions);
    }

    /// Lines up a push of a mailbox; `false`: it waits on, for another occasion.
    fn line_up_read(
        &mut self,
        message: PushMessage,
        reader: &FullJid,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.note_named(message.registration, message.epoch, &message.recipient);
        if self.is_being_revoked(message.registration) || self.target(&message, now) != *reader {
            return false;
        }
        let (id, name) = (message.id, name(&message));
        let push = Self::held(Origin::Mailbox, message);
        if self.settled.contains(&name) {
            // If it is not on its way out, it was settled while it was in the queue, and an earlier process had put it
            // into the mailbox.
            if !self.leaving.contains(&name) {
                self.done(push);
            }
            return true;
        }
        if self
            .phone(reader)
            .and_then(|phone| phone.retry.as_ref())
            .is_some_and(|retry| retry.has_rejected(id))
        {
            return true;
        }
        let Some(held) = self.pushes.get_mut(&id) else {
            self.line_up(push, reader, now, actions);
            return true;
        };
        if held.held.origin == Origin::Queue {
            // An earlier process put it into the mailbox, and did not come to delete it from the queue.
            held.held.origin = Origin::Mailbox;
            let copy = Held { origin: Origin::Queue, message: Arc::clone(&push.message) };
            self.decide(Fate::Done(copy));
        }
        let Some(held) = self.pushes.get(&id) else { return true };
        if held.asks.is_empty() && !held.lines.contains(reader) {
            let lines = held.lines.clone();
            lines.iter().for_each(|jid| self.take_from_line(id, jid));
            self.line_up(push, reader, now, actions);
            return true;
        }
        // Should it fail where it is, it waits.
        held.lines.contains(reader) || held.asks.iter().any(|ask| ask.jid == *reader)
    }

    fn go_on_reading(
        &mut self,
        reader: &FullJid,
        upto: Option<MessageId>,
        missed: Knowledge,
        end: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(phone) = self.phone_mut(reader) else { return };
        let Some(reading) = &mut phone.reading else { return };
        reading.note_page(upto, missed);
        if !end {
            self.set_gate(reader, upto.map_or(Gate::Shut, Gate::UpTo));
            return self.read_on(reader, actions);
        }
        let (outcome, cue) = (reading.outcome(), reading.cue());
        self.abandon_reading(reader);
        let Some(knowledge) = outcome else {
            self.known.learn(reader, Knowledge::Something);
            self.cue(reader, cue);
            return;
        };
        self.known.learn(reader, knowledge);
        self.set_gate(reader, Gate::Open);
        if knowledge == Knowledge::Away {
            self.probe(reader, actions);
        }
    }

    /// Asks whether a recipient is there, to which the XMPP server may still deliver what waits: sending that again
    /// would deliver it twice.
    fn probe(&self, jid: &FullJid, actions: &mut Vec<Action>) {
        if let Some(session) = self.session {
            actions.push(Action::Send(session, stanza::probe(&self.terms.component, jid)));
        }
    }

    /// Has the store asked about an account: whom its registrations name, and who was seen lately.
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

    /// Has the mailbox read for those who are there in place of others for whom something waits.
    pub(super) fn cue_stand_ins(&mut self, bare: &BareJid, now: Now) {
        let Some(account) = self.accounts.get(bare) else { return };
        let waiting = account.all_named().filter_map(|(id, named)| {
            let other = account.route(id, named, now);
            (other != named && self.known.of(named) != Some(Knowledge::Nothing)).then(|| other.clone())
        });
        let others: BTreeSet<FullJid> = waiting.collect();
        for other in others {
            if self.admits(&other) {
                self.cue_within_bounds(&other, Cue::There, now);
            }
        }
    }

    /// A push is in its mailbox: what it replaced is not sent any more, and whoever may be there is tried.
    pub(super) fn take_kept(
        &mut self,
        message: &PushMessage,
        recipient: FullJid,
        untried: bool,
        kept: &ports::Kept,
        now: Now,
    ) {
        let PushMessage { id, registration, epoch, .. } = *message;
        self.note_named(registration, epoch, &recipient);
        for gone in kept.replaced.iter().chain(&kept.dropped) {
            // From the queue it is on its way to the mailbox, and is replaced there.
            let waits = self
                .pushes
                .get(gone)
                .is_some_and(|push| push.held.origin == Origin::Mailbox && push.asks.is_empty());
            if waits {
                self.take_push(*gone);
            }
        }
        if kept.replaced.contains(&id) || kept.dropped.contains(&id) || !self.admits(&recipient) {
            return;
        }
        let account = self.account(&recipient);
        let target = account.route(registration, &recipient, now).clone();
        self.something_waits(&recipient);
        if target != recipient {
            self.something_waits(&target);
        }
        if self.phone(&target).is_some_and(Phone::is_reading) {
            self.cue(&target, Cue::Guess);
            return;
        }
        // Who is away is tried for a new push, but not if it failed just now.
        let away = self.known.of(&target) == Some(Knowledge::Away);
        let retry = self.phone_mut(&target).and_then(|phone| phone.retry.as_mut());
        match retry.filter(|retry| away && untried && retry.is_recent(now.monotonic)) {
            Some(retry) => retry.hurry(),
            None if !away || untried => self.guess(&target),
            None => {}
        }
    }

    /// The recipient may be there.
    pub(super) fn guess(&mut self, jid: &FullJid) {
        let phone = self.phone(jid);
        // What is in flight tells, sooner or later.
        if phone.is_none_or(|phone| phone.is_reading() || phone.line.in_flight() == 0) {
            self.cue(jid, Cue::Guess);
        }
    }

    pub(super) fn take_found(&mut self, found: Vec<Registration>, next: Option<ports::Recipient>, now: Now) {
        self.sweep.asked = false;
        if std::mem::take(&mut self.sweep.anew) {
            self.sweep.next = Some(None);
            return;
        }
        self.sweep.found.extend(found);
        self.sweep.next = next.map(Some);
        if self.sweep.next.is_none() {
            self.sweep.at = Some(now.monotonic + SWEEP_INTERVAL);
        }
    }

    /// Sweeps from the beginning.
    pub(super) fn sweep_anew(&mut self) {
        self.sweep = Sweep { asked: self.sweep.asked, anew: self.sweep.asked, ..Sweep::default() };
        self.sweep.next = (!self.sweep.asked).then_some(None);
    }

    /// Reads on when those of the last page were tried.
    pub(super) fn sweep_on(&mut self, actions: &mut Vec<Action>) {
        if self.session.is_some()
            && !self.sweep.asked
            && self.sweep.found.is_empty()
            && let Some(after) = self.sweep.next.take()
        {
            self.sweep.asked = true;
            actions.push(Action::Start(Job::Sweep(after)));
        }
    }

    /// Tries some of those that a sweep has found.
    pub(super) fn guess_found(&mut self, now: Now) {
        if self.session.is_none() {
            return;
        }
        if self.sweep.at.is_some_and(|at| at <= now.monotonic) {
            self.sweep_anew();
        }
        for _ in 0..SWEPT_PER_TICK {
            let Some(row) = self.sweep.found.pop_front() else { return };
            let (id, recipient) = (row.target.registration_id(), row.target.recipient);
            if !self.admits(&recipient) {
                continue;
            }
            self.note_named(id, row.epoch, &recipient);
            self.something_waits(&recipient);
            let target = self.account(&recipient).route(id, &recipient, now).clone();
            self.guess(&target);
        }
    }

    pub(super) fn is_being_revoked(&self, registration: RegistrationId) -> bool {
        self.revoking.contains_key(&registration)
    }

    /// What was read and not answered when the stream ended is read once more on the next: while it waits, its
    /// senders may withdraw or replace it.
    pub(super) fn read_again(&mut self, now: Now, actions: &mut Vec<Action>) {
        let of_the_mailbox: Vec<MessageId> = self
            .pushes
            .iter()
            .filter(|(_, push)| push.held.origin == Origin::Mailbox)
            .map(|(id, _)| *id)
            .collect();
        let mut readers: BTreeSet<FullJid> = BTreeSet::new();
        for id in of_the_mailbox {
            readers.extend(self.take_push(id).into_iter().flat_map(|push| push.lines));
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

    /// The line of a full JID that is being tried again goes out with what waits.
    pub(super) fn retry_due(&mut self, now: Now) {
        for jid in take(&mut self.retrying) {
            let Some(retry) = self.phone_mut(&jid).and_then(|phone| phone.retry.as_mut()) else { continue };
            if retry.take_due(now.monotonic) {
                // What it rejected was passed over by whoever read its mailbox meanwhile.
                self.something_waits(&jid);
                self.guess(&jid);
            } else if retry.is_over(now.monotonic) {
                self.forget_retry(&jid);
                continue;
            }
            self.retrying.insert(jid);
        }
    }

    pub(super) fn forget_retry(&mut self, jid: &FullJid) {
        if let Some(phone) = self.phone_mut(jid) {
            phone.retry = None;
        }
        self.retrying.remove(jid);
    }
}
