//! The entries of the queue: their rows, and their state in this process's memory.

mod backlog;
pub(crate) mod copies;
pub(crate) mod known;
pub(crate) mod rows;
mod shares;
pub(crate) mod unwritten;
