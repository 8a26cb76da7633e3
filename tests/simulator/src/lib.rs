//! The simulator runs the real relay on simulated ports, against a simulated XMPP server, in simulated time. A seed is
//! always the same run.

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
    /// Hash of all events and their moments.
    pub hash: u64,
    /// Number of events.
    pub events: u64,
    /// Number of pushes that got a 201.
    pub accepted: usize,
    /// Number of accepted pushes that a phone showed.
    pub shown: usize,
    /// Numbers of accepted pushes that no phone showed: expired; dropped by a full mailbox, or withdrawn; replaced by a
    /// later push of their topic. One push may be in several of them, or in none.
    pub ended: [usize; 3],
    /// The first violation of an invariant, if there was one.
    pub violation: Option<Violation>,
    /// Lines of the trace, if the plan keeps them.
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
