//! The parts and settings of the ingress, and the state that it keeps between requests.

mod allowance;
mod dropped;
mod legacy_terms;
mod marker_watch;
mod tenant_watch;

use std::time::Duration;

use jid::BareJid;
use push::{Clock, Secrets, Ttl};
use tokio::sync::watch;
use url::Url;

pub use self::{
    allowance::Allowance,
    dropped::Dropped,
    legacy_terms::{LEGACY_LIFE, LEGACY_MAX, LEGACY_OF_DOMAIN_MAX, LegacyTally, LegacyTerms},
    marker_watch::MarkerWatch,
    tenant_watch::TenantWatch,
};
use crate::legacy::LegacyKeys;

/// Longest time that the stores and the queue together may take for a request. Some gateways ban a host that needs more
/// than two seconds (docs/senders.md, "What senders do").
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// The parts and settings of an ingress.
#[derive(Debug, Clone)]
pub struct Ingress<R, Q, M> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's writing end.
    pub queue: Q,
    /// The mailboxes.
    pub mailbox: M,
    /// The secrets of endpoints and push message resources, which may change while the ingress runs.
    pub secrets: watch::Receiver<Secrets>,
    /// The keys of predecessors' endpoints, which have the same path as ours. They may change while the ingress runs.
    pub legacy: watch::Receiver<LegacyKeys>,
    /// The terms of predecessors' endpoints.
    pub legacy_terms: LegacyTerms,
    /// The marker, which has to agree before an endpoint is said to have ended.
    pub marker: MarkerWatch,
    /// The bound on pushes that are taken for one registration.
    pub allowance: Allowance,
    /// The tenants, whose quotas bound what is taken.
    pub tenants: TenantWatch,
    /// The URL at which application servers reach this ingress; push message resources are below it. `None`: the URL
    /// that comes with each request ([`PublicUrl`]).
    pub public_url: Option<Url>,
    /// The component, which people enter on their phones as the push server. The page at the root names it.
    pub component: Option<BareJid>,
    /// The wall clock.
    pub clock: Clock,
    /// True if a life that the clock ended is revoked before its senders are told, so that it stays over whatever the
    /// clock says later.
    pub remembers_refusals: bool,
    /// The count of Matrix notifications that no push could carry.
    pub dropped: Dropped,
    /// Time for which a push without `TTL` is kept.
    pub default_ttl: Ttl,
    /// Longest time for which any push is kept.
    pub max_ttl: Ttl,
}

/// An extension of a request: the URL at which its sender reached this ingress. Used if no public URL is set.
#[derive(Debug, Clone)]
pub struct PublicUrl(pub Url);

impl<R, Q, M> Ingress<R, Q, M> {
    /// Returns the URLs at which senders reach the ingress: the public URL, then the one that this request was sent to.
    /// Both are there while the ingress moves to another URL; there may be none.
    pub(crate) fn homes<'a>(
        &'a self,
        reached_at: Option<&'a PublicUrl>,
    ) -> impl Iterator<Item = &'a Url> + Clone {
        self.public_url.iter().chain(reached_at.map(|PublicUrl(url)| url))
    }
}
