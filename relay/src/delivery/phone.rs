//! Knowledge of one full JID.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use push::RegistrationId;
use tokio::time::Instant;

use super::{
    Now,
    line::Line,
    reading::{Cue, Reading},
    retry::Retry,
};

/// A full JID whose oldest push has been unanswered for so long is silent: it holds up nobody else.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(2);
/// The longest time for which a full JID is not asked for a registration that it refused.
const BARRED_MAX: Duration = Duration::from_secs(3600);
/// Most registrations that one full JID is barred from; beyond it the first to end is forgotten.
const BARRED_REGISTRATIONS_MAX: usize = 256;

/// A full JID's way of taking turns: those that never answered share a part of all places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Proven,
    Unproven,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Phone {
    pub(crate) line: Line,
    pub(crate) reading: Option<Reading>,
    /// Why its mailbox is to be read, if it is.
    pub(crate) cue: Option<Cue>,
    pub(crate) retry: Option<Retry>,
    /// Where it stands in turn.
    pub(crate) ready: Option<Standing>,
    /// When it last greeted or registered, or first answered.
    seen_at: Option<DateTime<Utc>>,
    /// Its last sign of life: that, or an answer.
    alive_at: Option<DateTime<Utc>>,
    /// Since when it owes a sign of life: it was asked whether it is there, beside its pushes.
    probed_at: Option<Instant>,
    /// When the push was sent in whose silence others were found for what waits.
    relieved_since: Option<Instant>,
    ended: bool,
    away: bool,
    proven: bool,
    /// Pushes to its session were given up unanswered: the answers may come yet, all at once.
    unanswered: bool,
    /// The registrations that it does not hold, and until when it is not asked again.
    barred: BTreeMap<RegistrationId, Instant>,
}

impl Phone {
    /// Notes a directed presence: a session begins, which may hold whatever the one before did not.
    pub(crate) fn begin_session(&mut self, now: Now) {
        self.greet(now);
        self.unanswered = false;
        self.barred.clear();
        self.line.begin_session(now.monotonic);
    }

    /// Notes a directed presence or a registration: it has a session.
    pub(crate) fn greet(&mut self, now: Now) {
        self.seen_at = Some(now.wall);
        self.show_life(now);
    }

    /// Notes what an earlier process has seen.
    pub(crate) fn recall(&mut self, seen_at: DateTime<Utc>, ended: bool) {
        if self.seen_at.is_none_or(|seen| seen < seen_at) {
            self.seen_at = Some(seen_at);
            self.ended |= ended && self.alive_at.is_none();
            self.alive_at = self.alive_at.max(Some(seen_at));
        }
    }

    /// Notes an answer, or another sign of life; returns whether that was news.
    pub(crate) fn show_life(&mut self, now: Now) -> bool {
        let is_news = !self.is_present();
        // A relay that has begun since may not have heard it greet.
        self.seen_at.get_or_insert(now.wall);
        self.alive_at = Some(now.wall);
        self.ended = false;
        self.away = false;
        self.probed_at = None;
        is_news
    }

    /// Notes that others are found for what waits; returns whether they were not yet, in this silence.
    pub(crate) fn relieve(&mut self) -> bool {
        let silent_since = self.line.oldest_in_flight();
        std::mem::replace(&mut self.relieved_since, silent_since) != silent_since
    }

    /// Notes that it is asked for a sign of life; returns whether it owed none.
    pub(crate) fn note_probe(&mut self, now: Now) -> bool {
        let owed_none = self.lives_since_probe();
        self.probed_at.get_or_insert(now.monotonic);
        owed_none
    }

    /// The stream that its answer would come by is gone.
    pub(crate) fn forget_probe(&mut self) {
        self.probed_at = None;
    }

    /// Returns whether it has shown life since it was asked for that.
    pub(crate) fn lives_since_probe(&self) -> bool {
        self.probed_at.is_none()
    }

    /// Notes that it has answered a push: it takes turns among those that do.
    pub(crate) fn prove(&mut self) {
        self.proven = true;
    }

    /// Notes that its session has ended.
    pub(crate) fn end_session(&mut self) {
        self.ended = true;
        self.proven = false;
    }

    /// Notes that nothing which was sent to it was taken.
    pub(crate) fn mark_away(&mut self) {
        self.away = true;
        self.proven = false;
    }

    /// Notes that it let a push go unanswered: it gets one at a time until it answers.
    pub(crate) fn mark_silent(&mut self) {
        self.proven = false;
        self.unanswered = true;
        self.line.narrow_to_one();
    }

    pub(crate) fn has_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Notes that those answers have had their time.
    pub(crate) fn forget_unanswered(&mut self) {
        self.unanswered = false;
    }

    pub(crate) fn standing(&self) -> Standing {
        if self.proven { Standing::Proven } else { Standing::Unproven }
    }

    /// It had a session when it was heard of last, and has not failed since.
    pub(crate) fn is_present(&self) -> bool {
        self.seen_at.is_some() && !self.is_gone()
    }

    /// It is there, and nothing speaks against it.
    pub(crate) fn takes_pushes(&self, now: Now) -> bool {
        self.is_present() && !self.line.is_suspect() && !self.is_silent(now)
    }

    /// Another is to have its pushes, if one is there.
    pub(crate) fn is_to_be_replaced(&self, now: Now) -> bool {
        self.is_failing() || self.is_silent(now)
    }

    /// Returns whether it may have the pushes of another that is to be replaced: that one fails, or this one has
    /// greeted since that one's last sign of life.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        other.is_failing() || self.seen_at > other.alive_at
    }

    /// Its session has ended, or it took nothing when it was tried last.
    pub(crate) fn is_gone(&self) -> bool {
        self.ended || self.away
    }

    /// It is gone, or a push to it has failed and the others are not answered yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_gone() || self.line.is_suspect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn seen_at(&self) -> Option<DateTime<Utc>> {
        self.seen_at
    }

    /// Something sent to it has been unanswered for long.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        self.line.silent_for(SILENT_AFTER, now.monotonic).next().is_some()
            || self.probed_at.is_some_and(|at| now.monotonic.duration_since(at) >= SILENT_AFTER)
    }

    /// Notes that it does not hold a registration.
    pub(crate) fn bar(&mut self, registration: RegistrationId, now: Now) {
        if self.barred.len() >= BARRED_REGISTRATIONS_MAX
            && let Some(first) = self.barred.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id)
        {
            self.barred.remove(&first);
        }
        self.barred.insert(registration, now.monotonic + BARRED_MAX);
    }

    pub(crate) fn is_barred(&self, registration: RegistrationId, now: Now) -> bool {
        self.barred.get(&registration).is_some_and(|until| now.monotonic < *until)
    }

    pub(crate) fn lift_bar(&mut self, registration: RegistrationId) {
        self.barred.remove(&registration);
    }

    /// Returns whether its mailbox is being read, or to be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some() || self.cue.is_some()
    }

    /// Nothing is held or under way for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.line.is_idle() && !self.is_reading() && self.retry.is_none()
    }
}

#[cfg(test)]
mod tests;
