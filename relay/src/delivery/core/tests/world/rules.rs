//! Rules that the model holds the core to: at each push that goes out, and after each step.

use super::*;
use crate::delivery::{
    line::IN_FLIGHT_PER_JID_MAX,
    phone::{Phone, Trust},
};

/// Most unanswered pushes to a full JID that has not answered yet.
const BEFORE_AN_ANSWER_MAX: usize = 4;

/// Most places of one account while another wants some, in sixteenths of all.
const PER_ACCOUNT_MAX: usize = 1;
/// With so many places of one domain taken, its full JIDs that have not answered yet get none.
const PER_DOMAIN_MAX: usize = 13;
/// With so many places taken, they and accounts beyond their shares get none.
const CROWDED: usize = 14;

/// Time that a stop may take for answers, with the tick that notes its end.
const STOPPED_WITHIN: Duration = Duration::from_millis(8000 + 250);

/// Full JIDs as the world has heard them, since this process began.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Those that have answered a push in time.
    answering: BTreeSet<String>,
    /// Those that have let a push of their session go unanswered, and answered none since.
    silent: BTreeSet<String>,
    /// Pushes that were taken, replaced or dropped.
    over: BTreeSet<MessageId>,
    pub(super) given_back: BTreeSet<MessageId>,
    revoked: BTreeSet<RegistrationId>,
}

impl World {
    /// Returns the pushes that a tick gives up now, each with the full JID that has not answered.
    pub(super) fn overdue(&self) -> Vec<(MessageId, FullJid)> {
        let is_overdue = |ask: &&Ask| {
            self.monotonic.duration_since(ask.sent) >= ACK_TIMEOUT
                && self.core.phone(&ask.jid).is_some_and(|phone| phone.line.is_of_session(ask.sent))
        };
        let asks = |(id, push): (&MessageId, &Push)| {
            let overdue = push.asks.iter().filter(is_overdue);
            overdue.map(|ask| (*id, ask.jid.clone())).collect::<Vec<_>>()
        };
        self.core.pushes.iter().flat_map(asks).collect()
    }

    /// Notes an answer before the core takes it: one that comes in time opens the window, and a result is the end.
    pub(super) fn hear(&mut self, answer: &Answer) {
        let ids = answer.message_id().and_then(|id| self.core.pushes.get(&id)).into_iter();
        let in_time = ids.flat_map(|push| &push.asks).any(|ask| ask.jid == answer.from);
        if in_time && answer.error != OFFLINE {
            let from = answer.from.to_string();
            self.heard.silent.remove(&from);
            self.heard.answering.insert(from);
        }
        if in_time && answer.error.is_none() {
            self.heard.over.extend(answer.message_id());
        }
    }

    /// Notes which pushes have left the mailbox, before the core is told.
    pub(super) fn note_told(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Waits { kept: Some(Kept { replaced, dropped }), .. } => {
                    self.heard.over.extend(replaced.iter().chain(dropped));
                }
                Note::Trimmed(_, trimmed) => self.heard.over.extend(&trimmed.dropped),
                Note::Ended { registration, epoch, .. } => {
                    let of_it =
                        |push: &&PushMessage| push.registration == *registration && push.epoch <= *epoch;
                    self.heard.over.extend(self.posts.values().filter(of_it).map(|push| push.id));
                    self.heard.revoked.insert(*registration);
                }
                _ => {}
            }
        }
    }

    /// Notes the pushes that a tick has given up: silence leaves one place.
    pub(super) fn hear_nothing(&mut self, overdue: Vec<(MessageId, FullJid)>) {
        for (id, jid) in overdue {
            let asks = self.core.pushes.get(&id).into_iter().flat_map(|push| &push.asks);
            if asks.into_iter().all(|ask| ask.jid != jid) {
                self.heard.silent.insert(jid.to_string());
            }
        }
        let core = &self.core;
        self.heard.silent.retain(|jid| core.phone(&jid.parse().unwrap()).is_some());
    }

    /// Checks the pushes that one input has sent, in their order.
    pub(super) fn check_sent(&mut self, sent: &[(MessageId, String)]) {
        for (id, to) in sent {
            assert!(!self.heard.over.contains(id), "{id} goes out to {to} after its end was told");
            let jid: FullJid = to.parse().unwrap();
            self.check_order(*id, &jid);
            self.ever_sent.insert(*id);
        }
        for to in sent.iter().map(|(_, to)| to).collect::<BTreeSet<_>>() {
            let unanswered = self.core.phone(&to.parse().unwrap()).map_or(0, |phone| phone.line.in_flight());
            let window = match to {
                to if self.heard.silent.contains(to) => 1,
                to if self.heard.answering.contains(to) => IN_FLIGHT_PER_JID_MAX,
                _ => BEFORE_AN_ANSWER_MAX,
            };
            assert!(
                unanswered <= window,
                "{unanswered} go to {to} unanswered, beyond its window of {window}"
            );
        }
        self.check_shares(sent);
    }

    /// Checks that each push takes its place within the bounds of its account and its domain.
    fn check_shares(&self, sent: &[(MessageId, String)]) {
        let places = self.core.settings.room.in_flight;
        assert!(self.core.in_flight <= places, "{} are in flight", self.core.in_flight);
        // Pushes go out after all else that an input does: back from the last one, each has left its place free.
        let mut in_all = self.core.in_flight;
        let (mut of_domains, mut of_accounts) = (BTreeMap::new(), BTreeMap::new());
        for (_, to) in sent.iter().rev() {
            let jid: FullJid = to.parse().unwrap();
            let domain = jid.domain().as_str().to_owned();
            let has = self.core.loads.in_flight(&domain);
            let of_domain = of_domains.entry(domain).or_insert(has);
            let of_account =
                of_accounts.entry(jid.to_bare()).or_insert(self.core.accounts[&jid.to_bare()].in_flight);
            (in_all, *of_domain, *of_account) = (in_all - 1, *of_domain - 1, *of_account - 1);
            if self.core.phone(&jid).is_some_and(|phone| phone.trust() == Trust::Unproven) {
                let has_place = in_all < places / 16 * CROWDED && *of_domain < places / 16 * PER_DOMAIN_MAX;
                assert!(has_place, "{to}, which never answered, takes a place that is for those that do");
            }
            if *of_account >= places / 16 * PER_ACCOUNT_MAX {
                assert!(in_all < places / 16 * CROWDED, "{to} takes a place beyond the share of its account");
                self.check_nobody_wants(&jid.to_bare());
            }
        }
    }

    /// Checks that no account with room in its share waits behind one that has taken more than its own.
    fn check_nobody_wants(&self, taker: &BareJid) {
        let sixteenth = self.core.settings.room.in_flight / 16;
        let within = |(account, has): &(&BareJid, &Account)| {
            *account != taker && has.in_flight < sixteenth * PER_ACCOUNT_MAX
        };
        for (account, has) in self.core.accounts.iter().filter(within) {
            let may = |phone: &Phone| {
                let within =
                    self.core.loads.in_flight(account.domain().as_str()) < sixteenth * PER_DOMAIN_MAX;
                phone.line.may_send() && (phone.trust() == Trust::Proven || within)
            };
            assert!(
                !has.phones.values().any(may),
                "{taker} takes more than its share, and {account} wants a place"
            );
        }
    }

    /// Checks that pushes to one full JID go out by urgency and age: none that is to go first waits in the line, and none
    /// of the same urgency in the mailbox that nobody was asked to take yet.
    fn check_order(&self, id: MessageId, to: &FullJid) {
        if self.posts[&id].is_immediate() {
            return;
        }
        let in_line = self.core.phone(to).into_iter().flat_map(|phone| phone.line.ids());
        let before = in_line.filter(|other| *other < id && !self.posts[other].is_immediate()).min();
        assert_eq!(before, None, "{id} goes out to {to} before one that is in its line");
        // With several full JIDs in an account, each has its own order.
        let is_alone = self.core.accounts[&to.to_bare()].phones.len() == 1;
        if self.ever_sent.contains(&id) || !is_alone {
            return;
        }
        let kept = self.kept.get(&to.to_bare()).into_iter().flat_map(|ids| ids.range(..id));
        let urgency = self.posts[&id].urgency;
        for (other, _) in kept.filter_map(|other| self.mailbox.get(other)) {
            let waits = other.urgency == urgency && self.is_for(other, to);
            assert!(!waits, "{id} goes out to {to} before {}, which waits for it", other.id);
        }
    }

    /// Returns whether a push that waits is for this full JID, and only the order of pushes is in its way. One that was
    /// given back to the queue has lost its place, and so has one that a reading passed over while an earlier life of its
    /// registration was being revoked.
    fn is_for(&self, message: &PushMessage, to: &FullJid) -> bool {
        let core = &self.core;
        let put_off = core.phone(to).and_then(|phone| phone.retry.as_ref());
        let put_off = put_off.is_some_and(|retry| retry.has_rejected(message.id));
        self.lives_on(message)
            && !message.is_expired(self.wall)
            && !put_off
            && !self.ever_sent.contains(&message.id)
            && !self.heard.given_back.contains(&message.id)
            && !core.pushes.contains_key(&message.id)
            && !core.is_being_revoked(message.registration)
            && !self.heard.revoked.contains(&message.registration)
            && core.route_of(message, self.now()) == *to
    }

    /// Returns whether the life of the registration goes on that a push is for.
    fn lives_on(&self, message: &PushMessage) -> bool {
        let row = &self.rows[&message.registration];
        row.lives(self.wall) && row.epoch == message.epoch
    }

    /// Checks that each push is in one place: in the queue or in the mailbox; of the queue, free, put off, or held by the core.
    pub(in super::super) fn check_places(&self) {
        let held =
            |id: &MessageId, origin| self.core.pushes.get(id).is_some_and(|push| push.held.origin == origin);
        for id in self.queue.keys() {
            assert!(!self.mailbox.contains_key(id), "{id} is in the queue and in the mailbox");
            let places = [self.due.contains(id), self.postponed.contains_key(id), held(id, Origin::Queue)];
            let places = places.into_iter().filter(|is_there| *is_there).count();
            assert_eq!(places, 1, "{id} of the queue is in {places} places");
        }
        for (id, push) in &self.core.pushes {
            // A stop is told of none that are replaced or dropped: it sends none.
            let untold =
                self.ending_since.is_some() && (self.replaced.contains(id) || self.dropped.contains(id));
            let is_over = untold
                || !self.lives_on(&push.held.message)
                || self.has_expired(*id)
                || self.core.is_over(push);
            let stored = match push.held.origin {
                Origin::Queue => self.is_queued(*id),
                Origin::Mailbox => self.mailbox.contains_key(id) || is_over,
            };
            assert!(stored, "{id} is held, and stored nowhere");
        }
    }

    /// Checks that a stop waits for answers alone, and no longer than it may.
    pub(in super::super) fn check_ending(&self, since: Instant) {
        let passed = self.monotonic.duration_since(since);
        assert!(self.finished || passed < STOPPED_WITHIN, "a stop is over after {STOPPED_WITHIN:?}");
        assert!(self.finished || self.core.in_flight > 0, "a stop waits for nothing but answers");
    }

    /// Checks that a process that has stopped, or lost its lease, holds nothing.
    pub(in super::super) fn check_end(&self) {
        let core = &self.core;
        assert!(
            core.pushes.is_empty() && core.in_flight == 0,
            "what is held after the end: {:?}",
            self.rest()
        );
        assert!(core.fates.is_empty() && core.settling.is_none(), "what is decided is durable at the end");
        for id in self.queue.keys() {
            let free = self.due.contains(id)
                || self.postponed.get(id).is_some_and(|at| *at <= self.wall + TimeDelta::seconds(10));
            assert!(free, "{id} was not given back");
        }
    }

    /// The core knows of all that waits and is not held, by the full JID that its registration names.
    pub(in super::super) fn check_what_waits(&self) {
        for (message, asked_at) in self.mailbox.values() {
            let (core, over) = (&self.core, !self.lives_on(message) || message.is_expired(self.wall));
            if over || core.pushes.contains_key(&message.id) || core.settled.contains(&Name::of(message)) {
                continue;
            }
            let named = &self.rows[&message.registration].target.recipient;
            let found = core.known.of(named) != Some(Knowledge::Nothing)
                || core.phone(named).is_some_and(|phone| {
                    phone.is_reading()
                        || phone.retry.as_ref().is_some_and(|retry| retry.has_rejected(message.id))
                });
            assert!(found, "{} waits for {named} (asked {asked_at:?}), and nobody knows", message.id);
        }
    }

    /// When all is settled, the core knows whom each registration names.
    pub(in super::super) fn check_names(&self) {
        if self.core.settling.is_some() || !self.core.fates.is_empty() {
            return;
        }
        for (id, row) in self.rows.iter().filter(|(_, row)| row.lives(self.wall)) {
            let account = self.core.accounts.get(&row.target.recipient.to_bare());
            if let Some(named) = account.and_then(|account| account.named(*id)) {
                assert_eq!(named, &row.target.recipient, "whom {id} names");
            }
        }
    }

    /// No domain has more than it may; what has expired may count until it is read.
    pub(in super::super) fn check_bounds(&self) {
        let mut waiting: BTreeMap<String, usize> = BTreeMap::new();
        for (account, pushes) in self.waiting_by_account() {
            *waiting.entry(account.domain().to_string()).or_default() += pushes;
        }
        assert!(waiting.values().all(|pushes| *pushes <= self.bounds.mailbox), "{waiting:?}");
        let mut living: BTreeMap<String, usize> = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.lives(self.wall)) {
            *living.entry(row.target.recipient.domain().to_string()).or_default() += 1;
        }
        assert!(living.values().all(|rows| *rows <= self.bounds.registrations), "{living:?}");
    }
}
