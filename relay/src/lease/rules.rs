//! Decides what a candidate does about the lease, from what it saw of the store, and when by its own clock.
//!
//! No two clocks need to agree; each only has to go as fast as the others, and on while its machine is suspended.

use std::time::Duration;

use push::ports::{Holder, Tenure};

/// A reading of the candidate's own clock.
pub(crate) type Moment = Duration;

/// Time that a lease lasts which is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Time before that at which its holder takes it for lost: what is on its way by then, goes out by then.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// Time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a renewal that has failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// Time between two looks of a relay that waits for it to be free.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The store did not answer; what it was asked for may have been done.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoAnswer;

/// A candidate that waits for the lease.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    holder: Holder,
    /// Another's tenure, and since when it stands as it is.
    seen: Option<(Tenure, Moment)>,
}

/// The finding of a candidate that waits and looks at the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nobody has it any more: it can be taken, if it still stands so.
    Free(Option<Tenure>),
    /// Another has it.
    Held,
}

impl Waiting {
    pub(super) fn new(holder: Holder) -> Self {
        Self { holder, seen: None }
    }

    /// The store has answered by `now`.
    pub(super) fn look(&mut self, tenure: Option<Tenure>, now: Moment) -> Look {
        // A lease that an earlier term of ours has left is free: that term is over.
        let held = tenure.filter(|tenure| tenure.holder.is_some_and(|holder| holder != self.holder));
        let Some(held) = held else { return Look::Free(tenure) };
        match self.seen {
            Some((seen, since)) if seen == held => {
                if now.saturating_sub(since) >= LEASE {
                    Look::Free(tenure)
                } else {
                    Look::Held
                }
            }
            _ => {
                self.seen = Some((held, now));
                Look::Held
            }
        }
    }
}

/// A candidate that has the lease.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    holder: Holder,
    tenure: Tenure,
    /// Until when it may send.
    end: Moment,
    /// When it asks the store again.
    next: Moment,
    /// A renewal was refused: only a look tells whether it was made before, or another has the lease.
    renewal_refused: bool,
    over: bool,
}

/// Decides the next step of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait until then.
    Wait(Moment),
    Renew(Tenure),
    Look,
    /// The lease is lost.
    Lost,
}

impl Holding {
    /// The lease was taken, for which the store was asked then.
    pub(super) fn new(holder: Holder, tenure: Tenure, asked: Moment) -> Self {
        Self {
            holder,
            tenure,
            end: asked + LEASE - MARGIN,
            next: asked + RENEW_INTERVAL,
            renewal_refused: false,
            over: false,
        }
    }

    /// Until when it may send.
    pub(super) fn sends_until(&self) -> Moment {
        self.end
    }

    pub(super) fn step(&self, now: Moment) -> Step {
        if self.over || now >= self.end {
            Step::Lost
        } else if now < self.next {
            Step::Wait(self.next.min(self.end))
        } else if self.renewal_refused {
            Step::Look
        } else {
            Step::Renew(self.tenure)
        }
    }

    /// Takes the outcome of a renewal that was asked for then.
    pub(super) fn note_renewal(&mut self, renewed: Result<Option<Tenure>, NoAnswer>, asked: Moment) {
        match renewed {
            Ok(Some(tenure)) => *self = Self::new(self.holder, tenure, asked),
            Ok(None) => self.renewal_refused = true,
            Err(NoAnswer) => self.next = asked + RENEW_AGAIN,
        }
    }

    /// Takes the finding of a look that was asked for then. It extends nothing: the next renewal does.
    pub(super) fn note_look(&mut self, seen: Result<Option<Tenure>, NoAnswer>, asked: Moment) {
        match seen {
            Ok(Some(seen)) if seen.holder == Some(self.holder) => {
                self.tenure = seen;
                self.renewal_refused = false;
            }
            Ok(_) => self.over = true,
            Err(NoAnswer) => self.next = asked + RENEW_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests;
