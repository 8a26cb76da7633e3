//! Runs a plan: one loop has the XMPP server, the phones and the senders, and the relays run beside it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_xmpp::jid::FullJid;

use crate::{
    calls::Shared,
    chance::Chance,
    phone::Phone,
    pipe::Hub,
    plan::{Fault, Plan, STORM, Step, Temper},
    relays,
    sender::{self, Sender},
    server::{Effect, Server, Up},
};

/// Interval between two checks of the invariants.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Most time after the storm until the queue and the mailboxes are empty.
const DRAIN_MAX: Duration = Duration::from_secs(40 * 60);
/// Time that a stanza of the component to itself takes through the server.
const ECHO_AFTER: Duration = Duration::from_millis(1);
/// Time after the storm by which all phones have come back.
const BACK_AFTER: Duration = Duration::from_secs(40);
/// Most time until a relay that runs has written down which full JIDs of an account it has seen.
const WRITTEN_DOWN_AFTER: Duration = Duration::from_secs(75);

/// An event of a run.
#[derive(Debug)]
pub(crate) enum Event {
    Step(usize, Step),
    /// A stanza arrives at a phone.
    Arrive(FullJid, u64, u64),
    Acknowledge(FullJid, u64, u64),
    /// A phone sends a stanza in this session.
    Say(usize, u64, Up),
    /// A stanza of a phone arrives at the server.
    Hear(FullJid, u64, Up),
    /// A session is forgotten, if it hibernates since this break of its connection.
    Forget(FullJid, u64),
    /// A phone registers an application.
    Register(usize, usize),
    Post(usize, usize),
    /// An application server learns of an endpoint.
    Learn(u64, u64, String),
    Fault(Fault),
    Echo(String),
    PortOpens,
    Resume(usize),
    Check,
    Calm,
    Back(usize),
}

/// A run and its actors.
pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) server: Server,
    pub(crate) phones: Vec<Phone>,
    pub(crate) senders: Vec<Sender>,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    pub(crate) chance: Chance,
    posts: JoinSet<Option<sender::Refused>>,
    pub(crate) calm: bool,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let shared = Shared::new(plan.clone());
        let hub = Arc::<Hub>::default();
        hub.open(true);
        let mut world = Self {
            server: Server::new(Arc::clone(&shared), Arc::clone(&hub)),
            phones: plan.phones.iter().map(|phone| Phone::new(phone.clone(), plan.seed)).collect(),
            senders: plan.senders.iter().map(|sender| Sender::new(sender, plan.seed)).collect(),
            events: BTreeMap::new(),
            count: 0,
            chance: Chance::of(plan.seed, 1 << 21),
            posts: JoinSet::new(),
            calm: false,
            shared,
            hub,
        };
        for (at, phone) in plan.phones.iter().enumerate() {
            phone.steps.iter().for_each(|(when, step)| world.at(*when, Event::Step(at, *step)));
        }
        for (at, sender) in plan.senders.iter().enumerate() {
            sender.posts.iter().enumerate().for_each(|(post, plan)| world.at(plan.at, Event::Post(at, post)));
        }
        plan.faults.iter().for_each(|(when, fault)| world.at(*when, Event::Fault(*fault)));
        world.at(STORM, Event::Calm);
        world.at(CHECK_INTERVAL, Event::Check);
        world
    }

    /// Schedules an event for a moment of the simulated time.
    pub(crate) fn at(&mut self, when: Duration, event: Event) {
        self.count += 1;
        self.events.insert((when, self.count), event);
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.shared.now() + delay, event);
    }

    /// Runs a plan to its end, or to the first violation.
    pub(crate) async fn run(plan: &Plan) -> Arc<Shared> {
        let mut world = Self::new(plan);
        let mut processes = JoinSet::new();
        for process in 0..plan.relays {
            processes.spawn(relays::keep_running(Arc::clone(&world.shared), Arc::clone(&world.hub), process));
        }
        while !world.is_over() {
            if let Some(ended) = processes.try_join_next() {
                let at = world.shared.now();
                world.shared.lock().ledger.violate("no process panics", at, format!("{ended:?}"));
            }
            world.server.read();
            world.carry_out();
            world.take_posts();
            let now = world.shared.now();
            if let Some(first) = world.events.first_entry()
                && first.key().0 <= now
            {
                let event = first.remove();
                world.take(event);
                world.carry_out();
                continue;
            }
            let Some(((next, _), _)) = world.events.first_key_value() else { break };
            let next = world.shared.start + *next;
            tokio::select! {
                biased;
                () = world.hub.news.notified() => {}
                () = sleep_until(next) => {}
            }
        }
        Arc::clone(&world.shared)
    }

    fn is_over(&self) -> bool {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if state.ledger.violation.is_some() {
            return true;
        }
        if now < STORM + BACK_AFTER + Duration::from_secs(5) {
            return false;
        }
        let left = state.entries.ids().chain(state.mailboxes.ids()).next();
        match left {
            None if self.posts.is_empty() => true,
            Some(id) if now >= STORM + DRAIN_MAX => {
                let owed = state.ledger.pushes.get(&id).is_some_and(|push| push.promised_at.is_some());
                state.ledger.violate("it drains to nothing", now, format!("{id} is left (promised: {owed})"));
                true
            }
            _ => false,
        }
    }

    fn take_posts(&mut self) {
        while let Some(done) = self.posts.try_join_next() {
            if let Ok(Some(refused)) = done {
                self.senders[refused.sender].forget(&refused.token);
            }
        }
    }

    /// Carries out the effects that the server asks for.
    fn carry_out(&mut self) {
        while !self.server.effects.is_empty() {
            for effect in std::mem::take(&mut self.server.effects) {
                match effect {
                    Effect::Bring(jid, session, number) => self.bring(jid, session, number),
                    Effect::Echo(xml) => self.after(ECHO_AFTER, Event::Echo(xml)),
                    Effect::Link => self.note_link(),
                }
            }
        }
    }

    /// Sends a stanza on its way to a phone. It arrives after those that were sent before in the session.
    fn bring(&mut self, jid: FullJid, session: u64, number: u64) {
        let late = self.chance.millis(5, 60);
        let now = self.shared.now();
        let Some(one) = self.server.sessions.get_mut(&jid) else { return };
        one.last_at[0] = one.last_at[0].max(now + late) + Duration::from_micros(1);
        let when = one.last_at[0];
        self.at(when, Event::Arrive(jid, session, number));
    }

    /// Notes that a stream came up or went down: recent stanzas may have been forgotten with a stream or a relay.
    fn note_link(&mut self) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.ledger.note_trouble(now);
        if self.server.is_linked() {
            state.ledger.note_connected(now);
        }
        drop(state);
        for at in 0..self.phones.len() {
            let forgotten = self.phones[at].heard_at.is_none_or(|heard| now < heard + WRITTEN_DOWN_AFTER);
            if forgotten {
                self.phones[at].heard_at = None;
                self.set_ready(at, None);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Step(..) if self.calm => {}
            Event::Step(phone, step) => self.step(phone, step),
            Event::Arrive(jid, session, number) => self.arrive(&jid, session, number),
            Event::Acknowledge(jid, session, number) => self.server.acknowledge(&jid, session, number),
            Event::Say(phone, session, up) => self.say(phone, session, up),
            Event::Hear(jid, session, up) => self.hear(&jid, session, up),
            Event::Forget(jid, lost) => self.forget(&jid, lost),
            Event::Register(phone, app) => self.register(phone, app),
            Event::Post(sender, post) => self.post(sender, post),
            Event::Learn(account, application, token) => {
                let of = |sender: &&mut Sender| sender.is_of(account, application);
                self.senders.iter_mut().filter(of).for_each(|sender| sender.learn(&token));
            }
            Event::Fault(fault) => self.fail(fault),
            Event::Echo(xml) => drop(self.server.tell(&xml)),
            Event::PortOpens => self.hub.open(true),
            Event::Resume(process) => {
                self.shared.lock().processes[process].paused_until = None;
                self.server.stall(process, false);
            }
            Event::Check => {
                let at = self.shared.now();
                let wall = self.shared.wall();
                // Pushes may be late unless there is exactly one stream.
                if !self.server.is_linked() {
                    self.shared.lock().ledger.note_trouble(at);
                }
                let mut state = self.shared.lock();
                state.check(at, wall);
                state.check_flight(&self.shared);
                state.check_following(&self.shared);
                state.check_leaving(&self.shared);
                state.check_sweep(&self.present(), &self.shared);
                drop(state);
                self.after(CHECK_INTERVAL, Event::Check);
            }
            Event::Calm => self.calm_down(),
            Event::Back(phone) => self.come_back(phone),
        }
    }

    /// Returns the full JIDs of phones that are there and answer all pushes, each with the moment since which it does.
    fn present(&self) -> BTreeMap<FullJid, Duration> {
        let answers = self.phones.iter().filter(|phone| {
            phone.online
                && matches!(phone.temper, Temper::Answers(_))
                && phone.apps.iter().all(|app| app.held)
        });
        answers.filter_map(|phone| Some((phone.jid(), phone.answers_since?))).collect()
    }

    fn post(&mut self, sender: usize, post: usize) {
        let plan = self.senders[sender].plan.posts[post];
        if let Some(token) = self.senders[sender].endpoint.clone() {
            let chance = self.senders[sender].chance.bytes();
            let shared = Arc::clone(&self.shared);
            self.posts.spawn(sender::post(shared, sender, token, plan, chance));
        }
    }

    /// Ends the storm: faults end, and all phones come back.
    fn calm_down(&mut self) {
        self.calm = true;
        let mut state = self.shared.lock();
        (state.failing, state.locked) = (None, None);
        state.processes.iter_mut().for_each(|process| process.dies_in = None);
        drop(state);
        self.shared.note(format_args!("calm"));
        for phone in 0..self.phones.len() {
            let late = BACK_AFTER - Duration::from_secs(10) + self.chance.millis(0, 5000);
            self.after(late, Event::Back(phone));
        }
    }

    /// Returns whether a process is paused.
    pub(crate) fn is_paused(&self, process: usize) -> bool {
        self.shared.lock().processes[process].paused_until.is_some_and(|until| until > Instant::now())
    }
}
