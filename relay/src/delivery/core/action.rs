//! The work that the core hands to the driver.

use super::*;

/// One piece of work for the driver.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a push, or a probe, on this stream alone.
    Send(StreamNumber, String),
    /// Send an answer.
    Reply(Element),
    Start(Job),
    Count(Measure),
    /// Nothing is left to do after a stop.
    Finish,
}

/// A call of the store or the queue.
#[derive(Debug)]
pub(crate) enum Job {
    /// Receive as many pushes at most.
    Receive(usize),
    Read(ReadRequest),
    Look(BareJid),
    Settle(Vec<Fate>),
    Register(Vec<Registering>),
    /// Read on from there, or from the beginning.
    Sweep(Option<ports::Registrant>),
    /// Read the registrations that live, from there or from the beginning.
    Count(Option<ports::Registrant>),
}

/// One count for the metrics.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Measure {
    /// A push was acknowledged so long after it was accepted.
    Delivered(TimeDelta),
    Expired,
    Retried,
    Throttled,
    RequestRefused,
    /// Somebody asked for a registration who is not on the access list.
    NotAdmitted,
    InFlight(usize),
    /// This many pushes were not answered before the stop.
    Unanswered(usize),
    /// Registrations that lapse because the access list forbids their renewal, most first.
    Lapsing(Vec<Lapsing>),
    /// So many registrations of a tenant live.
    Living(TenantName, usize),
}
