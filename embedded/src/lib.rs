//! The ports on SQLite: one file, one process, every promise on disk before it is given.

mod accounts;
mod clock;
mod database;
mod disk;
mod file;
mod layout;
mod legacy;
mod mailbox;
mod marker;
mod queue;
mod readers;
mod registrations;
mod row;
mod writer;

pub use clock::KnownTime;
pub use database::{Database, QUEUE_MAX};
pub use disk::{DISK_FLOOR, DiskLow};
pub use file::OpenError;
