//! A model of the lease: candidates by these rules, each with a clock of its own, and a store whose requests are
//! delayed, carried out late, and answered or not.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;

const CANDIDATES: usize = 3;

/// How a candidate's clock goes.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// The time that it shows at the beginning.
    offset: Duration,
    /// How fast it goes, in percent.
    percent: u32,
    /// It stands still while its machine is suspended.
    stops: bool,
}

impl Rate {
    fn advance(self, shown: &mut Moment, passed: Duration, suspended: bool) {
        if !(suspended && self.stops) {
            *shown += passed * self.percent / 100;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Look,
    Take(Option<Tenure>),
}

/// A request, and what the store has said to it, if it got there.
#[derive(Debug, Clone, Copy)]
struct Call {
    request: Request,
    asked: Moment,
    answer: Option<Option<Tenure>>,
}

#[derive(Debug)]
enum State {
    /// The lease is to be taken as it was seen.
    Taking(Option<Tenure>),
    Waiting,
    Holding(Holding),
}

/// The way to the store.
#[derive(Debug, Clone, Copy)]
enum Way {
    Open,
    AnswersAreLost,
    Cut,
}

#[derive(Debug)]
struct Candidate {
    holder: Holder,
    rate: Rate,
    shows: Moment,
    /// The machine is suspended: nothing moves.
    suspended: bool,
    way: Way,
    waiting: Waiting,
    state: State,
    /// The request whose answer it waits for.
    call: Option<Call>,
}

impl Candidate {
    fn may_send(&self) -> bool {
        matches!(&self.state, State::Holding(holding) if self.shows < holding.end())
    }

    fn is_over(&self) -> bool {
        matches!(&self.state, State::Holding(holding) if holding.step(self.shows) == Step::Lost)
    }

    /// Asks the store for the next thing, if it waits for nothing.
    fn act(&mut self) {
        if self.suspended || self.call.is_some() {
            return;
        }
        let request = match &self.state {
            State::Waiting => Request::Look,
            State::Taking(seen) => Request::Take(*seen),
            State::Holding(holding) => match holding.step(self.shows) {
                Step::Wait(_) => return,
                Step::Renew(tenure) => Request::Take(Some(tenure)),
                Step::Look => Request::Look,
                Step::Lost => return self.start_again(),
            },
        };
        self.call = Some(Call { request, asked: self.shows, answer: None });
    }

    /// As after the loss of the lease.
    fn start_again(&mut self) {
        self.state = State::Waiting;
        self.waiting = Waiting::new(self.holder);
    }

    fn take_answer(&mut self, call: Call, answer: Result<Option<Tenure>, NoAnswer>) {
        match (&mut self.state, call.request) {
            (State::Holding(holding), Request::Take(_)) => holding.note_renewal(answer, call.asked),
            (State::Holding(holding), Request::Look) => holding.note_look(answer, call.asked),
            (_, Request::Look) => {
                if let Ok(tenure) = answer
                    && let Look::Free(seen) = self.waiting.look(tenure, self.shows)
                {
                    self.state = State::Taking(seen);
                }
            }
            (state, Request::Take(_)) => {
                *state = match answer {
                    Ok(Some(tenure)) => State::Holding(Holding::new(self.holder, tenure, call.asked)),
                    _ => State::Waiting,
                };
            }
        }
    }
}

/// The next event, and the candidate that it happens to.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// So many milliseconds pass.
    Pass(u64),
    /// Each candidate does what it would do next, and a second passes.
    Round,
    /// The same, so often.
    Rounds(usize),
    Way(usize, Way),
    Act(usize),
    /// The request reaches the store.
    Reach(usize),
    /// An answer arrives, if there is one.
    Answer(usize),
    /// The candidate is told of an error, whatever becomes of its request.
    Fail(usize),
    /// A request that was given up is carried out after all.
    Late(usize),
    Suspend(usize),
    Resume(usize),
    /// The process dies, and another begins in its place.
    Crash(usize),
}

struct World {
    now: Duration,
    store: Option<Tenure>,
    candidates: Vec<Candidate>,
    /// Requests that nobody waits for any more.
    given_up: Vec<(Holder, Request)>,
    /// When each candidate could send last.
    sent: [Option<Duration>; CANDIDATES],
    born: u8,
    elections: usize,
}

impl World {
    fn new(rates: &[Rate]) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            store: None,
            candidates: Vec::new(),
            given_up: Vec::new(),
            sent: [None; CANDIDATES],
            born: 0,
            elections: 0,
        };
        for rate in rates {
            let candidate = world.candidate(*rate, rate.offset);
            world.candidates.push(candidate);
        }
        world
    }

    fn candidate(&mut self, rate: Rate, shows: Moment) -> Candidate {
        self.born = self.born.wrapping_add(1);
        let holder = Holder([self.born; 16]);
        let (waiting, state) = (Waiting::new(holder), State::Waiting);
        Candidate { holder, rate, shows, suspended: false, way: Way::Open, waiting, state, call: None }
    }

    /// As [`push::ports::Lease`] promises.
    fn ask(&mut self, holder: Holder, request: Request) -> Option<Tenure> {
        match request {
            Request::Look => self.store,
            Request::Take(seen) if seen == self.store => {
                let count = seen.map_or(0, |tenure| tenure.count) + 1;
                self.store = Some(Tenure { holder: Some(holder), count });
                self.store
            }
            Request::Take(_) => None,
        }
    }

    fn give_up(&mut self, index: usize) -> Option<Call> {
        let candidate = &mut self.candidates[index];
        let call = candidate.call.take()?;
        if call.answer.is_none() {
            self.given_up.push((candidate.holder, call.request));
        }
        Some(call)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass(milliseconds) => {
                let passed = Duration::from_millis(milliseconds);
                self.now += passed;
                for candidate in &mut self.candidates {
                    candidate.rate.advance(&mut candidate.shows, passed, candidate.suspended);
                }
            }
            Event::Act(index) => {
                let candidate = &self.candidates[index];
                if !candidate.suspended && candidate.is_over() {
                    // A candidate that has lost the lease waits for no answer.
                    self.give_up(index);
                }
                self.candidates[index].act();
            }
            Event::Reach(index) => {
                let candidate = &self.candidates[index];
                if let Some(Call { request, answer: None, .. }) = candidate.call {
                    let answer = self.ask(candidate.holder, request);
                    if let Some(call) = &mut self.candidates[index].call {
                        call.answer = Some(answer);
                    }
                }
            }
            Event::Answer(index) => {
                let candidate = &mut self.candidates[index];
                if let Some(call) = candidate.call.filter(|_| !candidate.suspended)
                    && let Some(answer) = call.answer
                {
                    candidate.call = None;
                    let held = matches!(candidate.state, State::Holding(_));
                    candidate.take_answer(call, Ok(answer));
                    self.elections += usize::from(!held && candidate.may_send());
                }
            }
            Event::Fail(index) if !self.candidates[index].suspended => {
                if let Some(call) = self.give_up(index) {
                    self.candidates[index].take_answer(call, Err(NoAnswer));
                }
            }
            Event::Late(which) if !self.given_up.is_empty() => {
                let (holder, request) = self.given_up.swap_remove(which % self.given_up.len());
                self.ask(holder, request);
            }
            Event::Suspend(index) => self.candidates[index].suspended = true,
            Event::Resume(index) => self.candidates[index].suspended = false,
            Event::Crash(index) => {
                self.give_up(index);
                let Candidate { rate, shows, .. } = self.candidates[index];
                self.candidates[index] = self.candidate(rate, shows);
                self.sent[index] = None;
            }
            Event::Way(index, way) => self.candidates[index].way = way,
            Event::Round | Event::Rounds(_) | Event::Fail(_) | Event::Late(_) => {}
        }
    }

    /// Nobody may send while another may, nor for `margin` after that: what left by then is still on its way.
    fn check(&mut self, margin: Duration) -> Result<(), TestCaseError> {
        for index in 0..CANDIDATES {
            if !self.candidates[index].may_send() {
                continue;
            }
            for (other, sent) in self.sent.iter().enumerate() {
                if let Some(sent) = sent.filter(|_| other != index) {
                    prop_assert!(
                        self.now >= sent + margin,
                        "{index} may send {:?} after {other}",
                        self.now.saturating_sub(sent)
                    );
                }
            }
            self.sent[index] = Some(self.now);
        }
        Ok(())
    }

    fn run(&mut self, events: &[Event], margin: Duration) -> Result<(), TestCaseError> {
        for event in events {
            // In steps, so that `sent` is exact to one of them.
            match *event {
                Event::Pass(milliseconds) => {
                    for _ in 0..milliseconds.div_ceil(STEP_MILLISECONDS) {
                        self.happen(Event::Pass(STEP_MILLISECONDS));
                        self.check(margin)?;
                    }
                }
                Event::Round => {
                    for index in 0..CANDIDATES {
                        self.run(&self.candidates[index].way.call(index), margin)?;
                    }
                    self.run(&[Event::Pass(1000)], margin)?;
                }
                Event::Rounds(count) => self.run(&vec![Event::Round; count], margin)?,
                event => {
                    self.happen(event);
                    self.check(margin)?;
                }
            }
        }
        Ok(())
    }
}

impl Way {
    /// A call to the store by this way.
    fn call(self, index: usize) -> Vec<Event> {
        match self {
            Self::Open => vec![Event::Act(index), Event::Reach(index), Event::Answer(index)],
            Self::AnswersAreLost => vec![Event::Act(index), Event::Reach(index), Event::Fail(index)],
            Self::Cut => vec![Event::Act(index), Event::Fail(index)],
        }
    }
}

const STEP_MILLISECONDS: u64 = 200;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = || 0..CANDIDATES;
    let way = prop::sample::select(vec![Way::Open, Way::Open, Way::AnswersAreLost, Way::Cut]);
    let event = prop_oneof![
        12 => Just(Event::Round),
        3 => (2usize..20).prop_map(Event::Rounds),
        6 => (who(), way).prop_map(|(index, way)| Event::Way(index, way)),
        3 => (1u64..10).prop_map(|steps| Event::Pass(steps * STEP_MILLISECONDS)),
        4 => who().prop_map(Event::Act),
        4 => who().prop_map(Event::Reach),
        4 => who().prop_map(Event::Answer),
        1 => who().prop_map(Event::Fail),
        2 => who().prop_map(Event::Late),
        1 => who().prop_map(Event::Suspend),
        2 => who().prop_map(Event::Resume),
        1 => who().prop_map(Event::Crash),
    ];
    prop::collection::vec(event, 1..150)
}

fn rates(percent: std::ops::RangeInclusive<u32>, stops: bool) -> impl Strategy<Value = Vec<Rate>> {
    let rate = (0u64..1_000_000, percent).prop_map(move |(offset, percent)| Rate {
        offset: Duration::from_secs(offset),
        percent,
        stops,
    });
    prop::collection::vec(rate, CANDIDATES)
}

/// A step of time within which `sent` may be late.
const STEP: Duration = Duration::from_millis(STEP_MILLISECONDS);

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn two_never_may_send_whatever_their_clocks_show(rates in rates(100..=100, false), events in events()) {
        World::new(&rates).run(&events, MARGIN)?;
    }

    #[test]
    fn two_never_may_send_though_one_clock_goes_faster(rates in rates(98..=102, false), events in events()) {
        // 15 s by the fastest clock, less 14 s by the slowest.
        World::new(&rates).run(&events, Duration::from_millis(400))?;
    }

    #[test]
    fn one_is_elected_soon_once_the_store_answers(rates in rates(98..=102, false), events in events()) {
        let mut world = World::new(&rates);
        world.run(&events, MARGIN / 2)?;
        for index in 0..CANDIDATES {
            world.happen(Event::Resume(index));
            world.happen(Event::Way(index, Way::Open));
        }
        let deadline = world.now + 2 * LEASE + 4 * LOOK_INTERVAL;
        let (mut held_since, mut settled) = (None, false);
        while held_since.is_none_or(|since| world.now < since + 4 * LEASE) {
            world.run(&[Event::Pass(STEP_MILLISECONDS)], MARGIN / 2)?;
            for index in 0..CANDIDATES {
                world.run(&Way::Open.call(index), MARGIN / 2)?;
            }
            if held_since.is_none() && world.candidates.iter().any(Candidate::may_send) {
                held_since = Some(world.now);
            }
            // The first holder may have been about to lose it.
            if !settled && held_since.is_some_and(|since| world.now >= since + 2 * LEASE) {
                (settled, world.elections) = (true, 0);
            }
            prop_assert!(held_since.is_some() || world.now < deadline, "nobody is elected");
        }
        prop_assert_eq!(world.elections, 0, "whoever can renew the lease keeps it");
    }
}

/// The model is able to find that two may send.
#[test]
fn a_clock_that_stops_in_a_suspend_would_let_two_send() {
    let mut runner = TestRunner::new(Config { cases: 5_000, failure_persistence: None, ..Config::default() });
    let found = runner
        .run(&(rates(100..=100, true), events()), |(rates, events)| World::new(&rates).run(&events, STEP));
    assert!(found.is_err(), "no run of the model has found it");
}

#[test]
fn a_renewal_whose_answer_is_lost_is_found_by_a_look() {
    let (us, other) = (Holder([1; 16]), Holder([2; 16]));
    let second = Duration::from_secs(1);
    let tenure = |holder, count| Tenure { holder: Some(holder), count };
    let mut holding = Holding::new(us, tenure(us, 1), second);
    assert_eq!(holding.step(second), Step::Wait(6 * second));
    assert_eq!(holding.step(6 * second), Step::Renew(tenure(us, 1)));
    holding.note_renewal(Err(NoAnswer), 6 * second);
    assert_eq!(holding.step(6 * second), Step::Wait(7 * second));
    holding.note_renewal(Ok(None), 7 * second);
    assert_eq!(holding.step(7 * second), Step::Look);
    let mut taken = holding.clone();
    taken.note_look(Ok(Some(tenure(other, 2))), 7 * second);
    assert_eq!(taken.step(7 * second), Step::Lost);
    holding.note_look(Ok(Some(tenure(us, 2))), 7 * second);
    assert_eq!((holding.step(7 * second), holding.end()), (Step::Renew(tenure(us, 2)), 15 * second));
    holding.note_renewal(Ok(Some(tenure(us, 3))), 8 * second);
    assert_eq!((holding.step(8 * second), holding.end()), (Step::Wait(13 * second), 22 * second));
    assert_eq!(holding.step(22 * second), Step::Lost);
}
