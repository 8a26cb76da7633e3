//! The room for pushes in the relay's memory, and its shares.

/// Most pushes that the relay holds. All shares are parts of these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Most pushes that the relay holds from the queue: in line, in flight, or waiting to be settled.
    pub(crate) held: usize,
    /// Most places: unanswered pushes in all.
    pub(crate) in_flight: usize,
}

impl Room {
    /// The room of a relay.
    pub(crate) const OF_RELAY: Self = Self { held: 4096, in_flight: 1024 };

    /// Number of held pushes beyond which an unproven full JID gets no second push in line. If its domain has its share
    /// of this number, the full JID gets none. Further pushes wait in the mailbox, which leaves room for proven ones.
    pub(crate) const fn held_crowded(self) -> usize {
        self.held / 2
    }

    /// Number of held pushes beyond which all pushes for unproven full JIDs wait in the mailbox.
    pub(crate) const fn held_full(self) -> usize {
        self.held / 8 * 7
    }

    /// Number of decisions that are not durable yet at which no further mailboxes are read, and decisions that recur
    /// are left out.
    pub(crate) const fn unsettled(self) -> usize {
        self.held / 4
    }

    /// Most places of one account while another account has a push ready.
    pub(crate) const fn per_account(self) -> usize {
        self.in_flight / 16
    }

    /// Number of one domain's taken places at which its unproven full JIDs get no further one. A sixteenth of all
    /// places is so left for the unproven full JIDs of other domains.
    pub(crate) const fn per_domain(self) -> usize {
        self.in_flight / 16 * 13
    }

    /// Number of taken places at which only proven full JIDs, in accounts within their share, get another one.
    pub(crate) const fn crowded(self) -> usize {
        self.in_flight / 8 * 7
    }

    /// Number of taken places at which they run short. Silent pushes are taken back then, if others want their places.
    pub(crate) const fn high_water(self) -> usize {
        self.per_domain()
    }

    /// Number of taken places down to which silent pushes are taken back.
    pub(crate) const fn low_water(self) -> usize {
        self.in_flight / 16 * 11
    }

    /// Number of taken places from which on ticks come more often.
    pub(crate) const fn busy(self) -> usize {
        self.in_flight / 16
    }

    /// Most silent pushes for which another full JID is sought in one tick, unless they were sent at one moment.
    pub(crate) const fn sought_per_tick(self) -> usize {
        self.in_flight / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of docs/bounds.md.
    #[test]
    fn the_shares_of_a_relay_are_those_that_are_documented() {
        let room = Room::OF_RELAY;
        assert_eq!(
            (room.held, room.held_crowded(), room.held_full(), room.unsettled()),
            (4096, 2048, 3584, 1024)
        );
        assert_eq!((room.in_flight, room.per_account(), room.per_domain()), (1024, 64, 832));
        assert_eq!((room.crowded(), room.high_water(), room.low_water()), (896, 832, 704));
        assert_eq!((room.busy(), room.sought_per_tick()), (64, 64));
    }
}
