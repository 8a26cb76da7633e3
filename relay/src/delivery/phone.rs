//! The relay's knowledge of one full JID.

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

/// Time after which a full JID is silent if a push to it, or a probe, is still unanswered. A silent full JID holds up
/// nobody else.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Time for which a full JID is not asked for a registration that it refused. A presence lifts all its bars before, and
/// a registration lifts its own.
const BARRED_MAX: Duration = Duration::from_secs(3600);
/// Most registrations that one full JID is barred from. Beyond it, the bar that ends first is lifted.
const BARRED_REGISTRATIONS_MAX: usize = 256;

/// The turns that a full JID takes part in. Unproven full JIDs share fewer places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Proven,
    Unproven,
}

/// The knowledge of one full JID.
#[derive(Debug, Default)]
pub(crate) struct Phone {
    pub(crate) line: Line,
    pub(crate) reading: Option<Reading>,
    /// The reason for which its mailbox is to be read next.
    pub(crate) cue: Option<Cue>,
    pub(crate) retry: Option<Retry>,
    /// The turns in which it is lined up; `None`: in none.
    pub(crate) ready: Option<Trust>,
    /// The time at which it last greeted, or first answered.
    seen_at: Option<DateTime<Utc>>,
    /// The time of its last sign of life: a greeting or an answer.
    alive_at: Option<DateTime<Utc>>,
    /// The time since which it owes an answer to a probe.
    probed_at: Option<Instant>,
    /// The time at which the oldest unanswered push was sent when stand-ins were last sought for this full JID.
    relieved_since: Option<Instant>,
    ended: bool,
    away: bool,
    proven: bool,
    /// True if pushes to its session were given up unanswered. Their answers may still come, all at once.
    unanswered: bool,
    /// The registrations that it does not have, each with the time until which it is not asked for one's pushes.
    barred: BTreeMap<RegistrationId, Instant>,
}

impl Phone {
    /// Notes a directed presence. The new session may have registrations that the earlier one did not have.
    pub(crate) fn begin_session(&mut self, now: Now) {
        self.greet(now);
        self.unanswered = false;
        self.barred.clear();
        self.line.begin_session(now.monotonic);
    }

    /// Notes a directed presence, or a request to register: the full JID has a session.
    pub(crate) fn greet(&mut self, now: Now) {
        self.seen_at = Some(now.wall);
        self.show_life(now);
    }

    /// Takes what the store knows. A session of which this process has seen a sign of life goes on.
    pub(crate) fn recall(&mut self, seen_at: DateTime<Utc>, ended: bool) {
        self.ended |= ended && self.alive_at.is_none();
        self.seen_at = self.seen_at.max(Some(seen_at));
        self.alive_at = self.alive_at.max(Some(seen_at));
    }

    /// Notes an answer, or another sign of life. Returns whether the full JID was not known to be there.
    pub(crate) fn show_life(&mut self, now: Now) -> bool {
        let is_news = !self.is_present();
        // A relay that has started since may not have heard the greeting.
        self.seen_at.get_or_insert(now.wall);
        self.alive_at = Some(now.wall);
        self.ended = false;
        self.away = false;
        self.probed_at = None;
        is_news
    }

    /// Notes that stand-ins are sought for this full JID. Returns whether they were not sought yet in this silence.
    pub(crate) fn relieve(&mut self) -> bool {
        let silent_since = self.line.oldest_in_flight();
        std::mem::replace(&mut self.relieved_since, silent_since) != silent_since
    }

    /// Notes that a probe goes out. Returns whether no earlier probe is unanswered.
    pub(crate) fn note_probe(&mut self, now: Now) -> bool {
        let owed_none = self.lives_since_probe();
        self.probed_at.get_or_insert(now.monotonic);
        owed_none
    }

    /// Forgets the probe: the stream on which its answer would come is gone.
    pub(crate) fn forget_probe(&mut self) {
        self.probed_at = None;
    }

    /// Returns whether the full JID has shown life since the last probe, or owes no answer to one.
    pub(crate) fn lives_since_probe(&self) -> bool {
        self.probed_at.is_none()
    }

    /// Notes that the full JID has answered a push: it takes turns among the proven.
    pub(crate) fn prove(&mut self) {
        self.proven = true;
    }

    /// Notes that its session has ended.
    pub(crate) fn end_session(&mut self) {
        self.ended = true;
        self.proven = false;
    }

    /// Notes that nothing that was sent to the full JID was taken.
    pub(crate) fn mark_away(&mut self) {
        self.away = true;
        self.proven = false;
    }

    /// Notes that a push was given up unanswered: the full JID gets one push at a time until it answers.
    pub(crate) fn mark_silent(&mut self) {
        self.proven = false;
        self.unanswered = true;
        self.line.narrow_to_one();
    }

    pub(crate) fn has_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Notes that answers to pushes that were given up have had their time.
    pub(crate) fn forget_unanswered(&mut self) {
        self.unanswered = false;
    }

    pub(crate) fn trust(&self) -> Trust {
        if self.proven { Trust::Proven } else { Trust::Unproven }
    }

    /// Returns whether the full JID had a session when it was last heard of, and has not failed since.
    pub(crate) fn is_present(&self) -> bool {
        self.seen_at.is_some() && !self.is_gone()
    }

    /// Returns whether the full JID is there, and neither suspect nor silent.
    pub(crate) fn takes_pushes(&self, now: Now) -> bool {
        self.is_present() && !self.line.is_suspect() && !self.is_silent(now)
    }

    /// Returns whether another full JID may have its pushes, if one is there.
    pub(crate) fn is_to_be_replaced(&self, now: Now) -> bool {
        self.is_failing() || self.is_silent(now)
    }

    /// Returns whether this full JID may stand in for another: the other one fails, or this one has greeted since the
    /// other's last sign of life.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        other.is_failing() || self.seen_at > other.alive_at
    }

    /// Returns whether the session has ended, or nothing was taken when the full JID was last tried.
    pub(crate) fn is_gone(&self) -> bool {
        self.ended || self.away
    }

    /// Returns whether the full JID is gone, or suspect: a push has failed, and others are not answered yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_gone() || self.line.is_suspect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn seen_at(&self) -> Option<DateTime<Utc>> {
        self.seen_at
    }

    /// Returns whether a push of this session, or a probe, has been unanswered for 2 s.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        self.line.silent_for(SILENT_AFTER, now.monotonic).next().is_some()
            || self.probed_at.is_some_and(|at| now.monotonic.duration_since(at) >= SILENT_AFTER)
    }

    /// Notes that the full JID does not have a registration.
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

    /// Returns whether its mailbox is being read, or is to be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some() || self.cue.is_some()
    }

    /// Returns whether nothing is held or under way for the full JID.
    pub(crate) fn is_idle(&self) -> bool {
        self.line.is_idle() && !self.is_reading() && self.retry.is_none()
    }
}

#[cfg(test)]
mod tests;
