//! Decides what a candidate does about the lease, by what it saw in the store, and when it saw that by its own clock.
//!
//! The clocks need not show the same time. Each only has to go as fast as the others, and to go on while its machine is
//! suspended.

use std::time::Duration;

use push::ports::{Holder, Tenure};

/// A reading of the candidate's own clock.
pub(crate) type Moment = Duration;

/// Time that a lease lasts unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Time before the end of the lease at which its holder takes it for lost. Stanzas that are on their way then have gone
/// out by the end.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// Time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a renewal that has failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// Time between two looks of a relay that waits for the lease to be free.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The error that the store did not answer. It may have carried out the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoAnswer;

/// A candidate that waits for the lease.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    holder: Holder,
    /// Another's tenure, and the moment since which it has not changed.
    seen: Option<(Tenure, Moment)>,
}

/// The result of a look by a candidate that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nobody has the lease any more. It can be taken if its tenure is still this one.
    Free(Option<Tenure>),
    /// Another candidate has the lease.
    Held,
}

impl Waiting {
    pub(super) fn new(holder: Holder) -> Self {
        Self { holder, seen: None }
    }

    /// Takes an answer of the store, which came by `now`.
    pub(super) fn look(&mut self, tenure: Option<Tenure>, now: Moment) -> Look {
        // A lease that an earlier term of ours has left is free, because that term is over.
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
    /// The moment until which it may send.
    end: Moment,
    /// The moment at which it asks the store again.
    next: Moment,
    /// True if a renewal was refused. Only a look tells whether an earlier one was made, or another candidate has the
    /// lease.
    renewal_refused: bool,
    over: bool,
}

/// The next step of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait until this moment.
    Wait(Moment),
    Renew(Tenure),
    Look,
    /// The lease is lost.
    Lost,
}

impl Holding {
    /// Begins a term. The store was asked for the lease at `asked`, and has given it.
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

    /// Returns the moment until which it may send.
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

    /// Takes the outcome of a renewal that was asked for at `asked`.
    pub(super) fn note_renewal(&mut self, renewed: Result<Option<Tenure>, NoAnswer>, asked: Moment) {
        match renewed {
            Ok(Some(tenure)) => *self = Self::new(self.holder, tenure, asked),
            Ok(None) => self.renewal_refused = true,
            Err(NoAnswer) => self.next = asked + RENEW_AGAIN,
        }
    }

    /// Takes the result of a look that was asked for at `asked`. A look extends nothing: the next renewal does.
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
