//! A world around the core: a queue, registrations, mailboxes, a clock. Jobs are done at once.

use std::collections::{BTreeMap, VecDeque};

use push::{
    MessageId, Rate, Registration, RegistrationId,
    message::Wishes,
    ports::{self, Kept, Renewal, Seen},
    testing,
};

use super::*;
use crate::{
    delivery::{
        known::Knowledge,
        reading::{Cue, PAGE_MAX},
    },
    stream::{
        component::StreamNumber,
        stanza::{PROBE_ID, Query},
    },
};

mod bounds;
mod jobs;
mod looks;
mod rules;
mod senders;
pub(super) mod users;

/// See the module.
pub(super) struct World {
    core: Core,
    bounds: DomainBounds,
    rate: Option<Rate>,
    /// Marks of throttling that were asked for, and how many of the next fail.
    pub(super) throttled: Vec<DateTime<Utc>>,
    pub(super) throttles_failing: usize,
    /// Number of the next writes of who was seen lately that fail.
    pub(super) seen_failing: usize,
    /// Settling stands still, with these fates.
    pub(super) stalls: bool,
    stalled: Option<Vec<Fate>>,
    /// Pages come late, these.
    pub(super) reads_late: bool,
    late: Vec<ReadRequest>,
    /// Requests that the store gets late, if it does.
    late_requests: Option<Vec<Registering>>,
    /// The next push that is kept takes the place of these.
    pub(super) replaces: Vec<MessageId>,
    pub(super) wall: DateTime<Utc>,
    pub(super) monotonic: Instant,
    pub(super) leased: bool,
    streams: u64,
    /// Inputs that come behind the one that is being taken.
    inputs: VecDeque<Input>,
    is_taking: bool,
    queue: BTreeMap<MessageId, PushMessage>,
    /// Queued pushes that the core has not got.
    due: BTreeSet<MessageId>,
    /// Those whose turn comes later.
    pub(super) postponed: BTreeMap<MessageId, DateTime<Utc>>,
    pub(super) mailbox: BTreeMap<MessageId, (PushMessage, Option<DateTime<Utc>>)>,
    /// The pushes that each account has had in its mailbox.
    kept: BTreeMap<BareJid, BTreeSet<MessageId>>,
    rows: BTreeMap<RegistrationId, Registration>,
    rows_of: BTreeMap<BareJid, BTreeSet<RegistrationId>>,
    seen: BTreeMap<BareJid, Vec<Seen>>,
    receiving: Option<usize>,
    /// Pushes that went out and that no test has looked at.
    sent: Vec<(MessageId, String)>,
    posted: u32,
    /// All that was posted.
    posts: BTreeMap<MessageId, PushMessage>,
    pub(super) delivered: Vec<MessageId>,
    pub(super) pages: usize,
    /// Pushes that were dropped because too much waited for a domain.
    pub(super) dropped: BTreeSet<MessageId>,
    /// Registrations that were refused because their domain had too many.
    pub(super) refused: usize,
    /// Measures that no test has looked at.
    measured: Vec<Measure>,
    /// The renewal of each registration that the store was asked for.
    pub(super) renewals: Vec<Renewal>,
    /// The counts of tenants.
    pub(super) counted: Counts,
    pub(super) finished: bool,
    /// When a stop began, or the lease was lost.
    pub(super) ending_since: Option<Instant>,
    /// Pushes that some full JID of their account has taken.
    results: BTreeSet<MessageId>,
    ever_sent: BTreeSet<MessageId>,
    /// Pushes that a later one of their topic has replaced.
    pub(super) replaced: BTreeSet<MessageId>,
    heard: rules::Heard,
    /// True if each push that goes out is held to all rules, which takes its time.
    pub(super) strict: bool,
}

/// Time for an answer.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// The room of [`World::narrow`].
pub(super) const NARROW: Room = Room { held: 512, in_flight: 128 };

/// Bounds that nobody reaches.
pub(super) const WIDE: DomainBounds = DomainBounds { registrations: 10_000, mailbox: 10_000 };

/// A core that has taken no input.
pub(super) fn core(domain_bounds: DomainBounds, rate: Option<Rate>, room: Room) -> Core {
    let settings = Settings {
        component: BareJid::new("notify.example.com").unwrap(),
        ack_timeout: ACK_TIMEOUT,
        room,
        meter: rate.map(Meter::new),
        domain_bounds,
        contact: Vec::new(),
    };
    Core::new(settings, AccessList::Everyone(Vec::new()))
}

impl World {
    pub(super) fn online() -> Self {
        Self::bounded(WIDE)
    }

    /// With bounds for the domains.
    pub(super) fn bounded(bounds: DomainBounds) -> Self {
        Self::with(bounds, None, Room::OF_RELAY)
    }

    /// With a rate for each registration.
    pub(super) fn metered(rate: &str) -> Self {
        Self::with(WIDE, Some(rate.parse().unwrap()), Room::OF_RELAY)
    }

    /// With an eighth of a relay's room, which is sooner full.
    pub(super) fn narrow() -> Self {
        Self::with(WIDE, None, NARROW)
    }

    fn with(bounds: DomainBounds, rate: Option<Rate>, room: Room) -> Self {
        let mut world = Self {
            core: core(bounds, rate, room),
            bounds,
            rate,
            throttled: Vec::new(),
            throttles_failing: 0,
            seen_failing: 0,
            stalls: false,
            stalled: None,
            reads_late: false,
            late: Vec::new(),
            late_requests: None,
            replaces: Vec::new(),
            wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            monotonic: Instant::now(),
            leased: true,
            streams: 0,
            inputs: VecDeque::new(),
            is_taking: false,
            queue: BTreeMap::new(),
            due: BTreeSet::new(),
            postponed: BTreeMap::new(),
            mailbox: BTreeMap::new(),
            kept: BTreeMap::new(),
            rows: BTreeMap::new(),
            rows_of: BTreeMap::new(),
            seen: BTreeMap::new(),
            receiving: None,
            sent: Vec::new(),
            posted: 0,
            posts: BTreeMap::new(),
            delivered: Vec::new(),
            pages: 0,
            dropped: BTreeSet::new(),
            refused: 0,
            measured: Vec::new(),
            renewals: Vec::new(),
            counted: Counts::default(),
            finished: false,
            ending_since: None,
            results: BTreeSet::new(),
            ever_sent: BTreeSet::new(),
            replaced: BTreeSet::new(),
            heard: rules::Heard::default(),
            strict: false,
        };
        world.connect();
        world
    }

    pub(super) fn connect(&mut self) {
        self.streams += 1;
        self.take(Input::Online(StreamNumber::number(self.streams)));
    }

    pub(super) fn disconnect(&mut self) {
        self.sent.clear();
        self.take(Input::Offline);
    }

    /// Another process on the same stores.
    pub(super) fn restart(&mut self) {
        self.core = core(self.bounds, self.rate, self.core.settings.room);
        (self.leased, self.finished, self.ending_since) = (true, false, None);
        self.heard = rules::Heard::default();
        self.due = self.queue.keys().copied().collect();
        self.postponed.clear();
        self.receiving = None;
        self.sent.clear();
        self.connect();
    }

    /// Settling goes on.
    pub(super) fn go_on_settling(&mut self) {
        self.stalls = false;
        if let Some(fates) = self.stalled.take() {
            self.do_job(Job::Settle(fates));
        }
    }

    /// One batch is settled, and the next one stands still.
    pub(super) fn settle_one_batch(&mut self) {
        let fates = self.stalled.take().unwrap();
        self.settle_all(fates);
    }

    /// The pages come that were asked for.
    pub(super) fn read_what_is_late(&mut self) {
        for request in std::mem::take(&mut self.late) {
            self.read(&request);
        }
    }

    /// The same, and it gets nothing of the queue yet.
    pub(super) fn restart_before_the_queue_answers(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        self.restart();
        self.posts.extend(queue);
    }

    /// A push that waits while its phone is away goes out when the phone is back.
    pub(super) fn waits_and_is_sent(&mut self, registration: RegistrationId) -> MessageId {
        let phone = self.names(registration);
        let push = self.post(registration);
        self.answer(push, &phone, Some(Condition::Other));
        assert_eq!(self.waiting(), [push]);
        self.take_sent();
        self.greet(&phone);
        assert_eq!(self.take_sent(), [(push, phone)]);
        push
    }

    pub(super) fn admit(&mut self, list: &str) {
        self.take(Input::Access(list.parse().unwrap()));
    }

    pub(super) fn forget(&mut self, account: &str) {
        self.take(Input::Forget(account.parse().unwrap()));
    }

    pub(super) fn stop(&mut self) {
        self.receiving = None;
        self.ending_since.get_or_insert(self.monotonic);
        self.take(Input::Stop);
        self.take(Input::Received(Vec::new()));
    }

    pub(super) fn lose_lease(&mut self) {
        self.receiving = None;
        self.leased = false;
        self.ending_since = Some(self.monotonic);
        self.take(Input::LeaseLost);
        self.take(Input::Received(Vec::new()));
    }

    /// Lets time pass, a tick after the other.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_by(TICK, time);
    }

    /// Lets time pass with ticks that are late.
    pub(super) fn pass_by(&mut self, step: Duration, time: Duration) {
        let end = self.monotonic + time;
        while self.monotonic < end {
            self.stand_still(step);
            let (due, later) =
                std::mem::take(&mut self.postponed).into_iter().partition(|(_, at)| *at <= self.wall);
            self.postponed = later;
            self.due.extend(BTreeMap::into_keys(due));
            self.take(Input::Tick);
            self.serve_queue();
        }
    }

    pub(super) fn tick_interval(&self) -> Duration {
        self.core.tick_interval()
    }

    pub(super) fn greet(&mut self, jid: &str) {
        self.take(Input::Stanza(Incoming::Available(jid.parse().unwrap())));
    }

    pub(super) fn leave(&mut self, jid: &str) {
        self.take(Input::Stanza(Incoming::Unavailable(jid.parse().unwrap())));
    }

    pub(super) fn answer(&mut self, push: MessageId, from: &str, error: Option<Condition>) {
        let from: Jid = from.parse().unwrap();
        let is_of_account = self.posts[&push].recipient.to_bare() == from.to_bare();
        if error.is_none() && is_of_account {
            self.results.insert(push);
        }
        self.take(Input::Stanza(Incoming::Answer(Answer { from, id: push.to_string(), error })));
    }

    /// The answer to a ping that asks whether a full JID is there.
    pub(super) fn answer_probe(&mut self, from: &str, error: Option<Condition>) {
        let from: Jid = from.parse().unwrap();
        self.take(Input::Stanza(Incoming::Answer(Answer { from, id: PROBE_ID.to_owned(), error })));
    }

    /// The store knows of nobody who was seen lately.
    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// Time passes, and the tick is late.
    pub(super) fn stand_still(&mut self, time: Duration) {
        self.monotonic += time;
        self.wall += time;
    }

    /// A registration ends without this process.
    pub(super) fn end_registration(&mut self, registration: RegistrationId) {
        if let Some(row) = self.rows.get_mut(&registration) {
            row.revoked = true;
        }
    }

    /// Takes an input behind those that are being taken, however many follow from one.
    fn take(&mut self, input: Input) {
        self.inputs.push_back(input);
        if !std::mem::replace(&mut self.is_taking, true) {
            while let Some(input) = self.inputs.pop_front() {
                self.take_one(input);
            }
            self.is_taking = false;
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.wall, least: self.wall, monotonic: self.monotonic, leased: self.leased }
    }

    fn take_one(&mut self, input: Input) {
        // No two events come at one moment.
        self.wall += Duration::from_millis(1);
        let is_tick = matches!(input, Input::Tick);
        let overdue = if self.strict && is_tick { self.overdue() } else { Vec::new() };
        match &input {
            Input::Stanza(Incoming::Answer(answer)) => self.hear(answer),
            Input::Settled(notes) => self.note_told(notes),
            _ => {}
        }
        let mut actions = Vec::new();
        self.core.handle(input, self.now(), &mut actions);
        let sent: Vec<_> = actions.iter().filter_map(|action| self.read_sent(action)).collect();
        if self.strict {
            self.hear_nothing(overdue);
            self.check_sent(&sent);
        }
        self.sent.extend(sent);
        for action in actions {
            match action {
                Action::Send(..) | Action::Reply(_) => {}
                Action::Start(job) => self.do_job(job),
                Action::Finish => self.finished = true,
                Action::Count(measure) => self.measured.push(measure),
            }
        }
        self.serve_queue();
    }

    /// Reads what goes out: the push, and to whom it goes; `None`: it is a ping, or nothing goes out.
    fn read_sent(&self, action: &Action) -> Option<(MessageId, String)> {
        let Action::Send(stream, xml) = action else { return None };
        assert!(self.leased, "nothing goes out without the lease: {xml}");
        assert_eq!(self.ending_since, None, "nothing goes out after a stop began: {xml}");
        assert_eq!(*stream, StreamNumber::number(self.streams), "nothing goes out on an old stream");
        let attribute =
            |name: &str| xml.split(&format!("{name}='")).nth(1).unwrap().split('\'').next().unwrap();
        let id = MessageId::parse(attribute(" id"))?;
        assert!(self.core.admits(&attribute(" to").parse().unwrap()), "nothing goes out to the unlisted");
        Some((id, attribute(" to").to_owned()))
    }
}
