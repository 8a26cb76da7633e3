//! The trail of the last pushes, as far as this process knows it. An operator asks for it when a push is missing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use push::{Epoch, MessageId, PushMessage, RegistrationId};

use crate::{
    delivery::{
        core::{Action, Input, Job, Measure},
        fate::{Fate, Held, Note},
    },
    stream::stanza::Incoming,
};

/// Most pushes that are remembered. The one that came first is forgotten first.
const TRACES_MAX: usize = 10_000;

/// The latest state of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The relay has it: in line, in flight, or about to be stored.
    Held,
    /// It waits in the mailbox.
    Waits,
    /// The phone acknowledged it.
    Delivered,
    /// Its time ran out first.
    Expired,
    /// Its registration ended first.
    Ended,
    /// A later push of its topic took its place.
    Replaced,
    /// Too many pushes waited.
    Dropped,
}

impl Outcome {
    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waits => "waits",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
        }
    }

    /// Returns whether nothing more can become of the push.
    const fn is_last(self) -> bool {
        !matches!(self, Self::Held | Self::Waits)
    }
}

/// The trace of a push. It has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its registration.
    pub registration: RegistrationId,
    /// The epoch of its registration's life.
    pub epoch: Epoch,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// When its time runs out.
    pub expires_at: DateTime<Utc>,
    /// Its latest state.
    pub outcome: Outcome,
    /// When that state began.
    pub at: DateTime<Utc>,
    /// Number of a phone's errors that did not end it.
    pub failures: u32,
    /// When it last went out and was not answered.
    pub unanswered_at: Option<DateTime<Utc>>,
}

/// The last pushes. All clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Traces>>);

#[derive(Debug, Default)]
struct Traces {
    of: BTreeMap<MessageId, Trace>,
    /// The pushes, in the order in which they came.
    order: VecDeque<MessageId>,
    /// Pushes that the settlement under way puts into the mailbox, or whose registrations it revokes.
    settling: Vec<MessageId>,
}

/// The push that an answer is to, kept until the core has taken the answer.
pub(crate) struct Told(Option<MessageId>);

impl Trail {
    /// Returns the trace of a push.
    #[must_use]
    pub fn find(&self, id: MessageId) -> Option<Trace> {
        self.lock().of.get(&id).cloned()
    }

    /// Returns the traces of a registration's pushes, the last ones first, at most `max` of them.
    #[must_use]
    pub fn of_registration(&self, registration: RegistrationId, max: usize) -> Vec<(MessageId, Trace)> {
        let traces = self.lock();
        let known = traces.order.iter().rev().filter_map(|id| Some((*id, traces.of.get(id)?)));
        let theirs = known.filter(|(_, trace)| trace.registration == registration);
        theirs.take(max).map(|(id, trace)| (id, trace.clone())).collect()
    }

    /// Notes an input that the core is about to take.
    pub(crate) fn note_input(&self, input: &Input, now: DateTime<Utc>) -> Told {
        match input {
            Input::Stanza(Incoming::Answer(answer)) => return Told(answer.message_id()),
            Input::Received(pushes) if !pushes.is_empty() => {
                let mut traces = self.lock();
                pushes.iter().for_each(|push| traces.note_received(push, Outcome::Held, now));
            }
            Input::Page(page) if !page.pushes.is_empty() => {
                let mut traces = self.lock();
                page.pushes.iter().for_each(|push| traces.note_received(push, Outcome::Waits, now));
            }
            Input::Settled(notes) => self.lock().note_settled(notes, now),
            _ => {}
        }
        Told(None)
    }

    /// Notes the actions by which the core has answered an input.
    pub(crate) fn note_actions(&self, told: &Told, actions: &[Action], now: DateTime<Utc>) {
        for action in actions {
            match (action, told) {
                // One answer settles one push.
                (Action::Count(Measure::Delivered(_)), Told(Some(id))) => {
                    self.lock().note_end(*id, Outcome::Delivered, now);
                }
                (Action::Count(Measure::Retried), Told(Some(id))) => {
                    if let Some(trace) = self.lock().of.get_mut(id) {
                        trace.failures += 1;
                    }
                }
                (Action::Start(Job::Settle(fates)), _) => self.lock().note_fates(fates, now),
                _ => {}
            }
        }
    }

    /// Locks the traces. A poisoned lock means that a panic was reported elsewhere; what is known is whole after every
    /// step.
    fn lock(&self) -> MutexGuard<'_, Traces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traces {
    /// Notes a push that came. A copy changes nothing, unless it comes from the queue while the push is known to wait:
    /// the relay holds the push then.
    fn note_received(&mut self, push: &PushMessage, outcome: Outcome, now: DateTime<Utc>) {
        if let Some(trace) = self.of.get_mut(&push.id) {
            if trace.outcome == Outcome::Waits && outcome == Outcome::Held {
                (trace.outcome, trace.at) = (outcome, now);
            }
            return;
        }
        if self.order.len() >= TRACES_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.of.remove(&first);
        }
        let PushMessage { id, registration, epoch, accepted_at, expires_at, .. } = *push;
        let at = if outcome == Outcome::Waits { accepted_at } else { now };
        let trace = Trace {
            registration,
            epoch,
            accepted_at,
            expires_at,
            outcome,
            at,
            failures: 0,
            unanswered_at: None,
        };
        self.order.push_back(id);
        self.of.insert(id, trace);
    }

    fn note_fates(&mut self, fates: &[Fate], now: DateTime<Utc>) {
        self.settling.clear();
        for fate in fates {
            match fate {
                // The push was delivered by an answer before this, or its time has run out.
                Fate::Done(Held { message, .. }) => self.note_end(message.id, Outcome::Expired, now),
                Fate::Keep { message, asked_at, .. } => {
                    self.note_unanswered(message.id, *asked_at);
                    self.settling.push(message.id);
                }
                Fate::Asked { message, asked_at } => self.note_unanswered(message.id, Some(*asked_at)),
                Fate::Revoke { push, .. } => self.settling.push(push.message.id),
                _ => {}
            }
        }
    }

    fn note_settled(&mut self, notes: &[Note], now: DateTime<Utc>) {
        let settling = std::mem::take(&mut self.settling);
        for note in notes {
            match note {
                Note::Waits { message, kept, .. } => {
                    self.become_of(message.id, Outcome::Waits, now);
                    let Some(kept) = kept else { continue };
                    kept.replaced.iter().for_each(|id| self.note_end(*id, Outcome::Replaced, now));
                    kept.dropped.iter().for_each(|id| self.note_end(*id, Outcome::Dropped, now));
                }
                Note::Trimmed(_, trimmed) => {
                    trimmed.dropped.iter().for_each(|id| self.note_end(*id, Outcome::Dropped, now));
                }
                Note::Ended { registration, epoch, .. } => self.end_all_of(*registration, *epoch, now),
                Note::Late { id, expired, .. } => {
                    self.note_end(*id, if *expired { Outcome::Expired } else { Outcome::Delivered }, now);
                }
                Note::Moved(..) | Note::Names(..) | Note::NotThrottled(_) | Note::NotSeen(_) => {}
            }
        }
        // A push of this settlement that does not wait now is over, or comes from the queue again.
        for id in settling {
            let is_expired = |trace: &&Trace| now >= trace.expires_at;
            if self.of.get(&id).filter(|trace| trace.outcome == Outcome::Held).filter(is_expired).is_some() {
                self.note_end(id, Outcome::Expired, now);
            }
        }
    }

    fn note_unanswered(&mut self, id: MessageId, asked_at: Option<DateTime<Utc>>) {
        if let Some(trace) = self.of.get_mut(&id) {
            trace.unanswered_at = trace.unanswered_at.max(asked_at);
        }
    }

    fn end_all_of(&mut self, registration: RegistrationId, epoch: Epoch, now: DateTime<Utc>) {
        let of_it = |trace: &&mut Trace| trace.registration == registration && trace.epoch <= epoch;
        let open = self.of.values_mut().filter(of_it).filter(|trace| !trace.outcome.is_last());
        open.for_each(|trace| (trace.outcome, trace.at) = (Outcome::Ended, now));
    }

    fn become_of(&mut self, id: MessageId, outcome: Outcome, now: DateTime<Utc>) {
        if let Some(trace) = self.of.get_mut(&id).filter(|trace| !trace.outcome.is_last()) {
            (trace.outcome, trace.at) = (outcome, now);
        }
    }

    /// Notes the end of a push. The first end counts, but a delivery that comes later replaces any other.
    fn note_end(&mut self, id: MessageId, outcome: Outcome, now: DateTime<Utc>) {
        let is_new = |trace: &&mut Trace| !trace.outcome.is_last() || outcome == Outcome::Delivered;
        if let Some(trace) = self.of.get_mut(&id).filter(is_new)
            && trace.outcome != Outcome::Delivered
        {
            (trace.outcome, trace.at) = (outcome, now);
        }
    }
}

#[cfg(test)]
mod tests;
