//! The end of a relay: answers to what is in flight are taken for a while, and the rest is given back.

use super::*;

/// Longest wait of a stopping relay for answers. Settling and closing the stream come after it.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Ending {
    /// The time until which answers are taken.
    until: Instant,
    /// True once the unanswered pushes were given back.
    gave_back: bool,
    finished: bool,
}

impl Core {
    pub(super) fn stop(&mut self, now: Now) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Ending { until: now.monotonic + STOP_TIMEOUT, gave_back: false, finished: false });
        let waiting: Vec<MessageId> =
            self.pushes.iter().filter(|(_, push)| push.asks.is_empty()).map(|(id, _)| *id).collect();
        self.give_back(waiting, now);
    }

    /// Gives everything back at once. The lease is lost, and nothing that is held is this relay's any more.
    pub(super) fn give_everything_back(&mut self, now: Now) {
        self.stop(now);
        if let Some(ending) = &mut self.ending {
            ending.until = now.monotonic;
        }
    }

    fn give_back(&mut self, ids: Vec<MessageId>, now: Now) {
        for id in ids {
            let Some(Push { held, .. }) = self.take_push(id) else { continue };
            match held.origin {
                Origin::Queue => self.decide(Fate::Postpone(id, now.wall)),
                // It waits on, and a late result may be its.
                Origin::Mailbox => self.note_waiting(&self.named(&held.message)),
            }
        }
    }

    /// Returns whether nothing more is registered, and no answer is waited for.
    pub(super) fn is_done(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.gave_back)
    }

    pub(super) fn finish_ending(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(ending) = &self.ending else { return };
        if ending.finished {
            return;
        }
        let waits = self.in_flight > 0 && self.stream.is_some() && now.monotonic < ending.until;
        if !ending.gave_back && !waits {
            let unanswered: Vec<MessageId> = self.pushes.keys().copied().collect();
            if !unanswered.is_empty() {
                actions.push(Action::Count(Measure::Unanswered(unanswered.len())));
            }
            self.give_back(unanswered, now);
            if let Some(ending) = &mut self.ending {
                ending.gave_back = true;
            }
            self.settle(actions);
        }
        let under_way = self.settling.is_some()
            || !self.fates.is_empty()
            || self.registering > 0
            || self.receiving
            || !self.is_done();
        if !under_way && let Some(ending) = &mut self.ending {
            ending.finished = true;
            self.refuse_waiting(actions);
            actions.push(Action::Finish);
        }
    }
}
