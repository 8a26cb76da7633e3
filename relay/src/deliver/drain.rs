//! What waits: pushes given to the mailbox, and mailboxes read when their recipients may be there.

use std::{mem::take, sync::Arc};

use chrono::{DateTime, Utc};
use metrics::counter;
use push::{MessageId, PushMessage};
use tokio::time::Instant;
use tokio_xmpp::jid::FullJid;

use super::{Dispatcher, Outcome, name};
use crate::{
    clock,
    consume::{Fate, Stored},
    mailbox::{PAGE_MAX, Page},
    measures::RETRIED,
    pending::{Gate, Held, InFlight, Origin},
    reach::{Cue, Knowledge},
    stream::{
        component::Outgoing,
        stanza::{self, Answer, PROBE_ID},
    },
};

/// With so few of a page left in line, the next one is read.
const PAGE_LOW: usize = PAGE_MAX / 4;

impl<Receipt: Clone> Dispatcher<Receipt> {
    /// Takes a push from the queue: into the line, or behind what waits for the same recipient.
    pub(super) fn admit(&mut self, push: Held<Receipt>) {
        let (recipient, id) = (push.message.recipient.clone(), push.message.id);
        // A copy of what is settled already, or of what the mailbox has.
        if self.settled.contains(&name(&push.message)) || self.pending.holds_from_mailbox(&recipient, id) {
            return self.settle(Fate::Done(push));
        }
        if push.message.is_immediate() || self.reach.is_reading(&recipient) {
            return self.line_up(push);
        }
        match self.reach.known(&recipient) {
            Some(Knowledge::Nothing) => self.line_up(push),
            Some(Knowledge::Something | Knowledge::Away) => self.keep(push, None, true),
            // What waits, if anything does, goes first.
            None if self.cue(&recipient, Cue::Guess) => self.line_up(push),
            None => self.keep(push, None, true),
        }
    }

    /// The cue by which whoever was away says that it is back (protocol.md, "Coming online").
    pub(super) fn session_began(&mut self, jid: &FullJid) {
        if self.may_have_waiting(jid) {
            self.is_there(jid);
        }
    }

    fn may_have_waiting(&self, jid: &FullJid) -> bool {
        self.reach.known(jid) != Some(Knowledge::Nothing) && self.terms.access.admits(&jid.clone().into())
    }

    /// A new session, or a registration: whatever waits may be delivered.
    pub(super) fn is_there(&mut self, jid: &FullJid) {
        self.reach.is_back(jid);
        self.cue(jid, Cue::There);
    }

    /// The recipient may be there.
    pub(super) fn guess(&mut self, jid: &FullJid) {
        // What is in flight tells, sooner or later.
        if self.reach.is_reading(jid) || self.pending.in_flight_to(jid) == 0 {
            self.cue(jid, Cue::Guess);
        }
    }

    /// Has a mailbox read; until then, nothing overtakes what may wait in it.
    fn cue(&mut self, jid: &FullJid, cue: Cue) -> bool {
        let begins = cue == Cue::There || !self.reach.is_reading(jid);
        let cued = self.reach.cue(jid, cue);
        if begins && cued {
            self.pending.set_gate(jid, Gate::Shut, Instant::now());
        }
        cued
    }

    /// Begins to read as many mailboxes as may be read at a time, while settling keeps up.
    pub(super) fn begin_reading(&mut self) {
        if self.session.is_none() || !self.settling_keeps_up() {
            return;
        }
        for jid in take(&mut self.held_up) {
            self.read_on(&jid);
        }
        while let Some(request) = self.reach.begin() {
            // There is a place for each mailbox that is being read.
            let _ = self.channels.reads.try_send(request);
        }
    }

    /// What was read and not answered when the stream ended is read once more on the next: while it waits, its
    /// senders may withdraw or replace it.
    pub(super) fn read_again(&mut self) {
        let mut read = self.reach.being_read();
        read.extend(self.pending.forget_what_waits());
        for jid in read {
            self.reach.stop_reading(&jid);
            if !self.cue(&jid, Cue::Guess) {
                self.give_up_line(&jid);
            }
        }
    }

    /// Lines up what was read.
    pub(super) fn take_page(&mut self, page: Page) {
        let Page { recipient, reading, pushes, mut progress, end } = page;
        let upto = progress.upto;
        let (revoked, pushes): (Vec<_>, Vec<_>) =
            pushes.into_iter().partition(|message| self.is_being_revoked(message.registration));
        // Should it fail where its registration was before, it waits.
        let is_elsewhere = |message: &PushMessage| {
            self.pending.in_flight_towards(message.id).is_some_and(|jid| *jid != recipient)
        };
        if !revoked.is_empty() || pushes.iter().any(is_elsewhere) {
            progress.left_out = progress.left_out.max(Knowledge::Something);
        }
        if !self.reach.page_read(&recipient, reading, progress) {
            return;
        }
        for message in pushes {
            let id = message.id;
            let push = Held { origin: Origin::Mailbox, message };
            if self.settled.contains(&name(&push.message)) {
                // If it is not on its way out, it was settled while it was in the queue, and put into the mailbox by an
                // earlier process.
                if !self.leaving.contains(&name(&push.message)) {
                    self.done(push);
                }
                continue;
            }
            let in_line = self.pending.take_from_line(&recipient, id);
            let copy = in_line.filter(|held| matches!(held.origin, Origin::Queue { .. }));
            if let Some(copy) = copy.or_else(|| self.pending.is_in_mailbox(id)) {
                // An earlier process put it into the mailbox, and did not come to delete it from the queue.
                self.settle(Fate::Done(copy));
            }
            if self.pending.in_flight_towards(id).is_none() && !self.reach.is_refused(&recipient, id) {
                self.line_up(push);
            }
        }
        if !end {
            let gate = upto.map_or(Gate::Shut, Gate::UpTo);
            self.pending.set_gate(&recipient, gate, Instant::now());
            self.read_on(&recipient);
        } else if let Some(knowledge) = self.reach.finish_reading(&recipient) {
            self.pending.set_gate(&recipient, Gate::Open, Instant::now());
            if knowledge == Knowledge::Away {
                self.probe(&recipient);
            }
        }
    }

    /// Asks whether a recipient is there, to which the XMPP server may still deliver what waits: sending that again
    /// would deliver it twice.
    fn probe(&mut self, jid: &FullJid) {
        if let Some(session) = self.session {
            let xml = stanza::probe(&self.terms.component, jid);
            // If there is no room, another guess comes.
            let _ = self.channels.pushes.try_send(Outgoing { session, xml });
        }
    }

    /// Whoever answers a probe has got all that was sent to its session before, or will never. It may go on without an
    /// answer to pushes: the delays until it is tried again go on growing.
    pub(super) fn take_probes_answer(&mut self, answer: &Answer) {
        if answer.id == PROBE_ID
            && answer.error.is_none()
            && let Ok(jid) = answer.from.clone().try_into_full()
            && self.may_have_waiting(&jid)
        {
            self.cue(&jid, Cue::There);
        }
    }

    /// Reads the next page of a mailbox when most of the last one has gone out.
    pub(super) fn read_on(&mut self, jid: &FullJid) {
        if self.pending.in_line_that_pass(jid, PAGE_LOW + 1) > PAGE_LOW {
            return;
        }
        if self.settling_keeps_up() {
            if let Some(request) = self.reach.read_on(jid) {
                let _ = self.channels.reads.try_send(request);
            }
        } else if self.reach.is_reading(jid) {
            self.held_up.insert(jid.clone());
        }
    }

    /// Gives a push to the mailbox. `asked_at` says when it went out, if no answer came; `untried`, that it came
    /// behind others.
    pub(super) fn keep(&mut self, push: Held<Receipt>, asked_at: Option<DateTime<Utc>>, untried: bool) {
        // RFC 8030 §5.2: TTL 0 is delivered at once or not at all.
        if push.message.is_immediate() || push.message.is_expired(clock::now()) {
            return self.expire(push);
        }
        self.reach.something_waits(&push.message.recipient);
        match (&push.origin, asked_at) {
            (Origin::Queue { .. }, _) => self.settle(Fate::Keep { push, asked_at, untried }),
            // Not written again: its sender may have withdrawn it meanwhile.
            (Origin::Mailbox, Some(asked_at)) => {
                self.settle(Fate::Asked { message: push.message, asked_at });
            }
            (Origin::Mailbox, None) => {}
        }
    }

    /// A push is in its mailbox: what it replaced is not sent any more, and whoever may be there is tried.
    pub(super) fn take_stored(&mut self, stored: Stored) {
        let Stored { recipient, message, untried, kept } = stored;
        for gone in kept.replaced.iter().chain(&kept.dropped) {
            // From the queue it is on its way to the mailbox, and is replaced there.
            if let Some(push) = self.pending.take_from_line(&recipient, *gone)
                && matches!(push.origin, Origin::Queue { .. })
            {
                self.line_up(push);
            }
        }
        self.read_on(&recipient);
        if kept.replaced.contains(&message) || kept.dropped.contains(&message) {
            return;
        }
        self.reach.something_waits(&recipient);
        if self.reach.is_reading(&recipient) {
            self.reach.cue(&recipient, Cue::Guess);
            return;
        }
        // Who is away is tried for what is new, but not if it failed just now.
        let away = self.reach.known(&recipient) == Some(Knowledge::Away);
        if away && untried && self.reach.is_put_off(&recipient, Instant::now()) {
            self.reach.retry_soon(&recipient);
        } else if !away || untried {
            self.guess(&recipient);
        }
    }

    /// A delivery has failed; `asked_at`, if no answer came, says when it went out.
    pub(super) fn failed(&mut self, failed: InFlight<Receipt>, asked_at: Option<DateTime<Utc>>) {
        counter!(RETRIED).increment(1);
        self.pending.doubt(&failed, Instant::now());
        self.keep(failed.push, asked_at, false);
    }

    /// When everything that was in flight to a recipient is answered or overdue: whether it is there.
    pub(super) fn conclude(&mut self, jid: &FullJid) {
        if let Some(doubt) = self.pending.conclude(jid) {
            let now = Instant::now();
            if doubt.proven {
                self.reach.refuses(jid, &doubt.failed, now);
                for id in doubt.failed {
                    // Read again meanwhile.
                    self.pending.take_from_line(jid, id);
                }
                self.has_answered(jid);
            } else {
                self.reach.is_away(jid, now);
                self.give_up_line(jid);
            }
        }
        self.read_on(jid);
    }

    /// Notes that somebody is there.
    pub(super) fn has_answered(&mut self, jid: &FullJid) {
        if !self.pending.is_in_doubt(jid) && self.reach.has_answered(jid) {
            self.cue(jid, Cue::There);
        }
    }

    /// The line of a recipient that is not there waits in the mailbox.
    pub(super) fn give_up_line(&mut self, jid: &FullJid) {
        self.pending.take_line(jid).into_iter().for_each(|push| self.keep(push, None, false));
    }

    /// What was sent to a session that has ended was not delivered, and is held by nobody.
    pub(super) fn session_ended(&mut self, jid: &FullJid) {
        for sent in self.pending.session_ended(jid) {
            counter!(RETRIED).increment(1);
            self.keep(sent.push, None, false);
        }
        self.give_up_line(jid);
        if self.reach.is_reading(jid) || self.reach.known(jid) > Some(Knowledge::Nothing) {
            self.reach.is_away(jid, Instant::now());
        }
    }

    /// An answer to what is not in flight: it came after its time, or after a restart, or it is none of ours.
    pub(super) fn take_late_answer(&mut self, id: MessageId, answer: &Answer, outcome: Outcome) {
        let Ok(jid) = answer.from.clone().try_into_full() else { return };
        if !self.terms.access.admits(&answer.from) {
            return;
        }
        let waits = self.reach.known(&jid) != Some(Knowledge::Nothing);
        match outcome {
            // An error after a result changes nothing, and one before it comes too late to change anything.
            Outcome::Failed => {}
            Outcome::Delivered => {
                if let Some(push) = self.pending.take_from_line(&jid, id) {
                    self.delivered(push);
                    self.read_on(&jid);
                } else if waits && !self.settled.contains(&(jid.to_bare(), id)) {
                    self.settled.note((jid.to_bare(), id));
                    self.settle_if_room(Fate::Late(jid.to_bare(), id));
                }
                self.has_answered(&jid);
            }
            Outcome::Revoke => {
                if waits {
                    self.settle_if_room(Fate::LateRevoke(
                        jid.to_bare(),
                        id,
                        Arc::clone(&self.late_revocations),
                    ));
                }
            }
        }
    }
}
