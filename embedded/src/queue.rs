//! The queue on SQLite: a row for each push, due at a moment, claimed in memory.
//!
//! A claim is not written: it lasts as long as the process that could settle it, and the next
//! process finds every row unclaimed. A push that finds nothing waiting before it is handed on from
//! memory while its row is on the way to the disk; only the sender waits for that. Should the commit
//! fail, the sender is told so and the push may come twice. Its row is read again only after a restart
//! or a release.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{
    PushMessage, RegistrationId,
    ports::{Delivery, NotQueued, QueueReader, QueueWriter, Settlement, Unavailable},
};
use rusqlite::{Connection, params};
use tokio::time::{Instant, sleep_until};

use crate::{Database, backlog::Backlog, database::Shared, writer::Haste};

/// The longest that [`QueueReader::receive`] waits for a push.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

impl QueueWriter for Database {
    async fn send(&self, message: PushMessage) -> Result<(), NotQueued> {
        self.send_all(vec![message]).await
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), NotQueued> {
        let registrations = messages.iter().map(|push| push.registration).collect();
        let reservation = self.shared().shares.reserve(registrations, self.registration_queue_max());
        let reservation = reservation.ok_or(NotQueued::TooMany)?;
        let max = self.queue_max();
        if self.queue_depth() >= max {
            let full = format!("the queue holds as many pushes as it may: {max} (UPWIRE_QUEUE_MAX)");
            return Err(Unavailable::new(full).into());
        }
        let entries: Vec<_> = messages.into_iter().map(|push| (push.to_entry().into_bytes(), push)).collect();
        let (shared, count) = (self.shared().clone(), entries.len() as u64);
        let commits = self.commits().clone();
        let on_commit = shared.clone();
        let insert = move |connection: &Connection| {
            let insert =
                || entries.into_iter().map(|entry| insert(connection, &shared, &commits, entry)).collect();
            // One statement is that by itself.
            if count == 1 { insert() } else { all_or_none(connection, insert) }
        };
        let committed = move |waiting: &Vec<Option<i64>>| {
            reservation.keep();
            on_commit.depth.fetch_add(count, Ordering::Relaxed);
            if let Some(due_at) = waiting.iter().flatten().min() {
                on_commit.backlog.lock().waits(*due_at);
                on_commit.arrivals.notify_one();
            }
        };
        self.add(Haste::Now, insert, committed).await?;
        Ok(())
    }
}

impl QueueReader for Database {
    type Receipt = i64;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<i64>>, Unavailable> {
        let deadline = Instant::now() + RECEIVE_WAIT;
        loop {
            let now = self.shared().clock.read().now();
            let (deliveries, next_due_at) = self.claim(max, now)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            let wait = u64::try_from(next_due_at.saturating_sub(now.timestamp_millis())).unwrap_or(0);
            let due = Instant::now().checked_add(Duration::from_millis(wait));
            let wake = due.map_or(deadline, |due| due.min(deadline));
            tokio::select! {
                // A commit before this was polled has left its permit: nothing is overslept.
                () = self.shared().arrivals.notified() => {}
                () = sleep_until(wake) => {
                    if wake == deadline {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    async fn settle(&self, settlements: Vec<Settlement<i64>>) -> Result<(), Unavailable> {
        let shared = self.shared().clone();
        let delete_and_release = move |connection: &Connection| {
            let mut deleted = Deleted::default();
            for settlement in &settlements {
                settle(connection, settlement, &mut deleted)?;
            }
            Ok((deleted, settlements))
        };
        let committed = move |(deleted, settlements): &(Deleted, Vec<Settlement<i64>>)| {
            shared.depth.fetch_sub(deleted.rows, Ordering::Relaxed);
            shared.shares.give_back(&deleted.registrations);
            let mut backlog = shared.backlog.lock();
            settlements.iter().for_each(|settlement| backlog.settled(settlement));
            drop(backlog);
            // Only now can a released push be claimed again, perhaps at once.
            shared.arrivals.notify_one();
        };
        self.write_then(Haste::Soon, delete_and_release, committed).await?;
        Ok(())
    }
}

impl Database {
    /// Claims what is due; also returns when there may be more.
    fn claim(&self, max: usize, now: DateTime<Utc>) -> Result<(Vec<Delivery<i64>>, i64), Unavailable> {
        // Held while the file is read: what is settled meanwhile stays claimed until its commit is seen.
        let mut backlog = self.shared().backlog.lock();
        let fresh = backlog.fresh.len().min(max);
        let mut deliveries: Vec<_> = backlog.fresh.drain(..fresh).collect();
        if deliveries.len() < max && backlog.next_due_at <= now.timestamp_millis() {
            let read = self.read(|connection| claim_due(connection, &mut backlog, &mut deliveries, max, now));
            if let Err(error) = read {
                // What would have been returned stays unclaimed, in the file.
                deliveries.iter().for_each(|delivery| backlog.unclaim(delivery.receipt, 0));
                return Err(error);
            }
        }
        Ok((deliveries, backlog.next_due_at))
    }
}

/// Writes the row of a push, and hands it on from memory if it may be; otherwise returns when it is due.
fn insert(
    connection: &Connection,
    shared: &Shared,
    commits: &AtomicBool,
    (entry, message): (Vec<u8>, PushMessage),
) -> rusqlite::Result<Option<i64>> {
    const SEND: &str = "INSERT INTO queue (seq, due_at, attempts, registration, entry)
        VALUES (?1, ?2, 0, ?3, ?4)";
    let due_at = message.accepted_at.timestamp_millis();
    // Never one of a row that was rolled back: whoever holds that push may yet settle it.
    let seq = shared.next_seq.fetch_add(1, Ordering::Relaxed);
    connection.prepare_cached(SEND)?.execute(params![seq, due_at, message.registration.as_bytes(), entry])?;
    let delivery = Delivery { receipt: seq, attempts: 0, message };
    let offered =
        commits.load(Ordering::Relaxed) && shared.backlog.lock().offer(delivery, shared.clock.read().now());
    if offered {
        shared.arrivals.notify_one();
    }
    Ok((!offered).then_some(due_at))
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

/// Adds rows that are due, oldest first, and finds out when the next one is.
fn claim_due(
    connection: &Connection,
    backlog: &mut Backlog,
    deliveries: &mut Vec<Delivery<i64>>,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    const WAITING: &str = "SELECT seq, due_at FROM queue INDEXED BY queue_due ORDER BY due_at, seq";
    const ENTRY: &str = "SELECT attempts, entry FROM queue WHERE seq = ?1";
    let mut waiting = connection.prepare_cached(WAITING)?;
    let mut entry = connection.prepare_cached(ENTRY)?;
    let mut rows = waiting.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, due_at): (i64, i64) = (row.get(0)?, row.get(1)?);
        if backlog.claimed.contains(&seq) {
            continue;
        }
        if due_at > now.timestamp_millis() || deliveries.len() == max {
            backlog.next_due_at = due_at;
            return Ok(());
        }
        let (attempts, bytes): (u32, Vec<u8>) =
            entry.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        backlog.claimed.insert(seq);
        match PushMessage::from_entry(&bytes) {
            Ok(message) => deliveries.push(Delivery { receipt: seq, attempts, message }),
            // Left in the file, claimed, for the version that wrote it: it blocks nothing.
            Err(error) => tracing::error!(seq, %error, "a queue entry cannot be read, and is passed over"),
        }
    }
    backlog.next_due_at = i64::MAX;
    Ok(())
}

/// What is gone of the queue.
#[derive(Default)]
struct Deleted {
    rows: u64,
    /// One for each row that has one.
    registrations: Vec<RegistrationId>,
}

fn settle(
    connection: &Connection,
    settlement: &Settlement<i64>,
    deleted: &mut Deleted,
) -> rusqlite::Result<()> {
    const DELETE: &str = "DELETE FROM queue WHERE seq = ?1 RETURNING registration";
    const AGAIN: &str = "UPDATE queue SET due_at = ?2, attempts = attempts + ?3 WHERE seq = ?1";
    let (seq, due_at, attempts) = match settlement {
        Settlement::Delete(seq) => {
            let mut statement = connection.prepare_cached(DELETE)?;
            let registrations = statement.query_map([seq], |row| row.get::<_, Option<_>>(0))?;
            for registration in registrations {
                deleted.rows += 1;
                deleted.registrations.extend(registration?.map(RegistrationId::from_bytes));
            }
            return Ok(());
        }
        Settlement::Release(seq, due_at) => (seq, due_at, 1),
        Settlement::Postpone(seq, due_at) => (seq, due_at, 0),
    };
    connection.prepare_cached(AGAIN)?.execute(params![seq, due_at.timestamp_millis(), attempts])?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::TimeDelta;
    use push::{Application, Body, Instance, MessageId, Registration, Target, Ttl, Urgency, message::Wishes};

    use super::*;

    pub(crate) fn target() -> Target {
        Target {
            recipient: "juliet@example.com/phone".parse().unwrap(),
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([2; 32]),
            vapid: None,
            legacy: None,
        }
    }

    pub(crate) fn message(number: u16) -> PushMessage {
        let registration = Registration::renew(None, target(), DateTime::UNIX_EPOCH, TimeDelta::days(7));
        let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Normal, topic: None };
        let mut chance = [0; MessageId::CHANCE_BYTES];
        chance[..2].copy_from_slice(&number.to_be_bytes());
        PushMessage::new(chance, &registration, wishes, Body::from_bytes(&[0; 4096]), DateTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_full_disk_refuses_pushes_and_loses_none_that_it_took() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        let pages = |pages: u32| database.write(move |c| c.pragma_update(None, "max_page_count", pages));
        pages(100).await.unwrap();

        let sends = (0..200).map(|number| {
            let database = database.clone();
            tokio::spawn(async move { database.send(message(number)).await.is_ok() })
        });
        let mut taken = 0;
        for send in sends.collect::<Vec<_>>() {
            taken += u64::from(send.await.unwrap());
        }
        assert!(taken < 200, "the disk was not full");
        assert_eq!(database.queue_depth(), taken);

        pages(1_000_000).await.unwrap();
        database.send(message(200)).await.unwrap();
        let received = database.receive(1000).await.unwrap();
        assert_eq!(received.len() as u64, taken + 1);
    }

    #[tokio::test]
    async fn a_full_disk_takes_all_that_is_sent_together_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        database.write(|c| c.pragma_update(None, "max_page_count", 100)).await.unwrap();
        let mut taken = 0;
        while database.send_all((0..7).map(|number| message(taken + number)).collect()).await.is_ok() {
            taken += 7;
        }
        assert_eq!(database.read(crate::database::count_queue).unwrap(), u64::from(taken));
        assert_eq!(database.queue_depth(), u64::from(taken));
        assert!(taken > 0);
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_read_blocks_nothing_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        for (seq, entry) in [(-1, "{\"v\":2}"), (-2, "{"), (-3, "")] {
            let insert =
                "INSERT INTO queue (seq, due_at, attempts, entry) VALUES (?1, 0, 0, CAST(?2 AS BLOB))";
            database.write(move |c| c.execute(insert, params![seq, entry])).await.unwrap();
        }
        database.send(message(1)).await.unwrap();
        assert_eq!(database.receive(10).await.unwrap().len(), 1);
        assert_eq!(database.read(crate::database::count_queue).unwrap(), 4);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_pushes_until_one_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap().with_queue_max(2);
        for number in [1, 2] {
            database.send(message(number)).await.unwrap();
        }
        let refused = database.send(message(3)).await.unwrap_err().to_string();
        assert_eq!(refused, "the queue holds as many pushes as it may: 2 (UPWIRE_QUEUE_MAX)");
        assert!(database.clone().send(message(3)).await.is_err(), "a clone has the same bound");
        let receipt = database.receive(1).await.unwrap()[0].receipt;
        database.settle(vec![Settlement::Delete(receipt)]).await.unwrap();
        database.send(message(3)).await.unwrap();
    }

    #[tokio::test]
    async fn a_registration_has_no_more_than_its_part_of_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upwire.db");
        let database = Database::open(&path).unwrap().with_registration_queue_max(2);
        for number in [1, 2] {
            database.send(message(number)).await.unwrap();
        }
        let is_refused = async |database: &Database, number| {
            matches!(database.send(message(number)).await, Err(NotQueued::TooMany))
        };
        assert!(is_refused(&database, 3).await);
        let mut of_another = message(4);
        of_another.registration = RegistrationId::from_bytes([9; RegistrationId::BYTES]);
        let mixed = database.send_all(vec![of_another.clone(), message(3)]).await;
        assert!(matches!(mixed, Err(NotQueued::TooMany)), "all or none");
        database.send_all(vec![of_another.clone(), of_another]).await.unwrap();
        assert_eq!(database.queue_depth(), 4);

        drop(database);
        // The writer thread gives up the file when it has seen that nobody is left.
        let database = loop {
            match Database::open(&path) {
                Ok(database) => break database.with_registration_queue_max(2),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(is_refused(&database, 3).await, "an earlier process left two");
        let received = database.receive(10).await.unwrap();
        let of_mine = received.iter().find(|delivery| delivery.message.id == message(1).id).unwrap();
        database.settle(vec![Settlement::Postpone(of_mine.receipt, DateTime::UNIX_EPOCH)]).await.unwrap();
        assert!(is_refused(&database, 3).await, "it is there still");
        let receipts = [of_mine.receipt, of_mine.receipt];
        database.settle(receipts.map(Settlement::Delete).into()).await.unwrap();
        database.send(message(3)).await.unwrap();
        assert!(is_refused(&database, 5).await, "one is gone, not two");
    }

    #[tokio::test]
    async fn what_a_full_disk_refused_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let database =
            Database::open(&folder.path().join("upwire.db")).unwrap().with_registration_queue_max(40);
        let pages = |pages: u32| database.write(move |c| c.pragma_update(None, "max_page_count", pages));
        pages(70).await.unwrap();
        let (mut taken, mut refused) = (0, 0);
        for number in 0..100 {
            match database.send(message(number)).await {
                Ok(()) => taken += 1,
                Err(NotQueued::Unavailable(_)) => refused += 1,
                Err(NotQueued::TooMany) => panic!("{taken} were taken"),
            }
        }
        assert!(taken > 0 && refused > 40, "{taken} taken, {refused} refused");
        pages(1_000_000).await.unwrap();
        for number in taken..40 {
            database.send(message(1000 + number)).await.unwrap();
        }
        assert!(matches!(database.send(message(2000)).await, Err(NotQueued::TooMany)));
    }
}
