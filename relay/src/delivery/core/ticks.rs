//! The passing of time: pushes, full JIDs and accounts that have become due.

use super::*;
use crate::clock::STANDSTILL;

/// Time between two [`Input::Tick`]s.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Time between two ticks while many pushes are in flight. Little becomes due at each tick then, so that no answer
/// waits long for it.
const TICK_CROWDED: Duration = Duration::from_millis(25);
/// Most accounts, or full JIDs, that are looked at in one tick for one purpose.
pub(super) const PER_TICK_MAX: usize = 512;

/// The ticks so far.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    last: Option<Instant>,
    /// The last tick at which everything was looked at, and not only what is in flight.
    last_whole: Option<Instant>,
    /// True if the last tick came after a standstill.
    woken: bool,
}

impl Core {
    /// Returns the time from one tick to the next.
    pub(crate) fn tick_interval(&self) -> Duration {
        if self.in_flight < self.settings.room.busy() || self.ticks.woken { TICK } else { TICK_CROWDED }
    }

    pub(super) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        // Without the lease, another relay may have delivered what is overdue here: it must not go into the mailbox.
        if self.ending.is_some() || !now.leased {
            return;
        }
        // Answers that came during a standstill are not read yet: nobody is judged before the next tick.
        let since = |at: Option<Instant>| at.map(|at| now.monotonic.duration_since(at));
        let late = since(self.ticks.last).is_some_and(|passed| passed >= STANDSTILL);
        self.ticks.last = Some(now.monotonic);
        self.ticks.woken = late && !self.ticks.woken;
        if self.ticks.woken {
            return;
        }
        let whole = since(self.ticks.last_whole).is_none_or(|passed| passed >= TICK);
        self.give_up_silent(now, actions);
        self.give_up_overdue(now, actions);
        self.take_back(now, actions);
        self.ask_others(now);
        if !whole {
            return;
        }
        self.ticks.last_whole = Some(now.monotonic);
        self.retry_due(now);
        self.go_on_after_catching_up(now, actions);
        self.relieve_probed(now);
        self.take_deferred_cues(now);
        self.note_seen(now);
        self.guess_found(now);
        self.tidy();
        self.forget_on(actions);
    }
}
