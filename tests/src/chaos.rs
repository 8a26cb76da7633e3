//! Chaos: thousands of pushes go to dozens of phones, while `upwire`, the XMPP server, the function and the network
//! between them fail. Phones come, go, hibernate, answer late or not at all. A ledger accounts for every 201.
//!
//! The plan (`plan`) draws all events from a seed before anything starts. The same seed is the same plan, however fast
//! the machine is. Each actor (`phones`, `senders`, `faults`) plays its part in order, late if something takes long,
//! and notes in the ledger (`ledger`) what really happened. When everything is mended, and every phone is back and
//! answers, the judgement (`judgement`) compares the ledger with the promises.
//!
//! The emulator of AWS is never killed. It keeps its queue and its table in memory, so a kill would lose data that AWS
//! keeps. The ways to it are cut instead.

mod backlog;
mod draw;
mod faults;
mod judgement;
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

pub use report::Report;

use crate::xmpp_server::Kind;

/// A run of chaos.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// The seed of the plan.
    pub seed: u64,
    /// The store of pushes.
    pub backend: Backend,
    /// The kind of XMPP server.
    pub server: Kind,
    /// The number of phones and pushes, and the duration.
    pub size: Size,
}

/// The store of pushes, and the processes that use it.
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
    /// Returns the plan as text, one event on each line.
    pub fn plan(&self) -> String {
        draw::plan(self).to_string()
    }

    /// Plays the plan, and judges the outcome. Panics if a part does not even start.
    pub async fn run(self) -> Report {
        run::run(self).await
    }
}
