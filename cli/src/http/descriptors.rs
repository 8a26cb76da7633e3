//! Descriptors: how many this process may have, and how many of them are for connections of senders.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ADMIN_CONNECTIONS_MAX;

/// Most connections of senders. Each takes some 20 KB at most while its request comes.
const CONNECTIONS_MAX: u64 = 4096;
/// Descriptors for the rest: the XMPP stream, the store and its readers, the listeners, the log.
const RESERVED: u64 = 96 + ADMIN_CONNECTIONS_MAX as u64;

/// Raises the limit of descriptors to the most that the system lets this process have; returns what it is then.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// Returns how many connections of senders there may be with so many descriptors.
pub(crate) fn connections_max(descriptors: u64) -> usize {
    descriptors.saturating_sub(RESERVED).max(descriptors / 4).clamp(1, CONNECTIONS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_needs_descriptors_has_them() {
        let cases = [(u64::MAX, 4096), (20_000, 4096), (1024, 896), (256, 128), (128, 32), (0, 1)];
        for (descriptors, connections) in cases {
            assert_eq!(connections_max(descriptors), connections, "{descriptors}");
        }
        assert!(raise_limit() > 0);
    }
}
