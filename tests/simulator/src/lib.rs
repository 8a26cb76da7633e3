//! A simulator of the relay: the real one, on simulated ports, against a simulated XMPP server, in simulated time. One
//! seed is one run, and always the same.

mod bounds;
mod calls;
mod chance;
mod faults;
mod ledger;
mod mailbox;
mod phone;
mod pipe;
mod places;
mod plan;
mod queue;
mod relays;
mod sender;
mod sends;
mod server;
mod shrink;
mod slow;
mod steps;
mod store;
mod trace;
mod verdict;
mod world;
mod xml;

pub use ledger::Violation;
pub use plan::Plan;
#[cfg(feature = "mutants")]
pub use relay::{Mutant, make_mutant};
pub use shrink::shrink;

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// A hash of all that happened, and when.
    pub hash: u64,
    /// The number of events.
    pub events: u64,
    /// The pushes that were accepted.
    pub accepted: usize,
    /// The accepted pushes that were shown.
    pub shown: usize,
    /// The others: expired, dropped by a full mailbox, replaced by a later one of their topic.
    pub ended: [usize; 3],
    /// The invariant that was violated, if any.
    pub violation: Option<Violation>,
    /// The trace, where the plan asks for it.
    pub lines: Vec<String>,
}

/// Runs a plan.
///
/// # Panics
/// The runtime does not start.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let shared = runtime.block_on(world::World::run(plan));
    let shared_wall = {
        let _inside = runtime.enter();
        shared.wall()
    };
    drop(runtime);
    let mut state = shared.lock();
    let promised = || state.ledger.pushes.values().filter(|push| push.promised_at.is_some());
    Outcome {
        hash: state.trace.hash(),
        events: state.trace.count(),
        accepted: promised().count(),
        shown: promised().filter(|push| !push.shown.is_empty()).count(),
        ended: state.ledger.ends(shared_wall),
        violation: state.ledger.violation.clone(),
        lines: state.trace.take_lines(),
    }
}
