//! The parts that the benchmarks share: phones and senders that use little CPU, and the journal that they write.
//!
//! All of them run in one thread, which leaves the other cores to the servers.

mod journal;
mod phone;
mod sender;
pub mod stanza;

pub use journal::{Account, BODY_BYTES, Journal, TAG_BYTES, Tag};
pub use phone::{Answering, LightPhone};
pub use sender::{Request, Sender, SteadySender, post};
