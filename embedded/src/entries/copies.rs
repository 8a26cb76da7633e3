//! Pushes that a crash left both in the queue and in the mailbox.

use push::{
    Clock, PushMessage,
    usage::{Counts, Meter, Tally},
};
use rusqlite::{Connection, TransactionBehavior, params};

use super::rows;
use crate::{roster, usage};

/// Deletes these pushes from the queue, and counts them, as the earlier process would have.
pub(crate) fn finish(connection: &mut Connection) -> rusqlite::Result<()> {
    const IS_SOMETHING_KEPT: &str = "SELECT EXISTS (SELECT 1 FROM mailbox)";
    if !connection.query_row(IS_SOMETHING_KEPT, [], |row| row.get(0))? {
        return Ok(());
    }
    let copies = copies(connection)?;
    if copies.is_empty() {
        return Ok(());
    }
    let (meter, tally) = (Meter::default(), Tally::default());
    meter.set_tenants(roster::stored(connection)?.standings());
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (seq, message) in &copies {
        rows::delete(&transaction, *seq)?;
        let mut counts = Counts::accepted(message);
        counts += Counts { waited: 1, ..Counts::default() };
        meter.count(message.recipient.domain().as_str(), counts, Clock::system().now(), &tally);
    }
    usage::add(&transaction, &tally.take())?;
    tracing::info!(pushes = copies.len(), "pushes that wait in the mailbox have left the queue");
    transaction.commit()
}

fn copies(connection: &Connection) -> rusqlite::Result<Vec<(i64, PushMessage)>> {
    let mut statement = connection.prepare("SELECT seq, entry FROM queue")?;
    let mut rows = statement.query(params![])?;
    let mut copies = Vec::new();
    while let Some(row) = rows.next()? {
        let entry: Vec<u8> = row.get(1)?;
        if let Ok(message) = PushMessage::from_entry(&entry)
            && is_kept(connection, &message)?
        {
            copies.push((row.get(0)?, message));
        }
    }
    Ok(copies)
}

fn is_kept(connection: &Connection, message: &PushMessage) -> rusqlite::Result<bool> {
    const IS_KEPT: &str = "SELECT EXISTS (SELECT 1 FROM mailbox WHERE account = ?1 AND id = ?2)";
    let account = message.recipient.to_bare();
    let key = params![account.as_str(), message.id.as_bytes()];
    connection.prepare_cached(IS_KEPT)?.query_row(key, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use push::{
        MailboxBounds, Roster, Tenant,
        ports::{Mailbox, QueueWriter, TenantsWriter, Waiting},
    };

    use crate::{database::Database, queue::tests::message};

    #[tokio::test]
    async fn a_push_that_a_crash_left_in_both_waits_and_has_left_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upwire.db");
        let database = Database::open(&path).unwrap();
        let mut roster = Roster { version: 1, ..Roster::default() };
        roster.add("example.com".parse().unwrap(), Tenant::new(chrono::DateTime::UNIX_EPOCH)).unwrap();
        assert!(database.set_roster(&roster).await.unwrap());
        for number in [1, 2] {
            database.send(message(number)).await.unwrap();
        }
        let waiting = Waiting { message: message(1), asked_at: None };
        database.keep(waiting, MailboxBounds { of_registration: 10, of_account: 10 }).await.unwrap();
        drop(database);
        let again = loop {
            match Database::open(&path) {
                Ok(database) => break database,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!((again.queue_depth(), again.mailbox_depth()), (1, 1));
        let usage = again.usage(0, i64::MAX).await.unwrap();
        let counts: Vec<_> = usage.values().map(|counts| (counts.accepted, counts.waited)).collect();
        assert_eq!(counts, [(1, 1)]);
    }
}
