//! Chaos: thousands of pushes to dozens of phones that come, go, hibernate, answer late or not at all, while
//! `upwire`, the XMPP server, the function, and the network between all of them fail; and a ledger by which
//! every 201 is accounted for.
//!
//! Events are drawn from a seed before anything starts (`plan`): the same seed is the same plan,
//! however fast the machine is. Each actor (`phones`, `senders`, `faults`) does its part of it in order, later where
//! something takes long, and notes in the ledger (`ledger`) what really happened. When all is mended and every phone is back and
//! answers, the ledger is judged (`verdict`) by what was promised.
//!
//! The emulator of AWS is never killed: it keeps its queue and its table in memory, so that a kill would lose what
//! AWS would not. The ways to it are cut instead.

mod backlog;
mod draw;
mod faults;
mod ledger;
mod machine;
mod order;
mod phones;
mod plan;
mod readiness;
mod report;
mod run;
mod senders;
mod stage;
mod verdict;

pub use report::Report;

use crate::xmpp_server::Kind;

/// A run: its parts and its seed.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// The seed of the plan.
    pub seed: u64,
    /// Where pushes are kept.
    pub backend: Backend,
    /// Which XMPP server.
    pub server: Kind,
    /// The size of a run.
    pub size: Size,
}

/// Where pushes are kept, and what runs for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `upwire serve`, on SQLite.
    Embedded,
    /// The function and `upwire relay`, on an emulated AWS.
    Cloud,
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The time that the plan lasts.
    pub seconds: u64,
    /// Phones; each has one application or two.
    pub phones: usize,
    /// Pushes, on average.
    pub pushes_per_second: usize,
}

impl Chaos {
    /// The plan, an event a line.
    pub fn plan(&self) -> String {
        draw::plan(self).to_string()
    }

    /// Lets it happen, and judges. Panics where something does not even run.
    pub async fn run(self) -> Report {
        run::run(self).await
    }
}
