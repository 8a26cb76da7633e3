//! What waits for the next commit, and when that begins.
//!
//! While the relay settles pushes before they have rows, a commit leaves those alone that came just now ([`YOUNG`]): most
//! of them never need one. That is a pause, and no wait for the settlement of any: at the age of [`GRACE`] each of them
//! begins a commit.

use std::time::{Duration, Instant};

use push::usage::Usage;

use super::commit::{Batch, Write};
use crate::queue::unwritten::{Sending, Unwritten};

/// How long a write that nobody waits for lingers.
pub(super) const LINGER: Duration = Duration::from_millis(20);
/// From the beginning of one commit to that of the next, where that one has nothing but pushes while others are settled.
pub(super) const PACE: Duration = Duration::from_millis(10);
/// The age at which a push begins a commit, while others are settled that have no rows.
pub(super) const GRACE: Duration = Duration::from_millis(20);
/// A commit takes such pushes with it from this age on.
pub(super) const YOUNG: Duration = Duration::from_millis(8);

/// See the module.
pub(super) struct Waiting {
    pub(super) unwritten: Unwritten,
    pub(super) writes: Vec<Write>,
    /// Rows of the queue.
    pub(super) deletions: Vec<i64>,
    /// Somebody waits for one of the writes.
    is_hasty: bool,
    /// When what lingers is written at the latest.
    linger_until: Option<Instant>,
    /// When the last commit began.
    pub(super) begun: Instant,
    /// A push was settled since.
    settles: bool,
    /// When a push was settled that had no row.
    settled_early: Option<Instant>,
    /// The relay gets one of the pushes only when its row is there.
    is_behind: bool,
    /// The last commit stands. While none does, nothing is handed on before its own.
    pub(super) stands: bool,
    /// What the next row of the queue is called. Never as one that was rolled back: whoever holds that push may yet
    /// settle it.
    pub(super) next_seq: i64,
    /// Until when the thread sleeps, unless it is woken.
    pub(super) sleeps_until: Option<Instant>,
    /// Nobody is left to add anything.
    pub(super) is_closed: bool,
    /// The thread has died.
    pub(super) is_dead: bool,
}

impl Waiting {
    pub(super) fn new(next_seq: i64, now: Instant) -> Self {
        Self {
            unwritten: Unwritten::default(),
            writes: Vec::new(),
            deletions: Vec::new(),
            is_hasty: false,
            linger_until: None,
            begun: now,
            settles: false,
            settled_early: None,
            is_behind: false,
            stands: true,
            next_seq,
            sleeps_until: None,
            is_closed: false,
            is_dead: false,
        }
    }

    pub(super) fn add_sending(&mut self, sending: Sending) {
        self.is_behind |= sending.rows().any(|(_, row)| !row.is_handed_on);
        self.unwritten.add(sending);
    }

    /// Adds a write for which somebody waits.
    pub(super) fn hasten(&mut self) {
        self.is_hasty = true;
    }

    pub(super) fn linger(&mut self, until: Instant) {
        self.linger_until.get_or_insert(until);
    }

    /// Notes that a push is settled, which had a row or had none.
    pub(super) fn note_settled(&mut self, had_row: bool, now: Instant) {
        self.settles = true;
        if !had_row {
            self.settled_early = Some(now);
        }
    }

    /// When the next commit is to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        let hasty = self.is_hasty.then_some(self.begun);
        [self.pushes_due(), hasty, self.linger_until].into_iter().flatten().min()
    }

    fn pushes_due(&self) -> Option<Instant> {
        let sent = self.unwritten.oldest()?;
        Some(match (self.spares(sent), self.settles) {
            (true, _) => sent + GRACE,
            (false, true) => self.begun + PACE,
            (false, false) => self.begun,
        })
    }

    /// Whether a push that was sent then is left alone while it is young.
    fn spares(&self, sent: Instant) -> bool {
        !self.is_behind && self.settled_early.is_some_and(|settled| settled + GRACE >= sent)
    }

    /// What a commit that begins now takes with it.
    pub(super) fn take(&mut self, now: Instant) -> Batch {
        let spares = !self.is_hasty
            && !self.is_closed
            && self.unwritten.oldest().is_some_and(|sent| self.spares(sent));
        let old = if spares { now.checked_sub(YOUNG) } else { None };
        (self.is_hasty, self.settles, self.is_behind, self.linger_until) = (false, false, false, None);
        self.begun = now;
        Batch {
            sendings: self.unwritten.take(old),
            writes: std::mem::take(&mut self.writes),
            deletions: std::mem::take(&mut self.deletions),
            usage: Usage::new(),
        }
    }

    /// All that waits.
    pub(super) fn take_all(&mut self) -> Batch {
        self.is_closed = true;
        self.take(self.begun)
    }
}
