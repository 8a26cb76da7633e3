//! The work that the core hands to the driver.

use super::*;

/// One piece of work for the driver.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a push or a probe, on this stream only.
    Send(StreamNumber, String),
    /// Send an answer.
    Reply(Element),
    Start(Job),
    Count(Measure),
    /// End the driver: nothing is left to do after a stop.
    Finish,
}

/// A call of the store or the queue.
#[derive(Debug)]
pub(crate) enum Job {
    /// Receive this many pushes at most.
    Receive(usize),
    Read(ReadRequest),
    Look(BareJid),
    Settle(Vec<Fate>),
    Register(Vec<Registering>),
    /// Sweep on behind this registration, or from the beginning.
    Sweep(Option<ports::Registrant>),
    /// Count the registrations that live, on behind this one or from the beginning.
    Count(Option<ports::Registrant>),
}

/// A measurement for the metrics.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Measure {
    /// The time from the acceptance of a push to its acknowledgement.
    Delivered(TimeDelta),
    Expired,
    Retried,
    Throttled,
    RequestRefused,
    /// A user who is not on the access list has asked for a registration.
    NotAdmitted,
    InFlight(usize),
    /// Number of pushes that a stop gave back because they were not answered.
    Unanswered(usize),
    /// Registrations that lapse because the access list forbids their renewal: the domain with the most first.
    Lapsing(Vec<Lapsing>),
    /// Number of registrations of a tenant that live.
    Living(TenantName, usize),
}
