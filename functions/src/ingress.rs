//! The parts and settings of the ingress, and what it knows from one request to the next.

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

/// The longest that the stores and the queue together may take over a request: a gateway bans a host that needs
/// more than two seconds (docs/senders.md, "What senders do").
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// The parts and settings of an ingress.
#[derive(Debug, Clone)]
pub struct Ingress<R, Q, M> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's writing end.
    pub queue: Q,
    /// Where pushes wait for phones that are away.
    pub mailbox: M,
    /// The secrets that endpoints and push message resources were signed with, at any time.
    pub secrets: watch::Receiver<Secrets>,
    /// The keys that endpoints of a predecessor were made with; their tokens are taken at the same path.
    pub legacy: watch::Receiver<LegacyKeys>,
    /// The terms of those endpoints.
    pub legacy_terms: LegacyTerms,
    /// The record that has to agree before an endpoint is said to have ended.
    pub marker: MarkerWatch,
    /// The rate at which pushes of one registration are taken.
    pub allowance: Allowance,
    /// The tenants, for which less may be taken.
    pub tenants: TenantWatch,
    /// Where application servers reach this ingress; the push message resources are named below it.
    /// `None`: wherever a request says that it was sent to ([`PublicUrl`]).
    pub public_url: Option<Url>,
    /// The push server that people enter on their phones; the page at the root names it.
    pub component: Option<BareJid>,
    /// The wall clock.
    pub clock: Clock,
    /// An endpoint that was refused because its life was over stays so, whatever the clock says later.
    pub remembers_refusals: bool,
    /// Matrix notifications that no push can carry.
    pub dropped: Dropped,
    /// Time for which a push without `TTL` is kept.
    pub default_ttl: Ttl,
    /// The longest that any push is kept.
    pub max_ttl: Ttl,
}

/// An extension of a request: where its sender reached this ingress, for one that was not told.
#[derive(Debug, Clone)]
pub struct PublicUrl(pub Url);

impl<R, Q, M> Ingress<R, Q, M> {
    /// Where senders reach it: first where they do from now on, then where this one did. Two while it moves; none if
    /// nobody says.
    pub(crate) fn homes<'a>(
        &'a self,
        reached_at: Option<&'a PublicUrl>,
    ) -> impl Iterator<Item = &'a Url> + Clone {
        self.public_url.iter().chain(reached_at.map(|PublicUrl(url)| url))
    }
}
