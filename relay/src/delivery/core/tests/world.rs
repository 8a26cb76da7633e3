//! What is around the core: a queue, registrations, mailboxes, a clock. Jobs are done at once.

use std::collections::BTreeMap;

use push::{
    MessageId, Registration, RegistrationId,
    ports::{self, Kept, Seen},
};

use super::*;
use crate::{
    delivery::{
        known::Knowledge,
        reading::{Cue, PAGE_MAX},
    },
    stream::{component::Session, stanza::Query},
};

/// See the module.
pub(super) struct World {
    core: Core,
    pub(super) wall: DateTime<Utc>,
    pub(super) monotonic: Instant,
    pub(super) leased: bool,
    session: u64,
    queue: BTreeMap<MessageId, PushMessage>,
    received: BTreeSet<MessageId>,
    pub(super) mailbox: BTreeMap<MessageId, (PushMessage, Option<DateTime<Utc>>)>,
    rows: BTreeMap<RegistrationId, Registration>,
    seen: BTreeMap<BareJid, Vec<Seen>>,
    receiving: Option<usize>,
    /// What went out and was not looked at.
    sent: Vec<(MessageId, String)>,
    posted: u32,
    /// The life that each push was posted to.
    epochs: BTreeMap<MessageId, Epoch>,
    pub(super) delivered: Vec<MessageId>,
    pub(super) pages: usize,
    pub(super) finished: bool,
}

fn core() -> Core {
    let terms = Terms {
        component: BareJid::new("notify.example.com").unwrap(),
        ack_timeout: Duration::from_secs(30),
        meter: None,
    };
    Core::new(terms, AccessList::Everyone)
}

impl World {
    pub(super) fn online() -> Self {
        let mut world = Self {
            core: core(),
            wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            monotonic: Instant::now(),
            leased: true,
            session: 0,
            queue: BTreeMap::new(),
            received: BTreeSet::new(),
            mailbox: BTreeMap::new(),
            rows: BTreeMap::new(),
            seen: BTreeMap::new(),
            receiving: None,
            sent: Vec::new(),
            posted: 0,
            epochs: BTreeMap::new(),
            delivered: Vec::new(),
            pages: 0,
            finished: false,
        };
        world.connect();
        world
    }

    pub(super) fn connect(&mut self) {
        self.session += 1;
        self.take(Input::Online(Session::number(self.session)));
    }

    pub(super) fn disconnect(&mut self) {
        self.sent.clear();
        self.take(Input::Offline);
    }

    /// Another process on the same stores.
    pub(super) fn restart(&mut self) {
        self.core = core();
        self.received.clear();
        self.receiving = None;
        self.sent.clear();
        self.connect();
    }

    pub(super) fn admit(&mut self, list: &str) {
        self.take(Input::Access(list.parse().unwrap()));
    }

    pub(super) fn stop(&mut self) {
        self.receiving = None;
        self.take(Input::Stop);
        self.take(Input::Received(Vec::new()));
    }

    pub(super) fn lose_lease(&mut self) {
        self.receiving = None;
        self.take(Input::LeaseLost);
        self.take(Input::Received(Vec::new()));
    }

    /// Lets time pass, a tick after the other.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.monotonic + time;
        while self.monotonic < end {
            self.monotonic += TICK;
            self.wall += TICK;
            self.take(Input::Tick);
            self.serve_queue();
        }
    }

    pub(super) fn register(&mut self, jid: &str, application: u8) -> RegistrationId {
        let target = Target {
            recipient: jid.parse().unwrap(),
            application: Application::from_bytes([application; 32]),
            instance: Instance::from_bytes([1; 32]),
            vapid: None,
            legacy: None,
        };
        let id = target.registration_id();
        let request = Request::new(jid.parse().unwrap(), "r".into(), Query::Register(Ok(Box::new(target))));
        self.take(Input::Stanza(Incoming::Request(request)));
        id
    }

    pub(super) fn greet(&mut self, jid: &str) {
        self.take(Input::Stanza(Incoming::Available(jid.parse().unwrap())));
    }

    pub(super) fn leave(&mut self, jid: &str) {
        self.take(Input::Stanza(Incoming::Unavailable(jid.parse().unwrap())));
    }

    /// An application server posts; the push is in the queue.
    pub(super) fn post(&mut self, registration: RegistrationId) -> MessageId {
        self.post_for(registration, 86_400)
    }

    pub(super) fn post_for(&mut self, registration: RegistrationId, ttl: u32) -> MessageId {
        self.posted += 1;
        // Ids order by the moment.
        self.wall += Duration::from_millis(1);
        let mut chance = [0; MessageId::CHANCE_BYTES];
        chance[4..].copy_from_slice(&self.posted.to_be_bytes());
        let wishes = Wishes { ttl: Ttl::from_seconds(ttl), urgency: Urgency::Normal, topic: None };
        let body = Body::from_bytes(b"x");
        let message = PushMessage::new(chance, &self.rows[&registration], wishes, body, self.wall);
        let id = message.id;
        self.epochs.insert(id, message.epoch);
        self.queue.insert(id, message);
        self.serve_queue();
        id
    }

    pub(super) fn answer(&mut self, push: MessageId, from: &str, error: Option<Condition>) {
        let from: Jid = from.parse().unwrap();
        self.take(Input::Stanza(Incoming::Answer(Answer { from, id: push.to_string(), error })));
    }

    pub(super) fn take_sent(&mut self) -> Vec<(MessageId, String)> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn waiting(&self) -> Vec<MessageId> {
        self.mailbox.keys().copied().collect()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_queued(&self, push: MessageId) -> bool {
        self.queue.contains_key(&push)
    }

    /// Whether a push was for a life of its registration that is over.
    pub(super) fn began_anew(&self, registration: RegistrationId, push: MessageId) -> bool {
        self.epochs.get(&push).is_some_and(|epoch| *epoch != self.rows[&registration].epoch)
    }

    /// What is left, for a failure's message.
    pub(super) fn rest(&self) -> Vec<String> {
        let held = self.core.pushes.iter().map(|(id, push)| format!("held {id} {push:?}"));
        let waiting = self.mailbox.values().map(|(push, asked)| {
            let row = &self.rows[&push.registration];
            let named = row.target.recipient.clone();
            let phone =
                self.core.accounts.get(&named.to_bare()).and_then(|account| account.phones.get(&named));
            format!(
                "waits {} for {named} (asked {asked:?}, {:?}): {phone:?}",
                push.id,
                self.core.known.of(&named)
            )
        });
        let queued =
            self.queue.keys().map(|id| format!("queued {id}, received: {}", self.received.contains(id)));
        held.chain(waiting).chain(queued).take(6).collect()
    }

    /// The core knows of all that waits and is not held, by the full JID that its registration names.
    pub(super) fn check_what_waits(&self) {
        for (message, asked_at) in self.mailbox.values() {
            let row = &self.rows[&message.registration];
            let core = &self.core;
            let over = !row.lives(self.wall) || row.epoch != message.epoch || message.is_expired(self.wall);
            if over || core.pushes.contains_key(&message.id) || core.settled.contains(&name(message)) {
                continue;
            }
            let named = &row.target.recipient;
            let found = core.known.of(named) != Some(Knowledge::Nothing)
                || core.phone(named).is_some_and(|phone| {
                    phone.is_reading()
                        || phone.retry.as_ref().is_some_and(|retry| retry.has_rejected(message.id))
                });
            assert!(found, "{} waits for {named} (asked {asked_at:?}), and nobody knows", message.id);
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.mailbox.is_empty() && self.core.pushes.is_empty()
    }

    pub(super) fn names(&self, registration: RegistrationId) -> String {
        self.rows[&registration].target.recipient.to_string()
    }

    pub(super) fn lives(&self, registration: RegistrationId) -> bool {
        self.rows[&registration].lives(self.wall)
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    fn serve_queue(&mut self) {
        let Some(max) = self.receiving else { return };
        let due = self.queue.iter().filter(|(id, _)| !self.received.contains(*id)).take(max);
        let due: Vec<PushMessage> = due.map(|(_, message)| message.clone()).collect();
        if !due.is_empty() {
            self.receiving = None;
            self.received.extend(due.iter().map(|message| message.id));
            self.take(Input::Received(due));
        }
    }

    fn take(&mut self, input: Input) {
        // No two events come at one moment.
        self.wall += Duration::from_millis(1);
        let now = Now { wall: self.wall, monotonic: self.monotonic, leased: self.leased };
        let mut actions = Vec::new();
        self.core.handle(input, now, &mut actions);
        for action in actions {
            match action {
                Action::Send(session, xml) => self.note_sent(session, &xml),
                Action::Start(job) => self.do_job(job),
                Action::Finish => self.finished = true,
                Action::Reply(_) | Action::Count(_) => {}
            }
        }
        self.serve_queue();
    }

    fn note_sent(&mut self, session: Session, xml: &str) {
        assert!(self.leased, "nothing goes out without the lease");
        assert_eq!(session, Session::number(self.session), "nothing goes out on an old stream");
        let attribute =
            |name: &str| xml.split(&format!("{name}='")).nth(1).unwrap().split('\'').next().unwrap();
        if let Some(id) = MessageId::parse(attribute(" id")) {
            self.sent.push((id, attribute(" to").to_owned()));
        }
    }

    fn do_job(&mut self, job: Job) {
        match job {
            Job::Receive(max) => self.receiving = Some(max),
            Job::Look(bare) => {
                let registrations = self
                    .rows
                    .values()
                    .filter(|row| row.target.recipient.to_bare() == bare && row.lives(self.wall));
                let registrations = registrations.cloned().collect();
                let seen = self.seen.get(&bare).cloned().unwrap_or_default();
                self.take(Input::Looked(bare, Some(ports::Account { registrations, seen })));
            }
            Job::Read(request) => self.read(&request),
            Job::Settle(fates) => {
                let notes = fates.into_iter().filter_map(|fate| self.settle(fate)).collect();
                self.take(Input::Settled(notes));
            }
            Job::Register(requests) => {
                let registered = requests.into_iter().map(|(request, _)| self.store(&request)).collect();
                self.take(Input::Registered(registered));
            }
            Job::Sweep(_) => {
                let waits: BTreeSet<_> =
                    self.mailbox.values().map(|(message, _)| message.registration).collect();
                let found = waits.iter().map(|id| self.rows[id].clone()).filter(|row| row.lives(self.wall));
                let found = found.collect();
                self.take(Input::Found(found, None));
            }
        }
    }

    fn store(&mut self, request: &Request) -> Registered {
        let Query::Register(Ok(target)) = &request.query else { panic!("a registration") };
        let id = target.registration_id();
        let row =
            Registration::renew(self.rows.get(&id), Target::clone(target), self.wall, TimeDelta::days(7));
        self.rows.insert(id, row.clone());
        Registered { reply: crate::stream::stanza::disco_items(), registration: Some(row) }
    }

    fn read(&mut self, request: &ReadRequest) {
        self.pages += 1;
        let account = request.reader.to_bare();
        let all = self.mailbox.values().filter(|(message, _)| {
            message.recipient.to_bare() == account
                && request.of.contains(&message.registration)
                && request.after.is_none_or(|after| message.id > after)
        });
        let read: Vec<_> = all.take(PAGE_MAX).cloned().collect();
        let mut page = Page {
            reader: request.reader.clone(),
            reading: request.reading,
            pushes: Vec::new(),
            upto: read.last().map_or(request.after, |(last, _)| Some(last.id)),
            left_out: false,
            end: read.len() < PAGE_MAX,
        };
        for (mut message, asked_at) in read {
            let row = &self.rows[&message.registration];
            if message.is_expired(self.wall) || !row.lives(self.wall) || row.epoch != message.epoch {
                self.mailbox.remove(&message.id);
            } else if request.cue == Cue::Guess
                && asked_at.is_some_and(|asked| self.wall - asked < TimeDelta::minutes(15))
            {
                page.left_out = true;
            } else {
                message.recipient = row.target.recipient.clone();
                page.pushes.push(message);
            }
        }
        self.take(Input::Page(page));
    }

    fn remove(&mut self, push: &Held) {
        let id = push.message.id;
        match push.origin {
            Origin::Queue => drop(self.queue.remove(&id)),
            Origin::Mailbox => drop(self.mailbox.remove(&id)),
        }
    }

    fn settle(&mut self, fate: Fate) -> Option<Note> {
        match fate {
            Fate::Done(push) => {
                if !push.message.is_expired(self.wall) {
                    self.delivered.push(push.message.id);
                }
                self.remove(&push);
                None
            }
            Fate::Keep { message, asked_at, untried, .. } => {
                self.queue.remove(&message.id)?;
                let row = &self.rows[&message.registration];
                if !row.lives(self.wall) || row.epoch != message.epoch {
                    return None;
                }
                let recipient = row.target.recipient.clone();
                self.mailbox.insert(message.id, (PushMessage::clone(&message), asked_at));
                Some(Note::Waits { message, recipient, untried, kept: Kept::default() })
            }
            Fate::Asked { message, asked_at } => {
                self.mailbox.get_mut(&message.id)?.1 = Some(asked_at);
                None
            }
            Fate::Postpone(id, _) => {
                self.received.remove(&id);
                None
            }
            Fate::Revoke { push, recipient, asked_at } => {
                let row = self.rows.get_mut(&push.message.registration)?;
                let goes_on = row.target.recipient != recipient || row.renewed_at > asked_at;
                if row.epoch == push.message.epoch && goes_on {
                    self.received.remove(&push.message.id);
                    let (registration, epoch) = (push.message.registration, row.epoch);
                    return Some(Note::Names(registration, epoch, row.target.recipient.clone()));
                }
                row.revoked |= row.epoch == push.message.epoch;
                let (account, registration) = (recipient.to_bare(), push.message.registration);
                self.remove(&push);
                let life = push.message.epoch;
                self.mailbox
                    .retain(|_, (message, _)| message.registration != registration || message.epoch > life);
                Some(Note::Ended(account, registration))
            }
            Fate::Late(account, id) => {
                if self.mailbox.get(&id).is_some_and(|(message, _)| message.recipient.to_bare() == account) {
                    self.mailbox.remove(&id);
                    self.delivered.push(id);
                }
                None
            }
            Fate::LateRevoke(..) | Fate::Throttle(..) => None,
            Fate::Follow { registration, epoch, from, to } => {
                let row = self.rows.get_mut(&registration)?;
                if row.epoch == epoch && row.target.recipient == from {
                    row.target.recipient = to;
                }
                Some(Note::Names(registration, row.epoch, row.target.recipient.clone()))
            }
            Fate::NoteSeen(account, seen) => {
                self.seen.insert(account, seen);
                None
            }
        }
    }
}
