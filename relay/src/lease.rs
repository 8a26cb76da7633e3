//! One relay is active: it holds a lease, and sends nothing once that may have passed to another.

use std::time::Duration;

use push::ports::{Holder, Lease, Tenure};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::jobs::retry::report;

/// How long a lease lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(15);
/// How long before that its holder takes it for lost: what is on its way by then, goes out by then.
const MARGIN: Duration = Duration::from_secs(1);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// How soon a renewal that has failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// How often whoever waits looks whether it is free.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Until when a relay may send.
#[derive(Debug, Clone)]
pub struct Fence {
    until: watch::Receiver<Option<Instant>>,
    lost: CancellationToken,
}

impl Fence {
    /// For a relay that has its store for itself: always.
    #[must_use]
    pub fn open() -> Self {
        Self { until: watch::channel(None).1, lost: CancellationToken::new() }
    }

    /// Whether the lease is ours at this moment.
    pub(crate) fn holds(&self) -> bool {
        !self.lost.is_cancelled() && self.until.borrow().is_none_or(|until| Instant::now() < until)
    }

    /// Resolves when the lease is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether it is known to be lost.
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
}

/// A lease that was taken.
#[derive(Debug)]
pub struct Term {
    tenure: Tenure,
    until: watch::Sender<Option<Instant>>,
    lost: CancellationToken,
}

impl Term {
    /// What keeps a relay from sending when the lease is lost.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { until: self.until.subscribe(), lost: self.lost.clone() }
    }
}

impl<L: Lease> Candidate<L> {
    /// A candidate of this name, which no other has.
    pub fn new(lease: L, holder: Holder) -> Self {
        Self { lease, holder }
    }

    /// Waits until the lease is free, and takes it. `waits` is called once if another relay has it.
    pub async fn elected(&self, waits: impl FnOnce()) -> Term {
        let mut waits = Some(waits);
        let mut seen: Option<(Tenure, Instant)> = None;
        loop {
            match self.lease.look().await {
                Err(error) => report(&error, Duration::ZERO),
                Ok(tenure) => {
                    // What an earlier term of ours has left is free: that term is over.
                    let held =
                        tenure.filter(|tenure| tenure.holder.is_some_and(|holder| holder != self.holder));
                    let lapsed = held.is_some_and(|held| {
                        seen.is_some_and(|(before, since)| before == held && since.elapsed() >= LEASE)
                    });
                    if (held.is_none() || lapsed)
                        && let Some(term) = self.take(tenure).await
                    {
                        return term;
                    }
                    if let Some(held) = held.filter(|held| seen.is_none_or(|(before, _)| before != *held)) {
                        seen = Some((held, Instant::now()));
                        waits.take().into_iter().for_each(|waits| waits());
                    }
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn take(&self, seen: Option<Tenure>) -> Option<Term> {
        let until = Instant::now() + LEASE - MARGIN;
        let taken = self.lease.take(self.holder, seen).await;
        let tenure = taken.inspect_err(|error| report(error, Duration::ZERO)).ok().flatten()?;
        Some(Term { tenure, until: watch::Sender::new(Some(until)), lost: CancellationToken::new() })
    }

    /// Renews the lease until it is lost, and says so to every fence.
    pub async fn hold(&self, term: Term) {
        let Term { mut tenure, until, lost } = term;
        let mut end = until.borrow().unwrap_or_else(Instant::now);
        let mut next = Instant::now() + RENEW_INTERVAL;
        loop {
            if next >= end {
                sleep_until(end).await;
                break;
            }
            sleep_until(next).await;
            let asked = Instant::now();
            match timeout_at(end, self.lease.take(self.holder, Some(tenure))).await {
                Err(_) => break,
                Ok(Ok(Some(renewed))) => {
                    tenure = renewed;
                    end = asked + LEASE - MARGIN;
                    until.send_replace(Some(end));
                    next = asked + RENEW_INTERVAL;
                }
                // A renewal that was made and not answered looks so, too: the next look tells.
                Ok(Ok(None)) => match self.lease.look().await {
                    Ok(Some(seen)) if seen.holder == Some(self.holder) => tenure = seen,
                    Ok(_) => break,
                    Err(error) => {
                        report(&error, Duration::ZERO);
                        next = asked + RENEW_AGAIN;
                    }
                },
                Ok(Err(error)) => {
                    report(&error, Duration::ZERO);
                    next = asked + RENEW_AGAIN;
                }
            }
        }
        lost.cancel();
        tracing::error!(
            "the lease of the active relay is lost: nothing more is sent until this relay has it again"
        );
    }

    /// Gives the lease back after a clean stop, so that another relay need not wait for its end.
    pub async fn resign(&self) {
        if let Err(error) = self.lease.release(self.holder).await {
            tracing::warn!(%error, "the lease could not be given back; another relay takes over when it has lapsed");
        }
    }
}
