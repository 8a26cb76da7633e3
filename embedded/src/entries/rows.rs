//! Reads and writes of the queue's rows.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use push::{PushMessage, RegistrationId, ports::Delivery};
use rusqlite::{Connection, OptionalExtension, params};

use super::{backlog::Backlog, unwritten::Sending};

/// The registration of a deleted row. The outer `None`: there was no row; the inner: the row has none.
pub(crate) type Deleted = Option<Option<RegistrationId>>;

/// Writes the rows of pushes that were sent together, all or none.
pub(crate) fn insert(connection: &Connection, sending: &Sending) -> rusqlite::Result<()> {
    const SEND: &str =
        "INSERT INTO queue (seq, due_at, registration, entry) VALUES (?1, ?2, ?3, CAST(?4 AS BLOB))";
    let mut statement = connection.prepare_cached(SEND)?;
    let mut insert = || {
        for (seq, row) in sending.rows() {
            let message = &row.message;
            let due_at = message.accepted_at.timestamp_millis();
            statement.execute(params![seq, due_at, message.registration.as_bytes(), message.to_entry()])?;
        }
        Ok(())
    };
    // A single statement is atomic by itself.
    if sending.rows().nth(1).is_none() { insert() } else { all_or_none(connection, insert) }
}

/// Runs statements, and undoes all of them if one fails.
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
    // SQLite completes the deletion when all rows are read.
    rows.try_for_each(|row| row.map(drop))?;
    Ok(row.map(|registration| registration.map(RegistrationId::from_bytes)))
}

/// Makes a push due at a later moment.
pub(crate) fn postpone(connection: &Connection, seq: i64, due_at: DateTime<Utc>) -> rusqlite::Result<()> {
    const AGAIN: &str = "UPDATE queue SET due_at = ?2 WHERE seq = ?1";
    connection.prepare_cached(AGAIN)?.execute(params![seq, due_at.timestamp_millis()])?;
    Ok(())
}

/// Claims rows that are due: first postponed ones, then unread ones, each oldest first.
pub(crate) fn claim_due(
    connection: &Connection,
    backlog: &mut Backlog,
    deliveries: &mut Vec<Delivery<i64>>,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    const POSTPONED: &str = "SELECT seq, due_at, entry FROM queue WHERE seq = ?1";
    const UNREAD: &str = "SELECT seq, due_at, entry FROM queue WHERE seq > ?1 ORDER BY seq";
    let mut postponed = connection.prepare_cached(POSTPONED)?;
    while deliveries.len() < max
        && let Some(seq) = backlog.take_due(now)
    {
        if backlog.is_claimed(seq) {
            continue;
        }
        let row = postponed.query_row([seq], read).optional();
        if let Some(row) = row.inspect_err(|_| backlog.postpone(seq, 0))? {
            deliveries.extend(claim(backlog, row, false));
        }
    }
    let mut unread = connection.prepare_cached(UNREAD)?;
    let mut rows = unread.query([backlog.read_up_to.unwrap_or(i64::MIN)])?;
    while deliveries.len() < max && !backlog.is_read {
        let Some(row) = rows.next()? else {
            backlog.is_read = true;
            break;
        };
        let row = read(row)?;
        backlog.read_up_to = Some(row.seq);
        if backlog.is_claimed(row.seq) {
            continue;
        }
        if row.due_at > now.timestamp_millis() {
            backlog.postpone(row.seq, row.due_at);
        } else {
            deliveries.extend(claim(backlog, row, true));
        }
    }
    Ok(())
}

/// A row as it is read.
struct Found {
    seq: i64,
    due_at: i64,
    entry: Vec<u8>,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found { seq: row.get(0)?, due_at: row.get(1)?, entry: row.get(2)? })
}

fn claim(backlog: &mut Backlog, row: Found, is_unread: bool) -> Option<Delivery<i64>> {
    let Found { seq, due_at, entry } = row;
    backlog.claim(seq);
    match PushMessage::from_entry(&entry) {
        Ok(message) => {
            // An earlier process that received the push may have postponed it, which changed `due_at`.
            let is_first = is_unread && due_at == message.accepted_at.timestamp_millis();
            Some(Delivery { receipt: seq, is_first, message: Arc::new(message) })
        }
        Err(error) => {
            // The row stays in the file, claimed, for the version that wrote it, and blocks no other row.
            tracing::error!(seq, %error, "a queue entry cannot be read, and is passed over");
            None
        }
    }
}
