//! The lease. The relay that holds it is active, and sends nothing once the lease may have passed to another.

use std::{
    future::{Future, pending},
    time::Duration,
};

use push::ports::{Holder, Lease, Tenure, Unavailable};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::report,
    clock::Uptime,
    mutants::{Mutant, mutant},
};

mod rules;

use rules::{Holding, LOOK_INTERVAL, Look, Moment, NoAnswer, Step, Waiting};

/// The moment until which a relay may send, by its lease.
#[derive(Debug, Clone)]
pub struct Fence {
    until: watch::Receiver<Option<Moment>>,
    uptime: Uptime,
    lost: CancellationToken,
}

impl Fence {
    /// Returns a fence that always holds, for a relay that has its store for itself.
    #[must_use]
    pub fn open() -> Self {
        Self { until: watch::channel(None).1, uptime: Uptime::system(), lost: CancellationToken::new() }
    }

    /// Returns the fence of a lease that is lost.
    #[cfg(test)]
    pub(crate) fn lost_before() -> Self {
        let fence = Self::open();
        fence.lost.cancel();
        fence
    }

    /// Returns the fence of a lease that is ours up to each of these moments, by the runtime's clock.
    #[cfg(test)]
    pub(crate) fn until(until: watch::Receiver<Option<Moment>>) -> Self {
        let begun = tokio::time::Instant::now();
        Self { until, uptime: Uptime::new(move || begun.elapsed()), lost: CancellationToken::new() }
    }

    /// Returns whether the lease is ours at this moment.
    pub(crate) fn holds(&self) -> bool {
        let lapsed = |until| self.uptime.now() >= until && !mutant(Mutant::FenceIgnored);
        !self.lost.is_cancelled() && self.until.borrow().is_none_or(|until| !lapsed(until))
    }

    /// Resolves when the lease is ours: at once, or when it was renewed after it had lapsed. Nobody else can have held
    /// the lease in between. Once the lease is lost, this never resolves.
    pub(crate) async fn held(&self) {
        if self.holds() {
            return;
        }
        let mut until = self.until.clone();
        while !self.holds() {
            if self.is_lost() || until.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Resolves when the lease is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Returns whether the lease is known to be lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

/// A relay that is active, or waits to be.
#[derive(Debug)]
pub struct Candidate<L> {
    lease: L,
    holder: Holder,
    uptime: Uptime,
}

/// A lease that was taken.
#[derive(Debug)]
pub struct HeldLease {
    holding: Holding,
    until: watch::Sender<Option<Moment>>,
    uptime: Uptime,
    lost: CancellationToken,
}

impl HeldLease {
    /// Returns the fence that keeps a relay from sending once this lease is lost.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { until: self.until.subscribe(), uptime: self.uptime.clone(), lost: self.lost.clone() }
    }
}

impl<L: Lease> Candidate<L> {
    /// Makes a candidate. No other candidate has the same holder.
    pub fn new(lease: L, holder: Holder, uptime: Uptime) -> Self {
        Self { lease, holder, uptime }
    }

    /// Waits until the lease is free, and takes it. Calls `waits` once if another relay has it.
    pub async fn elected(&self, waits: impl FnOnce()) -> HeldLease {
        let mut waits = Some(waits);
        let mut waiting = Waiting::new(self.holder);
        loop {
            if let Ok(tenure) = answered(self.lease.look().await) {
                match waiting.look(tenure, self.uptime.now()) {
                    Look::Free(seen) => {
                        if let Some(term) = self.take(seen).await {
                            return term;
                        }
                    }
                    Look::Held => waits.take().into_iter().for_each(|waits| waits()),
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn take(&self, seen: Option<Tenure>) -> Option<HeldLease> {
        let asked = self.uptime.now();
        let tenure = answered(self.lease.take(self.holder, seen).await).ok().flatten()?;
        let holding = Holding::new(self.holder, tenure, asked);
        Some(HeldLease {
            until: watch::Sender::new(Some(holding.sends_until())),
            holding,
            uptime: self.uptime.clone(),
            lost: CancellationToken::new(),
        })
    }

    /// Renews the lease until it is lost, and then tells every fence.
    pub async fn hold(&self, term: HeldLease) {
        let HeldLease { mut holding, until, lost, .. } = term;
        loop {
            let now = self.uptime.now();
            match holding.step(now) {
                Step::Wait(until) => self.pass(until).await,
                Step::Renew(tenure) => {
                    let take = self.lease.take(self.holder, Some(tenure));
                    let Some(renewed) = self.before(holding.sends_until(), take).await else { continue };
                    holding.note_renewal(renewed, now);
                    until.send_replace(Some(holding.sends_until()));
                }
                Step::Look => {
                    let Some(seen) = self.before(holding.sends_until(), self.lease.look()).await else {
                        continue;
                    };
                    holding.note_look(seen, now);
                }
                Step::Lost if mutant(Mutant::GoesOnWithoutLease) => {
                    until.send_replace(None);
                    return std::future::pending().await;
                }
                Step::Lost => break,
            }
        }
        lost.cancel();
        tracing::error!(
            "the lease of the active relay is lost: nothing more is sent until this relay has it again"
        );
    }

    /// Returns the answer to a call, if it comes before `end`.
    async fn before<T>(
        &self,
        end: Moment,
        call: impl Future<Output = Result<T, Unavailable>>,
    ) -> Option<Result<T, NoAnswer>> {
        tokio::select! {
            biased;
            answer = call => Some(answered(answer)),
            () = self.pass(end) => None,
        }
    }

    /// Waits until this moment. A timer stands still while the machine is suspended, so the clock is read in between.
    async fn pass(&self, until: Moment) {
        loop {
            let left = until.saturating_sub(self.uptime.now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_INTERVAL)).await;
        }
    }

    /// Gives the lease back after a clean stop, so that another relay need not wait for its end.
    pub async fn resign(&self) {
        if let Err(error) = self.lease.release(self.holder).await {
            tracing::warn!(%error, "the lease could not be given back; another relay takes over when it has lapsed");
        }
    }
}

fn answered<T>(answer: Result<T, Unavailable>) -> Result<T, NoAnswer> {
    answer.map_err(|error| {
        report(&error, Duration::ZERO);
        NoAnswer
    })
}

#[cfg(test)]
mod tests;
