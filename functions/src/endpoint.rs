//! The endpoints that tokens stand for.

use chrono::{DateTime, Utc};
use push::{Epoch, Fingerprint, Registration, RegistrationId, Target};

use crate::ingress::Ingress;

/// The identity of an endpoint: the registration, and the epoch of its life. A predecessor's endpoint has one life, and
/// no epoch.
pub(crate) type EndpointKey = (RegistrationId, Option<Epoch>);

/// An endpoint whose token was made with one of our secrets, or a predecessor's. Any other request ends here, without
/// I/O.
pub(crate) enum Endpoint {
    /// The endpoint of one life of a registration.
    Ours(RegistrationId, Epoch),
    /// A predecessor's endpoint, with the fingerprint of its key. It gets a row with its first push, which records its
    /// end.
    Legacy(Target, Fingerprint),
}

impl Endpoint {
    pub(crate) fn key(&self) -> EndpointKey {
        match self {
            Self::Ours(id, epoch) => (*id, Some(*epoch)),
            Self::Legacy(target, _) => (target.registration_id(), None),
        }
    }

    /// Returns whether pushes to the endpoint are accepted, by the row of its registration.
    pub(crate) fn lives(&self, row: &Registration, now: DateTime<Utc>) -> bool {
        let of_this_life = match self {
            Self::Ours(_, epoch) => *epoch == row.epoch,
            Self::Legacy(..) => true,
        };
        of_this_life && row.lives(now)
    }
}

impl<R, Q, M> Ingress<R, Q, M> {
    /// Reads a token that was made with one of our secrets, or a predecessor's.
    pub(crate) fn endpoint(&self, token: &str) -> Option<Endpoint> {
        let of_a_predecessor =
            || self.legacy.borrow().read(token).map(|(target, key)| Endpoint::Legacy(target, key));
        self.endpoint_of_ours(token).or_else(of_a_predecessor)
    }

    /// Reads a token that was made with one of our secrets.
    pub(crate) fn endpoint_of_ours(&self, token: &str) -> Option<Endpoint> {
        let verified = self.secrets.borrow().verify(token).ok();
        verified.map(|(id, epoch)| Endpoint::Ours(id, epoch))
    }
}
