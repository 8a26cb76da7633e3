//! All for whom something waits are tried now and then: those who send no presence are found by that alone.

use super::*;

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(600);
/// Registrations that are tried in one tick: one each 10 ms.
const PER_TICK: usize = 25;

/// The sweep over all who have something waiting.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    asked: bool,
    /// The page that was asked for belongs to a sweep that is over.
    anew: bool,
    found: VecDeque<Registration>,
    /// Where it goes on when those are done.
    next: Option<Option<ports::Registrant>>,
    /// When the next one begins.
    at: Option<Instant>,
    /// The last account of the page before.
    last: Option<BareJid>,
}

/// The findings of a page of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Registrations for which something waits, one for each full JID that they name.
    pub(crate) rows: Vec<Registration>,
    /// Number of pushes that wait for each account, in the order of the store.
    pub(crate) waiting: Vec<(BareJid, usize)>,
    /// Where the sweep goes on; `None`: nowhere.
    pub(crate) next: Option<ports::Registrant>,
}

impl Core {
    pub(super) fn take_found(&mut self, found: Found, now: Now) {
        self.sweep.asked = false;
        if std::mem::take(&mut self.sweep.anew) {
            self.sweep.next = Some(None);
            return;
        }
        for (account, pushes) in found.waiting {
            if self.is_bounded(&account) {
                let further = self.sweep.last.as_ref() == Some(&account);
                self.domains.note_found(&account, pushes, further);
            }
            self.sweep.last = Some(account);
        }
        self.sweep.found.extend(found.rows);
        self.sweep.next = found.next.map(Some);
        if self.sweep.next.is_none() {
            self.sweep.at = Some(now.monotonic + INTERVAL);
            self.domains.end_sweep();
            self.trim_domains();
        }
    }

    /// Sweeps from the beginning.
    pub(super) fn sweep_anew(&mut self) {
        self.sweep = Sweep { asked: self.sweep.asked, anew: self.sweep.asked, ..Sweep::default() };
        self.sweep.next = (!self.sweep.asked).then_some(None);
        self.domains.begin_sweep();
    }

    /// Reads on when those of the last page were tried.
    pub(super) fn sweep_on(&mut self, actions: &mut Vec<Action>) {
        if self.stream.is_some()
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
        if self.stream.is_none() {
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
            let named = self.account(&recipient).named(id).unwrap_or(&recipient).clone();
            // It may have moved since it was found: others for which something waits named the same full JID.
            for waits in BTreeSet::from([named, recipient]) {
                let target = self.account(&waits).route(id, &waits, now).clone();
                self.note_waiting(&waits);
                self.guess(&target);
            }
        }
    }
}
