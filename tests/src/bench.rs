//! The parts that the benchmarks share: phones and senders that cost next to nothing, and the journal that they write.
//!
//! All of it runs in one thread, so that what it needs is not there for the servers.

mod journal;
mod phone;
mod sender;
pub mod stanza;

pub use journal::{Account, BODY_BYTES, Journal, TAG_BYTES, Tag};
pub use phone::{Answering, LightPhone};
pub use sender::{Request, Sender, SteadySender, post};
