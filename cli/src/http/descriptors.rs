//! File descriptors: the process's limit, and the number for connections of senders.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ADMIN_CONNECTIONS_MAX;

/// Most connections of senders. Each takes at most about 20 KB while its request is received.
const CONNECTIONS_MAX: u64 = 4096;
/// Descriptors for the XMPP stream, the store and its readers, the listeners and the log.
const RESERVED: u64 = 96 + ADMIN_CONNECTIONS_MAX as u64;

/// Raises the soft limit of descriptors to the hard limit. Returns the resulting limit.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// Returns the number of connections of senders for this limit of descriptors.
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
