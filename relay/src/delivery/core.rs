//! The relay's decisions: one state machine whose unit is the account.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::take,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    AccessList, Epoch, Lately, MessageId, PushMessage, Registration, RegistrationId, TenantName, ports,
    usage::Counts,
};
use tokio::time::Instant;
use tokio_xmpp::{
    jid::{BareJid, FullJid, Jid},
    minidom::Element,
};
use url::Url;

use super::{
    Now,
    account::Account,
    domains::{DomainBounds, Domains},
    fate::{Fate, Held, Note, Origin},
    known::Known,
    line::Gate,
    name::Name,
    phone::Trust,
    rate::Meter,
    reading::{Page, ReadRequest},
    requests::Requests,
    room::Room,
    rota::Rota,
    turns::Turns,
};
use crate::{
    mutants::{Mutant, mutant},
    stream::{
        component::StreamNumber,
        stanza::{self, Incoming, Request},
    },
};

mod action;
mod answers;
mod census;
mod cues;
mod ends;
mod forgetting;
mod input;
mod loads;
mod phones;
mod places;
mod pushes;
mod readings;
mod registrations;
mod rolls;
mod settling;
mod stop;
mod sweep;
mod ticks;

pub(crate) use action::{Action, Job, Measure};
pub(crate) use census::Lapsing;
pub(crate) use input::Input;
pub(crate) use registrations::{Outcome, Registered, Registering};
pub(crate) use sweep::Found;
pub(crate) use ticks::TICK;

/// Most pushes in one receive, and most fates in one settlement.
pub(crate) const BATCH_MAX: usize = 256;
/// Most entries in each memory of recent events. One of them has the pushes that were answered: a copy that comes later
/// is not sent again. A hash table of 32,768 places holds as many for good: at more than 14,336, removals make it grow.
const SETTLED_MAX: usize = 14_000;
/// Most lives of registrations that are remembered as ended. The row of an older one is read again.
const ENDED_MAX: usize = 7000;

/// The core's settings, which never change.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) component: BareJid,
    pub(crate) ack_timeout: Duration,
    pub(crate) room: Room,
    pub(crate) meter: Option<Meter>,
    pub(crate) domain_bounds: DomainBounds,
    /// Addresses of the operator, for service discovery (XEP-0157).
    pub(crate) contact: Vec<Url>,
}

/// A push that is held, with the full JIDs that it waits for or was sent to.
#[derive(Debug)]
struct Push {
    held: Held,
    /// The full JIDs that the push is in flight to.
    asks: Vec<Ask>,
    /// The full JIDs in whose lines the push waits.
    lines: Vec<FullJid>,
    /// Full JIDs that have not answered in time, and may still answer.
    unanswered: Vec<FullJid>,
    /// The last time at which the push went out to one of them.
    unanswered_at: Option<DateTime<Utc>>,
    /// True if the push left the mailbox while it was in flight: a later one replaced it, or there was no room. It is
    /// not sent again.
    replaced: bool,
}

impl Push {
    fn new(held: Held) -> Self {
        Self {
            held,
            asks: Vec::new(),
            lines: Vec::new(),
            unanswered: Vec::new(),
            unanswered_at: None,
            replaced: false,
        }
    }

    /// Returns whether the push is in a line or in flight.
    fn is_somewhere(&self) -> bool {
        !self.asks.is_empty() || !self.lines.is_empty()
    }

    fn note_unanswered(&mut self, jid: &FullJid, asked_at: DateTime<Utc>) {
        self.unanswered.push(jid.clone());
        self.unanswered_at = self.unanswered_at.max(Some(asked_at));
    }
}

/// A push that went out to a full JID.
#[derive(Debug, Clone)]
struct Ask {
    jid: FullJid,
    asked_at: DateTime<Utc>,
    sent: Instant,
}

/// The state of the relay.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    access: AccessList,
    accounts: BTreeMap<BareJid, Account>,
    /// All pushes that are held.
    pushes: BTreeMap<MessageId, Push>,
    in_flight: usize,
    loads: loads::Loads,
    in_flight_told: usize,
    proven: Turns,
    unproven: Turns,
    /// True if the last turn went to an unproven full JID.
    unproven_last: bool,
    /// The time and id of each push sent, oldest first. Entries of pushes that were answered since are skipped.
    sent: VecDeque<(Instant, MessageId)>,
    /// Number of pushes that were received from the queue, and have not left it or gone back to it yet.
    held: usize,
    receiving: bool,
    /// End of the time that a new stream has for its first answer; `None` once one has come.
    unheard_until: Option<Instant>,
    known: Known,
    cued: VecDeque<FullJid>,
    readings: usize,
    /// Number of readings that began so far.
    begun: u64,
    /// Number of pages on their way whose readings were abandoned.
    stale: usize,
    /// Full JIDs whose next page may be read as soon as settling keeps up.
    held_up: BTreeSet<FullJid>,
    /// Accounts that the store is to be asked about.
    looks: VecDeque<BareJid>,
    looking: usize,
    retrying: Rota<FullJid>,
    /// Full JIDs that have shown life, and the time at which their mailboxes are read. Until then they may answer what
    /// was given up.
    catching_up: BTreeMap<FullJid, Instant>,
    /// Full JIDs that were probed, oldest first. Entries of those that have shown life since are skipped.
    probed: VecDeque<(Instant, FullJid)>,
    /// The time of sending up to which other full JIDs were sought for silent pushes; `None`: the search begins with
    /// the oldest push.
    others_sought_upto: Option<Instant>,
    /// Accounts with full JIDs that fell away during this input. Their stand-ins are cued after it.
    fell_away: BTreeSet<BareJid>,
    /// Accounts with cues that were put off.
    deferred: Rota<BareJid>,
    /// Accounts whose full JIDs seen lately have changed, and are to be written.
    unseen: Rota<BareJid>,
    /// Accounts that are to be dropped from memory.
    forgetting: BTreeSet<BareJid>,
    sweep: sweep::Sweep,
    census: census::Census,
    domains: Domains,
    rolls: rolls::Rolls,
    /// Pushes that were found delivered or expired. Their removal may not be durable yet.
    settled: Lately<Name>,
    /// Settled pushes whose removal from the mailbox is under way.
    leaving: BTreeSet<Name>,
    /// Pushes whose late results are being settled. Each is counted then, if the mailbox has it.
    late: BTreeSet<Name>,
    /// Settled pushes whose removal from the mailbox was decided lately, whether it is done or not.
    left_lately: Lately<Name>,
    /// Pushes whose end was counted.
    counted: Lately<Name>,
    /// Pushes that were settled or given up, and counted as accepted for their tenants. A second entry of the queue is
    /// not counted again.
    accepted: Lately<Name>,
    /// Pushes that leave the mailbox by a late result, for another push, or with their registration. These counts go
    /// with the removal, so a `Fate::Done` does not count the push again.
    gone: Lately<Name>,
    /// Lives of registrations that have ended. Pushes that the queue still has of them are sent to nobody.
    ended: Lately<(RegistrationId, Epoch)>,
    /// Pushes that were counted for the rate of their registration. The queue may give them again.
    metered: Lately<MessageId>,
    fates: VecDeque<Fate>,
    settling: Option<settling::Settling>,
    /// Full JIDs for which pushes are on their way into the mailbox, each with the number of these pushes.
    keeping: BTreeMap<FullJid, usize>,
    /// Registrations whose revocation is not durable yet, each with the number of such fates.
    revoking: BTreeMap<RegistrationId, usize>,
    /// Registrations whose move to another full JID is not durable yet, each with the number of such fates.
    following: BTreeMap<RegistrationId, usize>,
    /// Number of late refusals that are not settled yet. Each may revoke a registration.
    late_revocations: usize,
    requests: Requests,
    /// Registrations that the store is asked for at the moment.
    asked_for: BTreeSet<RegistrationId>,
    registering: usize,
    stream: Option<StreamNumber>,
    ending: Option<stop::Ending>,
    ticks: ticks::Ticks,
    /// The account at which the last search for idle accounts ended.
    tidied: Option<BareJid>,
}

/// Returns the life of the registration that a push is for.
fn life(message: &PushMessage) -> (RegistrationId, Epoch) {
    (message.registration, message.epoch)
}

impl Core {
    pub(crate) fn new(settings: Settings, access: AccessList) -> Self {
        let domains = Domains::new(settings.domain_bounds);
        Self {
            settings,
            access,
            accounts: BTreeMap::new(),
            pushes: BTreeMap::new(),
            in_flight: 0,
            loads: loads::Loads::default(),
            in_flight_told: 0,
            proven: Turns::default(),
            unproven: Turns::default(),
            unproven_last: false,
            sent: VecDeque::new(),
            held: 0,
            receiving: false,
            unheard_until: None,
            known: Known::default(),
            cued: VecDeque::new(),
            readings: 0,
            begun: 0,
            stale: 0,
            held_up: BTreeSet::new(),
            looks: VecDeque::new(),
            looking: 0,
            retrying: Rota::default(),
            catching_up: BTreeMap::new(),
            probed: VecDeque::new(),
            others_sought_upto: None,
            fell_away: BTreeSet::new(),
            deferred: Rota::default(),
            unseen: Rota::default(),
            forgetting: BTreeSet::new(),
            sweep: sweep::Sweep::default(),
            census: census::Census::default(),
            rolls: rolls::Rolls::default(),
            domains,
            settled: Lately::new(SETTLED_MAX),
            leaving: BTreeSet::new(),
            late: BTreeSet::new(),
            left_lately: Lately::new(SETTLED_MAX),
            counted: Lately::new(SETTLED_MAX),
            accepted: Lately::new(SETTLED_MAX),
            gone: Lately::new(SETTLED_MAX),
            ended: Lately::new(ENDED_MAX),
            metered: Lately::new(SETTLED_MAX),
            fates: VecDeque::new(),
            settling: None,
            keeping: BTreeMap::new(),
            revoking: BTreeMap::new(),
            following: BTreeMap::new(),
            late_revocations: 0,
            requests: Requests::default(),
            asked_for: BTreeSet::new(),
            registering: 0,
            stream: None,
            ending: None,
            ticks: ticks::Ticks::default(),
            tidied: None,
        }
    }

    /// Takes one input, and adds the actions that it leads to.
    pub(crate) fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Online(stream) => self.go_online(stream, now),
            Input::Offline => self.go_offline(now, actions),
            Input::Stanza(Incoming::Answer(answer)) => self.take_answer(&answer, now, actions),
            Input::Stanza(Incoming::Available(jid)) => self.begin_session(&jid, now, actions),
            Input::Stanza(Incoming::Unavailable(jid)) => self.end_session(&jid, now, actions),
            Input::Stanza(Incoming::Request(request)) => self.take_request(request, now, actions),
            Input::Stanza(Incoming::Subscribe(asked)) => {
                actions.push(Action::Reply(stanza::unsubscribed(&asked)));
            }
            Input::Received(pushes) => self.take_received(pushes, now, actions),
            Input::Page(page) => self.take_page(page, now, actions),
            Input::Looked(account, found) => self.take_look(&account, found, now),
            Input::Settled(notes) => self.take_settled(notes, now, actions),
            Input::Registered(registered) => self.take_registered(registered, now, actions),
            Input::Found(found) => self.take_found(found, now),
            Input::Counted(page) => self.take_counted(page, now, actions),
            Input::KeptLate(message, kept) => self.take_kept_late(message, &kept, now),
            Input::Access(access) => self.take_access(access, now, actions),
            Input::Forget(account) => self.forget(account, actions),
            Input::Tick => self.tick(now, actions),
            Input::Stop => self.stop(now),
            Input::LeaseLost => self.give_everything_back(now),
        }
        for account in take(&mut self.fell_away) {
            self.cue_stand_ins(&account, now);
        }
        self.go_on(now, actions);
        if self.in_flight != self.in_flight_told {
            self.in_flight_told = self.in_flight;
            actions.push(Action::Count(Measure::InFlight(self.in_flight)));
        }
    }

    /// Does whatever has become possible.
    fn go_on(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.ending.is_none() {
            self.begin_readings(now, actions);
            if now.leased {
                self.send_ready(now, actions);
            }
            self.receive(now, actions);
            self.sweep_on(actions);
            self.count_on(now, actions);
        }
        self.register_waiting(actions);
        self.settle(actions);
        self.finish_ending(now, actions);
    }

    fn account(&mut self, jid: &FullJid) -> &mut Account {
        self.accounts.entry(jid.to_bare()).or_default()
    }

    /// Receives pushes while there is room. A new stream has the room of unproven full JIDs alone until its first
    /// answer, for 2 s at most: a relay that begins knows no proven one, and further pushes would go to the mailbox.
    fn receive(&mut self, now: Now, actions: &mut Vec<Action>) {
        let is_unheard = self.unheard_until.is_some_and(|until| now.monotonic < until);
        let max = if is_unheard { self.settings.room.held_crowded() } else { self.settings.room.held };
        let room = max.saturating_sub(self.held);
        if self.stream.is_some() && !self.receiving && room > 0 {
            self.receiving = true;
            actions.push(Action::Start(Job::Receive(room.min(BATCH_MAX))));
        }
    }

    fn make_ready(&mut self, jid: &FullJid) {
        let Some(account) = self.accounts.get_mut(&jid.to_bare()) else { return };
        let Some(phone) = account.phones.get_mut(jid) else { return };
        let trust = phone.trust();
        if phone.ready != Some(trust) && phone.line.may_send() {
            phone.ready = Some(trust);
            match trust {
                Trust::Proven => self.proven.line_up(jid.clone()),
                Trust::Unproven => self.unproven.line_up(jid.clone()),
            }
        }
    }

    fn set_gate(&mut self, jid: &FullJid, gate: Gate) {
        self.account(jid).phone(jid).line.set_gate(gate);
        self.make_ready(jid);
    }
}

#[cfg(test)]
mod tests;
