//! The sweep tries all for whom something waits, now and then. Phones that send no presence are found by it alone.

use super::*;

/// Time between two sweeps.
const INTERVAL: Duration = Duration::from_secs(600);
/// Most registrations that are tried in one tick: one each 10 ms.
const PER_TICK: usize = 25;

/// The sweep over all registrations for which something waits.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    asked: bool,
    /// True if the page that was asked for belongs to a sweep that is over.
    anew: bool,
    found: VecDeque<Registration>,
    /// The registration behind which the sweep goes on; the inner `None`: the beginning. The outer `None`: a page is on
    /// its way, or no more is to be asked for.
    next: Option<Option<ports::Registrant>>,
    /// The time at which the next sweep begins.
    at: Option<Instant>,
    /// The last account that the sweep has read.
    last: Option<BareJid>,
}

/// A page of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Registrations for which something waits, one for each full JID that they name.
    pub(crate) rows: Vec<Registration>,
    /// Number of pushes that wait for each account, in the order of the store.
    pub(crate) waiting: Vec<(BareJid, usize)>,
    /// The registration behind which the sweep goes on; `None`: it has ended.
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

    /// Begins a new sweep.
    pub(super) fn sweep_anew(&mut self) {
        self.sweep = Sweep { asked: self.sweep.asked, anew: self.sweep.asked, ..Sweep::default() };
        self.sweep.next = (!self.sweep.asked).then_some(None);
        self.domains.begin_sweep();
    }

    /// Asks for the next page, once the registrations of the last one were tried.
    pub(super) fn sweep_on(&mut self, actions: &mut Vec<Action>) {
        if self.stream.is_some()
            && self.sweep.found.is_empty()
            && let Some(after) = self.sweep.next.take()
        {
            self.sweep.asked = true;
            actions.push(Action::Start(Job::Sweep(after)));
        }
    }

    /// Tries some of the registrations that a sweep has found, and begins a sweep that is due.
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
            // The registration may have moved since it was found. Others for which something waits may have named the
            // same full JID.
            for waits in BTreeSet::from([named, recipient]) {
                let target = self.account(&waits).route(id, &waits, now).clone();
                self.note_waiting(&waits);
                self.guess(&target);
            }
        }
    }
}
