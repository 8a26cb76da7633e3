//! The entries of the queue: their rows, and what this process knows of them in memory.

mod backlog;
pub(crate) mod copies;
pub(crate) mod known;
pub(crate) mod rows;
mod shares;
pub(crate) mod unwritten;
