//! The ports on SQLite: one file, one process, every promise on disk before it is given.

mod accounts;
mod database;
mod layout;
mod mailbox;
mod queue;
mod readers;
mod registrations;

pub use database::{Database, OpenError, QUEUE_MAX};
