//! The rows of the queue: what is read and written of them.

use chrono::{DateTime, Utc};
use push::{PushMessage, RegistrationId, ports::Delivery};
use rusqlite::{Connection, params};

use super::{backlog::Backlog, unwritten::Sending};

/// The registration of a deleted row, where the row was there and says so.
pub(crate) type Deleted = Option<Option<RegistrationId>>;

/// Writes the rows of pushes that were sent together, all or none.
pub(crate) fn insert(connection: &Connection, sending: &Sending) -> rusqlite::Result<()> {
    const SEND: &str = "INSERT INTO queue (seq, due_at, attempts, registration, entry)
        VALUES (?1, ?2, 0, ?3, CAST(?4 AS BLOB))";
    let mut statement = connection.prepare_cached(SEND)?;
    let mut insert = || {
        for (seq, row) in sending.rows() {
            let message = &row.message;
            let due_at = message.accepted_at.timestamp_millis();
            statement.execute(params![seq, due_at, message.registration.as_bytes(), message.to_entry()])?;
        }
        Ok(())
    };
    // One statement is that by itself.
    if sending.rows().nth(1).is_none() { insert() } else { all_or_none(connection, insert) }
}

/// Undoes all of the statements where one of them fails.
fn all_or_none<T>(
    connection: &Connection,
    statements: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT together")?;
    let result = statements();
    // A full disk ends the whole transaction, and the savepoint with it.
    if !connection.is_autocommit() {
        let undo = if result.is_ok() { "" } else { "ROLLBACK TO together;" };
        connection.execute_batch(&format!("{undo} RELEASE together"))?;
    }
    result
}

/// Deletes a row.
pub(crate) fn delete(connection: &Connection, seq: i64) -> rusqlite::Result<Deleted> {
    const DELETE: &str = "DELETE FROM queue WHERE seq = ?1 RETURNING registration";
    let mut statement = connection.prepare_cached(DELETE)?;
    let mut rows = statement.query_map([seq], |row| row.get::<_, Option<_>>(0))?;
    let row = rows.next().transpose()?;
    // The deletion is complete when no row is left.
    rows.try_for_each(|row| row.map(drop))?;
    Ok(row.map(|registration| registration.map(RegistrationId::from_bytes)))
}

/// Has a push handed on again at a later moment.
pub(crate) fn postpone(
    connection: &Connection,
    seq: i64,
    due_at: DateTime<Utc>,
    attempts: u32,
) -> rusqlite::Result<()> {
    const AGAIN: &str = "UPDATE queue SET due_at = ?2, attempts = attempts + ?3 WHERE seq = ?1";
    connection.prepare_cached(AGAIN)?.execute(params![seq, due_at.timestamp_millis(), attempts])?;
    Ok(())
}

/// Adds rows that are due, oldest first, and finds out when the next one is.
pub(crate) fn claim_due(
    connection: &Connection,
    backlog: &mut Backlog,
    deliveries: &mut Vec<Delivery<i64>>,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    const WAITING: &str = "SELECT seq, due_at FROM queue INDEXED BY queue_due ORDER BY due_at, seq";
    const ENTRY: &str = "SELECT attempts, registration, entry FROM queue WHERE seq = ?1";
    let mut waiting = connection.prepare_cached(WAITING)?;
    let mut entry = connection.prepare_cached(ENTRY)?;
    let mut rows = waiting.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, due_at): (i64, i64) = (row.get(0)?, row.get(1)?);
        if backlog.is_claimed(seq) {
            continue;
        }
        if due_at > now.timestamp_millis() || deliveries.len() == max {
            backlog.next_due_at = due_at;
            return Ok(());
        }
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (attempts, registration, bytes): (u32, Option<[u8; RegistrationId::BYTES]>, Vec<u8>) =
            entry.query_row([seq], read)?;
        backlog.claim(seq, registration.map(RegistrationId::from_bytes));
        match PushMessage::from_entry(&bytes) {
            Ok(message) => deliveries.push(Delivery { receipt: seq, attempts, message }),
            // Left in the file, claimed, for the version that wrote it: it blocks nothing.
            Err(error) => tracing::error!(seq, %error, "a queue entry cannot be read, and is passed over"),
        }
    }
    backlog.next_due_at = i64::MAX;
    Ok(())
}
