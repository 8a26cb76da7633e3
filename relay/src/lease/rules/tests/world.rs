//! The candidates, the store between them, and the events that happen to them.

use super::{
    candidate::{Call, Candidate, Rate, Request, State, Way},
    *,
};

/// Number of candidates.
pub(super) const CANDIDATES: usize = 3;
pub(super) const STEP_MILLISECONDS: u64 = 200;

/// An event, with the index of the candidate that it happens to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// This many milliseconds pass.
    Pass(u64),
    /// Each candidate does what it would do next, and a second passes.
    Round,
    /// This many rounds pass.
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

pub(super) struct World {
    pub(super) now: Duration,
    store: Option<Tenure>,
    pub(super) candidates: Vec<Candidate>,
    /// Requests that nobody waits for any more.
    given_up: Vec<(Holder, Request)>,
    /// The last time at which each candidate could send.
    sent: [Option<Duration>; CANDIDATES],
    born: u8,
    pub(super) elections: usize,
}

impl World {
    pub(super) fn new(rates: &[Rate]) -> Self {
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

    /// Carries out a request as [`push::ports::Lease`] promises.
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

    pub(super) fn happen(&mut self, event: Event) {
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

    /// Checks that nobody may send while another may, or until `margin` after that: what left by then is still on its
    /// way.
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

    pub(super) fn run(&mut self, events: &[Event], margin: Duration) -> Result<(), TestCaseError> {
        for event in events {
            // Time passes in steps, so that `sent` is exact to one of them.
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
    /// Returns the events of a call to the store by this way.
    pub(super) fn call(self, index: usize) -> Vec<Event> {
        match self {
            Self::Open => vec![Event::Act(index), Event::Reach(index), Event::Answer(index)],
            Self::AnswersAreLost => vec![Event::Act(index), Event::Reach(index), Event::Fail(index)],
            Self::Cut => vec![Event::Act(index), Event::Fail(index)],
        }
    }
}
