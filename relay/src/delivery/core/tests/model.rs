//! Any order of events: nothing is lost, held twice or sent where it must not be, and all of it drains in the end.

use proptest::prelude::*;
use push::{
    Topic, Urgency,
    message::{Ttl, Wishes},
};

use super::*;

mod crowd;

const JIDS: [&str; 5] = [
    "alice@example.com/1",
    "alice@example.com/2",
    "alice@example.com/3",
    "bob@example.com/1",
    "eve@example.org/1",
];

const URGENCIES: [Urgency; 4] = [Urgency::High, Urgency::Normal, Urgency::Low, Urgency::VeryLow];

#[derive(Debug, Clone)]
enum Step {
    Register(usize, u8),
    /// So many pushes come at once, all with these wishes.
    Post(u8, Wishes, usize),
    /// Some push that went out is answered, by the full JID that it went to.
    Answer(usize, Option<Condition>),
    /// It is answered by somebody else.
    AnswerOfAnother(usize, usize),
    Greet(usize),
    Leave(usize),
    Pass(u64),
    Reconnect,
    Restart,
    Stop,
    /// The lease lapses, or is renewed after it has lapsed.
    Lease(bool),
    LoseLease,
    /// The access list admits everyone, or none of them.
    Admit(bool),
}

/// `short` lives for so many seconds.
fn wishes(short: u32) -> impl Strategy<Value = Wishes> {
    let ttl = prop_oneof![8 => Just(86_400), 1 => Just(short), 1 => Just(0)];
    let urgency = prop_oneof![3 => Just(Urgency::Normal), 2 => prop::sample::select(&URGENCIES[..])];
    let topic =
        prop_oneof![3 => Just(None), 1 => prop::sample::select(&["a", "b"][..]).prop_map(Topic::parse)];
    (ttl, urgency, topic).prop_map(|(ttl, urgency, topic)| Wishes {
        ttl: Ttl::from_seconds(ttl),
        urgency,
        topic,
    })
}

fn step(short: u32) -> impl Strategy<Value = Step> {
    let answer = prop_oneof![5 => Just(None), 2 => Just(OFFLINE), 1 => Just(GONE)];
    prop_oneof![
        2 => (0..JIDS.len(), 0u8..3).prop_map(|(jid, app)| Step::Register(jid, app)),
        8 => (0u8..6, wishes(short), prop_oneof![9 => Just(1), 1 => 2usize..24])
            .prop_map(|(app, wishes, count)| Step::Post(app, wishes, count)),
        8 => (any::<prop::sample::Index>(), answer).prop_map(|(at, answer)| Step::Answer(at.index(1 << 20), answer)),
        1 => (any::<prop::sample::Index>(), 0..JIDS.len())
            .prop_map(|(at, jid)| Step::AnswerOfAnother(at.index(1 << 20), jid)),
        3 => (0..JIDS.len()).prop_map(Step::Greet),
        2 => (0..JIDS.len()).prop_map(Step::Leave),
        3 => (1u64..40).prop_map(Step::Pass),
        1 => Just(Step::Reconnect),
        1 => prop_oneof![Just(Step::Restart), Just(Step::Stop), Just(Step::LoseLease)],
        1 => prop_oneof![Just(Step::Lease(false)), Just(Step::Lease(true))],
        1 => any::<bool>().prop_map(Step::Admit),
    ]
}

struct Run {
    world: World,
    apps: Vec<RegistrationId>,
    /// Pushes that went out, each with its full JID.
    out: Vec<(MessageId, String)>,
    posted: Vec<(MessageId, RegistrationId)>,
}

impl Run {
    fn of(mut world: World, steps: Vec<Step>) {
        world.strict = true;
        let mut run = Self { world, apps: Vec::new(), out: Vec::new(), posted: Vec::new() };
        for step in steps {
            run.take(step);
            run.check();
        }
        run.drain();
    }

    fn take(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            // The next process counts those that are made during a stop: until then, a domain may have more than it may.
            Step::Register(jid, app) if world.ending_since.is_none() => {
                let app = world.register(JIDS[jid], app);
                if !self.apps.contains(&app) && world.has_stored(app) {
                    self.apps.push(app);
                }
            }
            Step::Post(at, wishes, count) if !self.apps.is_empty() => {
                let app = self.apps[usize::from(at) % self.apps.len()];
                for _ in 0..count {
                    if world.lives(app) {
                        self.posted.push((world.post_with(app, wishes.clone()), app));
                    }
                }
            }
            Step::Answer(at, answer) if !self.out.is_empty() => {
                let (push, to) = self.out.swap_remove(at % self.out.len());
                let in_time = world.is_asked(push, &to);
                world.answer(push, &to, answer);
                if answer.is_none() && in_time {
                    let stored = world.is_queued(push) || world.mailbox.contains_key(&push);
                    assert!(!stored, "{push} was taken by {to}, and is not settled");
                }
            }
            Step::AnswerOfAnother(at, jid) if !self.out.is_empty() => {
                let (push, to) = self.out[at % self.out.len()].clone();
                return self.answer_of_another(push, &to, JIDS[jid]);
            }
            Step::Greet(jid) => world.greet(JIDS[jid]),
            Step::Leave(jid) => world.leave(JIDS[jid]),
            // The registrations are counted anew for another list, which waits for the lease.
            Step::Admit(all) if world.leased => world.admit(if all { "*" } else { "elsewhere.example" }),
            Step::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
            Step::Reconnect => {
                self.out.clear();
                world.disconnect();
                world.connect();
            }
            Step::Restart => {
                self.out.clear();
                world.restart();
            }
            Step::Stop => {
                let waits = world.core().in_flight > 0;
                world.stop();
                assert_eq!(world.finished, !waits, "a stop waits for the answers to what is in flight");
            }
            Step::Lease(leased) if world.ending_since.is_none() => world.leased = leased,
            Step::LoseLease => {
                world.lose_lease();
                assert!(world.finished, "a process that has lost its lease waits for nothing");
            }
            _ => {}
        }
        self.note_sent();
    }

    fn note_sent(&mut self) {
        self.out.extend(self.world.take_sent());
        if self.world.finished {
            self.take_over();
        }
    }

    /// Somebody of another account answers, which changes nothing.
    fn answer_of_another(&mut self, push: MessageId, to: &str, other: &str) {
        let account = |jid: &str| jid.split('/').next().unwrap().to_owned();
        if account(to) == account(other) {
            return;
        }
        let named = self.posted.iter().find(|(id, _)| *id == push).map(|(_, app)| *app);
        let row = |world: &World| named.map(|app| (world.names(app), world.lives(app)));
        let stored = |world: &World| (world.mailbox.contains_key(&push), world.is_queued(push), row(world));
        let before = stored(&self.world);
        self.world.answer(push, other, None);
        self.world.answer(push, other, GONE);
        assert_eq!(before, stored(&self.world), "{other} has answered for {to}");
        self.note_sent();
    }

    /// A process has come to its end, and another one begins.
    fn take_over(&mut self) {
        self.check();
        self.world.check_end();
        self.out.clear();
        self.world.restart();
        self.out.extend(self.world.take_sent());
    }

    /// Checks the invariants that hold after every step.
    fn check(&self) {
        let core = self.world.core();
        let asks = core.pushes.values().map(|push| push.asks.len()).sum::<usize>();
        assert_eq!(asks, core.in_flight);
        let of_accounts = core.accounts.values().map(|account| account.in_flight).sum::<usize>();
        assert_eq!(of_accounts, core.in_flight);
        let mut loads = loads::Loads::default();
        for push in core.pushes.values() {
            let domain = push.held.message.recipient.domain().as_str();
            loads.hold(domain);
            push.asks.iter().for_each(|_| loads.send(domain));
        }
        assert_eq!(format!("{loads:?}"), format!("{:?}", core.loads));
        for (id, push) in &core.pushes {
            assert!(!push.asks.is_empty() || !push.lines.is_empty(), "{id} is held by nobody");
            for jid in &push.lines {
                let phone = &core.accounts[&jid.to_bare()].phones[jid];
                assert!(phone.line.ids().any(|other| other == *id), "{id} is in the line that it names");
            }
            let distinct: BTreeSet<_> = push.lines.iter().collect();
            assert_eq!(distinct.len(), push.lines.len(), "{id} is in each line once: {push:?}");
        }
        let in_line = core.accounts.values().flat_map(|account| account.phones.values());
        let in_line = in_line.map(|phone| phone.line.ids().count()).sum::<usize>();
        assert_eq!(in_line, core.pushes.values().map(|push| push.lines.len()).sum::<usize>());
        // Everything is in the queue or in the mailbox until it is over.
        for (id, app) in &self.posted {
            let stored = self.world.mailbox.contains_key(id) || self.world.is_queued(*id);
            let over = self.world.delivered.contains(id)
                || self.world.dropped.contains(id)
                || self.world.replaced.contains(id)
                || self.world.has_expired(*id)
                || !self.world.lives(*app)
                || self.world.began_anew(*app, *id);
            assert!(stored || over, "{id} is lost");
        }
        self.world.check_places();
        match self.world.ending_since {
            None => {
                let readings = core.accounts.values().map(|account| account.readings).sum::<usize>();
                assert_eq!((readings, core.stale), (core.readings, 0));
                self.world.check_bounds();
                self.world.check_what_waits();
                self.world.check_names();
            }
            Some(since) => self.world.check_ending(since),
        }
    }

    /// From now on everyone is there and takes what is theirs.
    fn drain(&mut self) {
        if self.world.ending_since.is_some() {
            self.world.pass(Duration::from_secs(9));
            self.take_over();
        }
        self.world.leased = true;
        self.world.admit("*");
        for _ in 0..60 {
            self.world.purge();
            JIDS.iter().for_each(|jid| self.world.greet(jid));
            self.world.pass(Duration::from_secs(5));
            loop {
                let sent = self.world.take_sent();
                if sent.is_empty() {
                    break;
                }
                sent.iter().for_each(|(push, to)| self.world.answer(*push, to, None));
                self.check();
            }
            if self.world.is_settled() {
                return;
            }
        }
        panic!("what is left does not drain: {:#?}", self.world.rest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_and_all_drains(steps in prop::collection::vec(step(20), 1..150)) {
        Run::of(World::online(), steps);
    }

    /// Trims drop pushes of the fullest account, and nothing else is lost. The counts are exact while nothing expires.
    #[test]
    fn no_domain_has_more_than_its_bounds(steps in prop::collection::vec(step(86_400), 1..150)) {
        Run::of(World::bounded(DomainBounds { registrations: 5, mailbox: 4 }), steps);
    }
}
