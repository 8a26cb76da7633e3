//! The open connections. If there are too many, the one whose request has been incomplete for longest is closed. No
//! I/O; times are arguments.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Phase;
use super::proxies::Proxies;

/// Most incomplete requests of one peer at a time, unless the peer is a proxy.
const INCOMPLETE_OF_PEER_MAX: usize = 64;
/// Length of the IPv6 prefix that counts as one peer. A subscriber has at least such a network, and may use another
/// address for each connection.
const SUBSCRIBER_BITS: u32 = 64;

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// As many connections are open as may be.
    Crowd,
    /// The peer has too many incomplete requests.
    Peer,
}

impl Reason {
    /// Returns the label in the metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Crowd => "crowd",
            Self::Peer => "peer",
        }
    }
}

/// The id of an open connection. Connections that were told to close do not count as open.
pub(crate) type Id = u64;

/// The decision about a new connection.
pub(crate) struct Admitted {
    /// The id of the new connection, and the token that tells it to close; `None`: it has to be closed at once.
    pub(crate) place: Option<(Id, CancellationToken)>,
    /// True if the bound was reached.
    pub(crate) is_full: bool,
    /// Why a connection is closed, the new one or another.
    pub(crate) closed: Option<Reason>,
}

struct Connection {
    peer: IpAddr,
    phase: Phase,
    closing: CancellationToken,
}

/// The open connections, by id and by phase.
pub(crate) struct Crowd {
    max: usize,
    proxies: Proxies,
    next: Id,
    connections: HashMap<Id, Connection>,
    /// Connections with an incomplete request, and the time since which it is incomplete.
    incomplete: BTreeSet<(Instant, Id)>,
    /// Connections with an incomplete request, for each peer that is no proxy.
    of_peers: HashMap<IpAddr, BTreeSet<(Instant, Id)>>,
    /// Connections between requests, and the time since which they are idle.
    idle: BTreeSet<(Instant, Id)>,
}

impl Crowd {
    /// Makes an empty crowd of at most `max` connections.
    pub(crate) fn new(max: usize, proxies: Proxies) -> Self {
        Self {
            max,
            proxies,
            next: 0,
            connections: HashMap::new(),
            incomplete: BTreeSet::new(),
            of_peers: HashMap::new(),
            idle: BTreeSet::new(),
        }
    }

    /// Admits a new connection, and closes another one if there is no room.
    pub(crate) fn admit(&mut self, peer: IpAddr, now: Instant) -> Admitted {
        let is_full = self.connections.len() >= self.max;
        let mut closed = None;
        if is_full {
            closed = Some(Reason::Crowd);
            let Some((_, id)) = self.incomplete.first().or(self.idle.first()).copied() else {
                return Admitted { place: None, is_full, closed };
            };
            self.close(id);
        }
        let (id, closing) = (self.next, CancellationToken::new());
        self.next += 1;
        let connection =
            Connection { peer: subscriber(peer), phase: Phase::Answering, closing: closing.clone() };
        self.connections.insert(id, connection);
        let is_of_peer = self.note(id, Phase::Fresh { since: now });
        Admitted { place: Some((id, closing)), is_full, closed: closed.or(is_of_peer) }
    }

    /// Notes the phase of a connection. If its peer has too many incomplete requests now, closes the oldest of them.
    pub(crate) fn note(&mut self, id: Id, phase: Phase) -> Option<Reason> {
        let connection = self.connections.get_mut(&id)?;
        let (before, peer) = (std::mem::replace(&mut connection.phase, phase), connection.peer);
        self.forget(id, before, peer);
        if let Phase::Idle { since } = phase {
            self.idle.insert((since, id));
        }
        let since = phase.incomplete_since()?;
        self.incomplete.insert((since, id));
        if self.proxies.has(peer) {
            return None;
        }
        let of_peer = self.of_peers.entry(peer).or_default();
        of_peer.insert((since, id));
        if of_peer.len() <= INCOMPLETE_OF_PEER_MAX {
            return None;
        }
        let (_, longest) = of_peer.first().copied()?;
        self.close(longest);
        Some(Reason::Peer)
    }

    /// Removes a closed connection.
    pub(crate) fn leave(&mut self, id: Id) {
        if let Some(connection) = self.connections.remove(&id) {
            self.forget(id, connection.phase, connection.peer);
        }
    }

    fn close(&mut self, id: Id) {
        if let Some(connection) = self.connections.get(&id) {
            connection.closing.cancel();
        }
        self.leave(id);
    }

    fn forget(&mut self, id: Id, phase: Phase, peer: IpAddr) {
        if let Phase::Idle { since } = phase {
            self.idle.remove(&(since, id));
        }
        if let Some(since) = phase.incomplete_since() {
            self.incomplete.remove(&(since, id));
            if let Some(of_peer) = self.of_peers.get_mut(&peer) {
                of_peer.remove(&(since, id));
                if of_peer.is_empty() {
                    self.of_peers.remove(&peer);
                }
            }
        }
    }
}

/// Returns the peer for which an address is counted.
fn subscriber(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::MAX << (128 - SUBSCRIBER_BITS);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests;
