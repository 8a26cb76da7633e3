//! All for whom something waits are tried now and then: those who send no presence are found by that alone.

use super::*;

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(600);
/// Registrations that are tried in one tick: one each 10 ms.
const PER_TICK: usize = 25;

impl Core {
    pub(super) fn take_found(&mut self, found: Vec<Registration>, next: Option<ports::Recipient>, now: Now) {
        self.sweep.asked = false;
        if std::mem::take(&mut self.sweep.anew) {
            self.sweep.next = Some(None);
            return;
        }
        self.sweep.found.extend(found);
        self.sweep.next = next.map(Some);
        if self.sweep.next.is_none() {
            self.sweep.at = Some(now.monotonic + INTERVAL);
        }
    }

    /// Sweeps from the beginning.
    pub(super) fn sweep_anew(&mut self) {
        self.sweep = Sweep { asked: self.sweep.asked, anew: self.sweep.asked, ..Sweep::default() };
        self.sweep.next = (!self.sweep.asked).then_some(None);
    }

    /// Reads on when those of the last page were tried.
    pub(super) fn sweep_on(&mut self, actions: &mut Vec<Action>) {
        if self.session.is_some()
            && !self.sweep.asked
            && self.sweep.found.is_empty()
            && let Some(after) = self.sweep.next.take()
        {
            self.sweep.asked = true;
            actions.push(Action::Start(Job::Sweep(after)));
        }
    }

    /// Tries some of those that a sweep has found.
    pub(super) fn guess_found(&mut self, now: Now) {
        if self.session.is_none() {
            return;
        }
        if self.sweep.at.is_some_and(|at| at <= now.monotonic) {
            self.sweep_anew();
        }
        for _ in 0..PER_TICK {
            let Some(row) = self.sweep.found.pop_front() else { return };
            let (id, recipient) = (row.target.registration_id(), row.target.recipient);
            if !self.admits(&recipient) {
                continue;
            }
            self.recall_named(id, row.epoch, &recipient);
            let account = self.account(&recipient);
            let named = account.named(id).unwrap_or(&recipient).clone();
            let target = account.route(id, &named, now).clone();
            self.something_waits(&named);
            self.guess(&target);
        }
    }
}
