//! The ports on SQLite: one file, one process, every promise on disk before it is given.

mod accounts;
mod backlog;
mod backup;
mod beside;
mod database;
mod disk;
mod erasure;
mod file;
mod layout;
mod mailbox;
mod queue;
mod readers;
mod registrations;
mod restore;
mod row;
mod shares;
mod writer;

pub use backup::{BackupError, Contents, back_up};
pub use database::{Database, QUEUE_MAX};
pub use disk::{DISK_FLOOR, DiskLow};
pub use file::OpenError;
pub use restore::{Ending, EndsSince, Losses, Restoration};
