//! Delivery decides where each push goes, when, and what an answer means.
//!
//! The code is pure: it has no task, clock, port, metric or channel. [`core::Core`] takes inputs and the moment, and
//! returns actions; the driver carries them out. Chance is in one place: [`known::Known`] hashes full JIDs with a
//! random key.

pub(crate) mod account;
pub(crate) mod core;
pub(crate) mod domains;
pub(crate) mod fate;
pub(crate) mod known;
pub(crate) mod line;
pub(crate) mod name;
pub(crate) mod phone;
pub(crate) mod rate;
pub(crate) mod reading;
pub(crate) mod requests;
pub(crate) mod retry;
pub(crate) mod room;
pub(crate) mod rota;
pub(crate) mod routes;
pub(crate) mod turns;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// The moment of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Wall clock, for expiries and for what a later process reads.
    pub(crate) wall: DateTime<Utc>,
    /// Earlier of the two times that the clock may mean. A push whose time ended before it has expired for certain.
    pub(crate) least: DateTime<Utc>,
    /// Monotonic clock, for delays.
    pub(crate) monotonic: Instant,
    /// True if this relay holds the lease, and may send.
    pub(crate) leased: bool,
}
