//! The ports on SQLite: one file for one process. Every promise is on disk before it is given.

mod accounts;
mod backup;
mod beside;
mod clock;
mod database;
mod disk;
mod entries;
mod erasure;
mod file;
mod layout;
mod legacy;
mod mailbox;
mod marker;
mod queue;
mod queued;
mod readers;
mod registrations;
mod restore;
mod roster;
mod row;
mod setting;
mod tenants;
mod usage;
mod writer;

pub use backup::{BackupError, Contents, back_up};
pub use clock::KnownTime;
pub use database::{Database, QUEUE_MAX};
pub use disk::{DISK_FLOOR, DiskLow};
pub use file::{OpenError, is_in_use};
pub use restore::{Ending, EndsSince, Losses, Restoration};
