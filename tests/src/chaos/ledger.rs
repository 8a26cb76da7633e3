//! The ledger of a run: every POST and its answer, every arrival, every life of a registration, and every
//! disturbance. Moments are counted from the start.

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
    /// Sights that break a promise.
    pub(super) violations: Vec<String>,
}

pub(super) struct PushRecord {
    pub(super) plan: PushPlan,
    /// The life whose URL it was sent to.
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
    /// 201, and for how long it is kept.
    Accepted(Duration),
    /// 410.
    Gone,
    /// The server was not even reached.
    Unreached,
    /// 503 and the like, or no answer: nothing was promised, and yet it may have been taken.
    Unsure(String),
}

#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) at: Moment,
    /// The IQ's.
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

/// A registration from one URL to the next.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phone: usize,
    pub(super) application: usize,
    pub(super) url: String,
    /// When the phone asked for it, at first and each time that it got the same URL.
    pub(super) renewals: Vec<Moment>,
    /// When the phone said that the application is gone.
    pub(super) refusals: Vec<Moment>,
    /// When it was first known to be over.
    pub(super) over: Option<Moment>,
}

/// Something that may hold up a push, or have it delivered twice.
#[derive(Debug)]
pub(super) struct Disturbance {
    pub(super) what: &'static str,
    /// `None`: all phones.
    pub(super) phone: Option<usize>,
    pub(super) begin: Moment,
    /// `None`: it goes on.
    pub(super) end: Option<Moment>,
}

/// A stream that the phone closed to come back later: no disturbance of pushes that wait meanwhile.
pub(super) const AWAY: &str = "phone away";

impl Ledger {
    pub(super) fn new(pushes: impl Iterator<Item = PushPlan>) -> Self {
        let pushes = pushes
            .map(|plan| PushRecord { plan, life: None, attempts: Vec::new(), arrivals: Vec::new() })
            .collect();
        Self { start: OnceLock::new(), records: Mutex::new(Records { pushes, ..Records::default() }) }
    }

    /// From now on, time counts; before, it stands still.
    pub(super) fn start(&self) {
        self.start.set(Instant::now()).expect("there is one start");
    }

    pub(super) fn now(&self) -> Moment {
        self.start.get().map_or(Moment::ZERO, Instant::elapsed)
    }

    /// When that moment is, or was.
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

    /// A push arrives at a phone, for an application of it.
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

    /// A push is about to be sent to this URL.
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

    /// A phone that asked at that moment got this URL for an application.
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

    /// Notes the begin of a disturbance, of one phone or of all; the answer is what `is_over` wants.
    pub(super) fn is_disturbed(&self, phone: Option<usize>, what: &'static str) -> usize {
        let begin = self.now();
        let mut records = self.records();
        records.disturbances.push(Disturbance { what, phone, begin, end: None });
        records.disturbances.len() - 1
    }

    /// Notes a disturbance of all that began then, and ends now.
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
    /// A life ends by the phone's word alone, and only if the phone has not renewed it since.
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
    /// When the POST that got the 201 began and ended, and for how long the push is kept.
    pub(super) fn accepted(&self) -> Option<(Moment, Moment, Duration)> {
        self.attempts.iter().find_map(|attempt| match attempt.answer {
            PostAnswer::Accepted(ttl) => Some((attempt.begin, attempt.end, ttl)),
            _ => None,
        })
    }

    /// Counts how often it may have been taken, the sender not knowing.
    pub(super) fn unsure(&self) -> usize {
        let unsure = |attempt: &&Attempt| matches!(attempt.answer, PostAnswer::Unsure(_));
        self.attempts.iter().filter(unsure).count()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.answer == PostAnswer::Gone)
    }

    /// Returns whether the phone handed it to the application.
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
