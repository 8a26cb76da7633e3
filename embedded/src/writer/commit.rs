//! One commit: its writes and their results.

use push::usage::Usage;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    entries::{rows, unwritten::Sending},
    usage,
};

/// Runs within the transaction, and returns a closure for the outcome of the commit.
pub(super) type Statements = Box<dyn FnOnce(&Connection) -> AfterCommit + Send>;
pub(super) type AfterCommit = Box<dyn FnOnce(&Result<(), String>) + Send>;

pub(super) struct Write {
    pub(super) statements: Statements,
    pub(super) _room: OwnedSemaphorePermit,
}

/// The writes of one commit.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) sendings: Vec<Sending>,
    pub(super) writes: Vec<Write>,
    /// Rows of the queue to delete.
    pub(super) deletions: Vec<i64>,
    /// The usage of tenants.
    pub(super) usage: Usage,
}

/// The results of the statements that ran.
#[derive(Default)]
pub(super) struct Done {
    /// The result for each sending.
    pub(super) sent: Vec<rusqlite::Result<()>>,
    pub(super) written: Vec<AfterCommit>,
    /// The result of each deletion.
    pub(super) deleted: Vec<rows::Deleted>,
}

/// Runs the batch in one transaction. A write that did not run is dropped, and thereby refused.
pub(super) fn commit(
    connection: &mut Connection,
    batch: &mut Batch,
    done: &mut Done,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A full disk rolls back the whole transaction at the failing statement.
    let stands = |transaction: &Connection| {
        if transaction.is_autocommit() {
            let aborted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT);
            return Err(rusqlite::Error::SqliteFailure(aborted, Some("it was rolled back".into())));
        }
        Ok(())
    };
    for sending in &batch.sendings {
        done.sent.push(rows::insert(&transaction, sending));
        stands(&transaction)?;
    }
    for write in batch.writes.drain(..) {
        done.written.push((write.statements)(&transaction));
        stands(&transaction)?;
    }
    for seq in &batch.deletions {
        done.deleted.push(rows::delete(&transaction, *seq)?);
    }
    usage::add(&transaction, &batch.usage)?;
    transaction.commit()
}
