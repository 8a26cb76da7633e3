//! The queue on SQLite: one row for each push, with the time at which it is due. Claims are in memory.
//!
//! Claims are not written. A claim ends with the process that could settle the push, and the next process finds every
//! row unclaimed. If no older push waits, a push is handed on from memory while its row is on the way to the disk. Only
//! the sender waits for the commit, or for the settlement if it comes first ([`crate::entries::unwritten`]). If the
//! commit fails, the sender is told, and the push may come twice. The row is read again only after a restart or a
//! postponement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use push::{
    PushMessage,
    ports::{Delivery, NotQueued, QueueReader, QueueWriter, Settlement, Unavailable},
    usage::Tally,
};
use rusqlite::Connection;
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{
    database::Database,
    entries::rows,
    writer::{Haste, refused},
};

/// Longest time that [`QueueReader::receive`] waits for a push.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

impl QueueWriter for Database {
    async fn send(&self, message: PushMessage) -> Result<(), NotQueued> {
        self.send_all(vec![message]).await
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), NotQueued> {
        if messages.is_empty() {
            return Ok(());
        }
        let registrations = messages.iter().map(|push| push.registration).collect();
        let known = self.known();
        let reservation = known.reserve(registrations, self.registration_queue_max());
        let reservation = reservation.ok_or(NotQueued::TooMany)?;
        let max = self.queue_max();
        if known.depth() >= max {
            let full = format!("the queue holds as many pushes as it may: {max} (UPWIRE_QUEUE_MAX)");
            return Err(Unavailable::new(full).into());
        }
        self.check_room().map_err(Unavailable::new)?;
        let room = self.writer().room().await;
        known.count(reservation);
        let outcome = self.writer().send(messages, room, self.shared().clock.read().now());
        Ok(outcome.await.unwrap_or_else(|_| Err(refused()))?)
    }
}

impl QueueReader for Database {
    type Receipt = i64;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<i64>>, Unavailable> {
        let deadline = Instant::now() + RECEIVE_WAIT;
        loop {
            // Senders that are ready run first, so that one call returns all of their pushes.
            yield_now().await;
            let now = self.shared().clock.read().now();
            let (deliveries, next_due_at) = self.claim(max, now)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            let wait = u64::try_from(next_due_at.saturating_sub(now.timestamp_millis())).unwrap_or(0);
            let due = Instant::now().checked_add(Duration::from_millis(wait));
            let wake = due.map_or(deadline, |due| due.min(deadline));
            tokio::select! {
                // A push that came before this is polled has left its permit, so none is missed.
                () = self.known().arrivals.notified() => {}
                () = sleep_until(wake) => {
                    if wake == deadline {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    /// Returns before the rows of deleted pushes are gone. Waiting for the deletion would delay the settlement of
    /// pushes without a row. [`QueueReader::close`] waits.
    async fn settle(&self, settlements: Vec<Settlement<i64>>) -> Result<(), Unavailable> {
        self.settle_counted(settlements, &Tally::default()).await
    }

    async fn settle_counted(
        &self,
        settlements: Vec<Settlement<i64>>,
        counts: &Tally,
    ) -> Result<(), Unavailable> {
        let mut again = Vec::new();
        let deleted = settlements.into_iter().filter_map(|settlement| match settlement {
            Settlement::Delete(seq) => Some(seq),
            Settlement::Postpone(seq, due_at) => {
                again.push((seq, due_at));
                None
            }
        });
        self.writer().settle(deleted.collect(), counts.take());
        if again.is_empty() { Ok(()) } else { self.postpone(again).await }
    }

    /// Returns when the rows of settled pushes are gone.
    async fn close(&self) {
        // A failure is logged by the writer: settled pushes are then delivered again after a restart.
        let _ = self.write(|_| Ok(())).await;
    }
}

impl Database {
    async fn postpone(&self, again: Vec<(i64, DateTime<Utc>)>) -> Result<(), Unavailable> {
        let known = self.known().clone();
        let postpone = move |connection: &Connection| {
            for (seq, due_at) in &again {
                rows::postpone(connection, *seq, *due_at)?;
            }
            Ok(again)
        };
        let committed = move |again: &Vec<(i64, DateTime<Utc>)>| {
            let mut backlog = known.backlog.lock();
            again.iter().for_each(|(seq, due_at)| backlog.postpone(*seq, due_at.timestamp_millis()));
            drop(backlog);
            // A postponed push can be claimed again from now on, perhaps at once.
            known.arrivals.notify_one();
        };
        self.write_then(Haste::Soon, postpone, committed).await.map(drop)
    }

    /// Claims pushes that are due. Also returns the time at which more may be due, in Unix milliseconds.
    fn claim(&self, max: usize, now: DateTime<Utc>) -> Result<(Vec<Delivery<i64>>, i64), Unavailable> {
        // The lock is held while the file is read: a push that is settled meanwhile stays claimed until its commit
        // shows.
        let mut backlog = self.known().backlog.lock();
        let fresh = backlog.fresh.len().min(max);
        let mut deliveries: Vec<_> = backlog.fresh.drain(..fresh).collect();
        if deliveries.len() < max && backlog.next_due_at() <= now.timestamp_millis() {
            let read =
                self.read(|connection| rows::claim_due(connection, &mut backlog, &mut deliveries, max, now));
            if let Err(error) = read {
                // Deliveries from rows are read again. The fresh ones go back, since they may have no row yet.
                deliveries.drain(fresh..).for_each(|delivery| backlog.postpone(delivery.receipt, 0));
                deliveries.into_iter().rev().for_each(|delivery| backlog.fresh.push_front(delivery));
                return Err(error);
            }
        }
        Ok((deliveries, backlog.next_due_at()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use push::{Body, RegistrationId, Target, testing};
    use rusqlite::params;

    use super::*;

    pub(crate) fn target() -> Target {
        testing::target("juliet@example.com/phone")
    }

    pub(crate) fn message(number: u16) -> PushMessage {
        let registration = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
        let mut message = testing::push(number.into(), &registration, DateTime::UNIX_EPOCH);
        message.body = Body::from_bytes(&[0; 4096]);
        message
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
            let insert = "INSERT INTO queue (seq, due_at, entry) VALUES (?1, 0, CAST(?2 AS BLOB))";
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
        database.close().await;
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
        // The writer thread releases the file when it has seen that every clone is dropped.
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
        let again = database.receive(1).await.unwrap()[0].receipt;
        let receipts = [again, again];
        database.settle(receipts.map(Settlement::Delete).into()).await.unwrap();
        database.close().await;
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
