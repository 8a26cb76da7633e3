//! A candidate of the model, its clock, and its way to the store.

use super::*;

/// The rate of a candidate's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// The time that the clock shows at the beginning.
    pub(super) offset: Duration,
    /// The speed of the clock, in percent.
    pub(super) percent: u32,
    /// True if the clock stands still while its machine is suspended.
    pub(super) stops: bool,
}

impl Rate {
    pub(super) fn advance(self, shown: &mut Moment, passed: Duration, suspended: bool) {
        if !(suspended && self.stops) {
            *shown += passed * self.percent / 100;
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    Look,
    Take(Option<Tenure>),
}

/// A request, and the store's answer, if the request got there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) asked: Moment,
    pub(super) answer: Option<Option<Tenure>>,
}

#[derive(Debug)]
pub(super) enum State {
    /// The lease is to be taken, if its tenure is still this one.
    Taking(Option<Tenure>),
    Waiting,
    Holding(Holding),
}

/// The way to the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Open,
    AnswersAreLost,
    Cut,
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) holder: Holder,
    pub(super) rate: Rate,
    pub(super) shows: Moment,
    /// True while the machine is suspended: nothing moves.
    pub(super) suspended: bool,
    pub(super) way: Way,
    pub(super) waiting: Waiting,
    pub(super) state: State,
    /// The request whose answer is awaited.
    pub(super) call: Option<Call>,
}

impl Candidate {
    pub(super) fn may_send(&self) -> bool {
        matches!(&self.state, State::Holding(holding) if self.shows < holding.sends_until())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(&self.state, State::Holding(holding) if holding.step(self.shows) == Step::Lost)
    }

    /// Makes the next request to the store, if none is unanswered.
    pub(super) fn act(&mut self) {
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

    /// Begins anew, as after the loss of the lease.
    pub(super) fn start_again(&mut self) {
        self.state = State::Waiting;
        self.waiting = Waiting::new(self.holder);
    }

    pub(super) fn take_answer(&mut self, call: Call, answer: Result<Option<Tenure>, NoAnswer>) {
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
