//! The schedule by which a full JID that failed is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use push::MessageId;
use tokio::time::Instant;

use super::line::Suspicion;

/// First delay before a full JID is tried again. Each further delay is twice as long, up to `DELAY_MAX`.
const DELAY_MIN: Duration = Duration::from_secs(2);
const DELAY_MAX: Duration = Duration::from_secs(128);
/// Delay between all further tries, the same as between sweeps.
const DELAY_LAST: Duration = Duration::from_secs(600);
/// Longest time between two failures that count together.
const FAILURES_APART_MAX: Duration = Duration::from_secs(2 * DELAY_LAST.as_secs());
/// Most pushes that are remembered as rejected by one full JID, and as left unanswered.
const REJECTED_MAX: usize = 256;

/// The failures of one full JID.
#[derive(Debug)]
pub(crate) struct Retry {
    failures: u32,
    failed_at: Instant,
    at: Option<Instant>,
    /// True if the full JID takes some pushes and rejects others. An answer then does not end this retry.
    rejects: bool,
    /// The pushes that are put off, each with the number of tries to come that leave it out.
    put_off: BTreeMap<MessageId, u8>,
    /// The pushes that were rejected when the full JID was last taken for away.
    suspected: Vec<MessageId>,
    /// The pushes that it left unanswered.
    unanswered: BTreeSet<MessageId>,
}

impl Retry {
    /// Begins with the first failure.
    pub(crate) fn new(now: Instant) -> Self {
        let mut retry = Self {
            failures: 0,
            failed_at: now,
            at: None,
            rejects: false,
            put_off: BTreeMap::new(),
            suspected: Vec::new(),
            unanswered: BTreeSet::new(),
        };
        retry.fail(now);
        retry
    }

    /// Notes a failure: the next try comes later than the last one did.
    pub(crate) fn fail(&mut self, now: Instant) {
        self.failed_at = now;
        let delay = DELAY_MIN * 2u32.pow(self.failures.min(16));
        let delay = if delay > DELAY_MAX { DELAY_LAST } else { delay };
        self.failures += 1;
        self.at = Some(now + delay);
    }

    /// Notes that another full JID is tried in place of this one. If a try is under way, the next one comes later.
    pub(crate) fn put_off(&mut self, now: Instant) {
        if self.at.is_none() {
            self.fail(now);
        }
    }

    /// Notes pushes that the full JID rejects while it takes others.
    pub(crate) fn reject(&mut self, pushes: &[MessageId]) {
        self.leave_out(pushes, 0);
    }

    /// Leaves pushes out until the next try, and of so many tries more. The full JID is there: they fail alone.
    fn leave_out(&mut self, pushes: &[MessageId], tries: u8) {
        self.rejects = true;
        let room = REJECTED_MAX.saturating_sub(self.put_off.len());
        self.put_off.extend(pushes.iter().take(room).map(|push| (*push, tries)));
    }

    /// Notes that the full JID was taken for away. A push that it has left unanswered before, and was sent again since
    /// it showed life, is put off, so that it keeps others waiting no longer.
    pub(crate) fn note_away(&mut self, suspicion: Suspicion) {
        let Suspicion { mut failed, unanswered, .. } = suspicion;
        failed.retain(|push| !unanswered.contains(push));
        self.suspected = failed;
        let (again, new): (Vec<_>, Vec<_>) =
            unanswered.into_iter().partition(|push| self.unanswered.contains(push));
        let room = REJECTED_MAX.saturating_sub(self.unanswered.len());
        self.unanswered.extend(new.into_iter().take(room));
        if !again.is_empty() {
            self.leave_out(&again, 1);
        }
    }

    /// Notes that the full JID answers a ping: the pushes for which it was taken for away have failed alone.
    pub(crate) fn note_there(&mut self) {
        let suspected = std::mem::take(&mut self.suspected);
        if !suspected.is_empty() {
            self.reject(&suspected);
        }
    }

    /// Returns whether the full JID takes some pushes and rejects others. An answer then does not end this retry.
    pub(crate) fn rejects(&self) -> bool {
        self.rejects
    }

    pub(crate) fn has_rejected(&self, push: MessageId) -> bool {
        self.put_off.contains_key(&push)
    }

    /// Forgets the rejected pushes, so that they go out before the next try is due.
    pub(crate) fn forget_rejected(&mut self) {
        self.put_off.clear();
    }

    /// Returns whether the last failure was so recent that a new push is no reason to try.
    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.failed_at) < DELAY_MIN
    }

    /// Brings the next try forward to the end of the first delay.
    pub(crate) fn hurry(&mut self) {
        let soon = self.failed_at + DELAY_MIN;
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
    }

    /// Returns whether the next try is due. If so, the try begins.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.at = None;
            self.put_off.retain(|_, tries| {
                let stays = *tries > 0;
                *tries = tries.saturating_sub(1);
                stays
            });
        }
        due
    }

    /// Returns whether the failures are too old to count.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.at.is_none() && now.duration_since(self.failed_at) >= FAILURES_APART_MAX
    }
}

#[cfg(test)]
mod tests {
    use push::Urgency;

    use super::*;

    fn id(number: u8) -> MessageId {
        MessageId::new(Urgency::Normal, chrono::DateTime::UNIX_EPOCH, [number; MessageId::CHANCE_BYTES])
    }

    #[test]
    fn each_failure_puts_the_next_try_off_for_longer() {
        let mut now = Instant::now();
        let mut retry = Retry::new(now);
        let (mut delays, mut waited) = (Vec::new(), 0);
        while delays.len() < 9 {
            now += Duration::from_secs(1);
            waited += 1;
            if retry.take_due(now) {
                delays.push(std::mem::take(&mut waited));
                retry.fail(now);
                assert!(retry.is_recent(now));
            }
        }
        assert_eq!(delays, [2, 4, 8, 16, 32, 64, 128, 600, 600]);
        let [two, twenty_minutes] = [2, 20 * 60].map(|seconds| now + Duration::from_secs(seconds));
        let moment = Duration::from_millis(1);
        assert!(retry.is_recent(two - moment) && !retry.is_recent(two));
        retry.hurry();
        assert!(!retry.take_due(two - moment) && retry.take_due(two), "for a new push");
        assert!(!retry.is_over(twenty_minutes - moment) && retry.is_over(twenty_minutes));
    }

    #[test]
    fn a_try_in_whose_place_another_was_tried_is_made_later() {
        let now = Instant::now();
        let mut retry = Retry::new(now);
        retry.put_off(now);
        assert!(retry.take_due(now + DELAY_MIN), "the one that was to come stays");
        retry.put_off(now + DELAY_MIN);
        assert!(!retry.take_due(now + 2 * DELAY_MIN) && retry.take_due(now + 3 * DELAY_MIN));
    }

    #[test]
    fn a_rejected_push_is_put_off_until_the_next_try() {
        let now = Instant::now();
        let mut retry = Retry::new(now);
        assert!(!retry.rejects());
        retry.reject(&[id(1), id(2)]);
        assert!(retry.rejects() && retry.has_rejected(id(1)) && !retry.has_rejected(id(3)));
        assert!(retry.take_due(now + DELAY_MIN) && !retry.has_rejected(id(1)));
    }
}
