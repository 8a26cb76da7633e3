//! The ledger of a run: every POST and its answer, every arrival, every life of a registration, and every
//! disturbance. Moments are times since the start.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::PushPlan;

pub(super) type Moment = Duration;

pub(super) struct Ledger {
    start: OnceLock<Instant>,
    records: Mutex<Records>,
}

#[derive(Default)]
pub(super) struct Records {
    pub(super) pushes: Vec<PushRecord>,
    pub(super) lives: Vec<Life>,
    pub(super) disturbances: Vec<Disturbance>,
    /// Observations that break a promise.
    pub(super) violations: Vec<String>,
}

pub(super) struct PushRecord {
    pub(super) plan: PushPlan,
    /// The life of the URL that it was sent to.
    pub(super) life: Option<usize>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) arrivals: Vec<Arrival>,
}

#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) begin: Moment,
    pub(super) end: Moment,
    pub(super) answer: PostAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PostAnswer {
    /// 201, with the TTL of the answer.
    Accepted(Duration),
    /// 410.
    Gone,
    /// The server was not even reached.
    Unreached,
    /// 503 and the like, or no answer: the push was not promised, but may have been accepted.
    Unsure(String),
}

#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) at: Moment,
    /// The id of the IQ.
    pub(super) id: String,
    pub(super) said: Said,
}

/// The answer of the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Result,
    ResultLater,
    Nothing,
    Busy,
    ItemNotFound,
}

/// A life of a registration: the time for which it has one URL.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phone: usize,
    pub(super) application: usize,
    pub(super) url: String,
    /// The moments at which the phone asked for the URL, the first time and each time that it got the same one.
    pub(super) renewals: Vec<Moment>,
    /// The moments at which the phone said that the application is gone.
    pub(super) refusals: Vec<Moment>,
    /// The first moment at which it was known to be over.
    pub(super) over: Option<Moment>,
}

/// An event that may delay a push, or have it delivered twice.
#[derive(Debug)]
pub(super) struct Disturbance {
    pub(super) what: &'static str,
    /// The phone; `None`: all phones.
    pub(super) phone: Option<usize>,
    pub(super) begin: Moment,
    /// The end; `None`: it goes on.
    pub(super) end: Option<Moment>,
}

/// Name of the disturbance of a phone that closed its stream, to come back later. It excuses no disorder among the
/// pushes that wait meanwhile.
pub(super) const AWAY: &str = "phone away";

impl Ledger {
    pub(super) fn new(pushes: impl Iterator<Item = PushPlan>) -> Self {
        let pushes = pushes
            .map(|plan| PushRecord { plan, life: None, attempts: Vec::new(), arrivals: Vec::new() })
            .collect();
        Self { start: OnceLock::new(), records: Mutex::new(Records { pushes, ..Records::default() }) }
    }

    /// Starts the clock of the run. Until then, `now` is 0.
    pub(super) fn start(&self) {
        self.start.set(Instant::now()).expect("there is one start");
    }

    pub(super) fn now(&self) -> Moment {
        self.start.get().map_or(Moment::ZERO, Instant::elapsed)
    }

    /// Returns the instant of a moment after the start.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        *self.start.get().expect("it has started") + moment
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no panic while held")
    }

    pub(super) fn violation(&self, what: String) {
        let at = self.now().as_secs_f64();
        self.records().violations.push(format!("at {at:.3}: {what}"));
    }

    /// Notes the arrival of a push at an application of a phone.
    pub(super) fn arrives(&self, push: usize, to: (usize, usize), id: &str, said: Said) {
        let at = self.now();
        let mut records = self.records();
        let Some(record) = records.pushes.get_mut(push).filter(|record| !record.attempts.is_empty()) else {
            records.violations.push(format!("push {push} arrives at phone {}, and nobody sent it", to.0));
            return;
        };
        record.arrivals.push(Arrival { at, id: id.to_owned(), said });
        let (life, plan) = (record.life, record.plan.clone());
        if (plan.phone, plan.application) != to {
            records.violations.push(format!("push {push} arrives at {to:?}, and was for {plan:?}"));
        }
        if let (Said::ItemNotFound, Some(life)) = (said, life) {
            records.lives[life].refusals.push(at);
        }
    }

    /// Notes that a push is about to be sent to this URL.
    pub(super) fn begins_to_send(&self, push: usize, url: &str) {
        let begin = self.now();
        let mut records = self.records();
        let life = records.lives.iter().position(|life| life.url == url);
        let record = &mut records.pushes[push];
        record.life = life;
        record.attempts.push(Attempt {
            begin,
            end: begin,
            answer: PostAnswer::Unsure("no answer yet".to_owned()),
        });
    }

    pub(super) fn is_answered(&self, push: usize, answer: PostAnswer) {
        let end = self.now();
        let mut records = self.records();
        let record = &mut records.pushes[push];
        let attempt = record.attempts.last_mut().expect("it was sent");
        (attempt.end, attempt.answer) = (end, answer.clone());
        let (begin, Some(life)) = (attempt.begin, record.life) else { return };
        match answer {
            PostAnswer::Gone => records.life_is_over(life, end, "its sender is told 410"),
            PostAnswer::Accepted(_) if records.lives[life].over.is_some_and(|over| over < begin) => {
                records.violations.push(format!("push {push} is accepted for a URL that was over"));
            }
            PostAnswer::Accepted(_) | PostAnswer::Unreached | PostAnswer::Unsure(_) => {}
        }
    }

    /// Notes the URL that a phone got for an application after it asked at that moment.
    pub(super) fn note_registered(&self, phone: usize, application: usize, asked: Moment, url: &str) {
        let now = self.now();
        let mut records = self.records();
        let same = |life: &Life| (life.phone, life.application) == (phone, application);
        let last = records.lives.iter().rposition(same);
        if let Some(last) = last.filter(|last| records.lives[*last].url == url) {
            let life = &mut records.lives[last];
            life.renewals.push(asked);
            if life.over.is_some() {
                records.violations.push(format!("phone {phone} got a URL again that was refused before"));
            }
            return;
        }
        if records.lives.iter().any(|life| life.url == url) {
            records.violations.push(format!("phone {phone} got a URL again that had been replaced"));
        }
        if let Some(last) = last {
            records.life_is_over(last, now, "the phone is given another URL");
        }
        let life = Life {
            phone,
            application,
            url: url.to_owned(),
            renewals: vec![asked],
            refusals: Vec::new(),
            over: None,
        };
        records.lives.push(life);
    }

    /// Notes the beginning of a disturbance, of one phone or of all. Returns its number for `is_over`.
    pub(super) fn is_disturbed(&self, phone: Option<usize>, what: &'static str) -> usize {
        let begin = self.now();
        let mut records = self.records();
        records.disturbances.push(Disturbance { what, phone, begin, end: None });
        records.disturbances.len() - 1
    }

    /// Notes a disturbance of all phones that began at that moment, and ends now.
    pub(super) fn was_disturbed(&self, what: &'static str, begin: Moment) {
        let end = Some(self.now());
        self.records().disturbances.push(Disturbance { what, phone: None, begin, end });
    }

    pub(super) fn is_over(&self, disturbance: usize) {
        let end = self.now();
        self.records().disturbances[disturbance].end = Some(end);
    }
}

impl Records {
    /// Notes that a life is over. This breaks a promise unless the phone refused a push after its last renewal.
    fn life_is_over(&mut self, life: usize, at: Moment, how: &str) {
        let life = &mut self.lives[life];
        if life.over.is_some() {
            return;
        }
        life.over = Some(at);
        let renewed = life.renewals.last().copied().unwrap_or_default();
        if !life.refusals.iter().any(|refused| *refused > renewed) {
            let Life { phone, application, renewals, refusals, .. } = life;
            let at = at.as_secs_f64();
            self.violations.push(format!(
                "at {at:.3}: {how}, and application {application} of phone {phone} is not gone: the phone said so at \
                 {refusals:.3?}, and asked for this URL and got it at {renewals:.3?}"
            ));
        }
    }
}

impl PushRecord {
    /// Returns the moments at which the POST with the 201 began and ended, and the TTL of the push.
    pub(super) fn accepted(&self) -> Option<(Moment, Moment, Duration)> {
        self.attempts.iter().find_map(|attempt| match attempt.answer {
            PostAnswer::Accepted(ttl) => Some((attempt.begin, attempt.end, ttl)),
            _ => None,
        })
    }

    /// Counts the attempts that the push server may have accepted without the sender's knowledge.
    pub(super) fn unsure(&self) -> usize {
        let unsure = |attempt: &&Attempt| matches!(attempt.answer, PostAnswer::Unsure(_));
        self.attempts.iter().filter(unsure).count()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.answer == PostAnswer::Gone)
    }

    /// Returns whether the phone handed the push to the application.
    pub(super) fn delivered(&self) -> bool {
        self.arrivals.iter().any(|arrival| arrival.said.is_result())
    }
}

impl Said {
    pub(super) fn is_result(self) -> bool {
        matches!(self, Self::Result | Self::ResultLater)
    }
}

impl Disturbance {
    pub(super) fn concerns(&self, phone: usize) -> bool {
        self.phone.is_none_or(|other| other == phone)
    }

    pub(super) fn overlaps(&self, from: Moment, to: Moment) -> bool {
        self.begin <= to && self.end.is_none_or(|end| end >= from)
    }
}
