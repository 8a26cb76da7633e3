//! The queue on SQLite: a row for each push, due at a moment, claimed in memory.
//!
//! A claim is not written: it lasts as long as the process that could settle it, and the next
//! process finds every row unclaimed.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, Utc};
use push::{
    PushMessage,
    ports::{Delivery, QueueReader, QueueWriter, Settlement, Unavailable},
};
use rusqlite::{Connection, params};
use tokio::time::{Instant, sleep_until};

use crate::{Database, database::unpoisoned};

/// The longest that [`QueueReader::receive`] waits for a push.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// The rows that were received and are not settled, by `seq`.
pub(crate) type Claims = HashSet<i64>;

/// What a look at the queue found.
enum Due {
    Now(Vec<Delivery<i64>>),
    NotBefore(Option<DateTime<Utc>>),
}

impl QueueWriter for Database {
    async fn send(&self, message: PushMessage) -> Result<(), Unavailable> {
        let entry = serde_json::to_vec(&message).map_err(Unavailable::new)?;
        let due_at = message.accepted_at.timestamp_millis();
        let shared = self.shared().clone();
        self.write(move |connection| {
            const SEND: &str = "INSERT INTO queue (due_at, attempts, entry) VALUES (?1, 0, ?2)";
            connection.prepare_cached(SEND)?.execute(params![due_at, entry])?;
            shared.depth.fetch_add(1, Ordering::Relaxed);
            shared.arrived.store(true, Ordering::Relaxed);
            Ok(())
        })
        .await
    }
}

impl QueueReader for Database {
    type Receipt = i64;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<i64>>, Unavailable> {
        let deadline = Instant::now() + RECEIVE_WAIT;
        loop {
            let now = now();
            let next = match self.claim(max, now)? {
                Due::Now(deliveries) => return Ok(deliveries),
                Due::NotBefore(next) => next,
            };
            let until_next = next.and_then(|next| (next - now).to_std().ok());
            let wake = until_next.map_or(deadline, |wait| deadline.min(Instant::now() + wait));
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
        let seqs: Vec<i64> = settlements.iter().map(receipt).collect();
        let shared = self.shared().clone();
        self.write(move |connection| {
            for settlement in settlements {
                let deleted = settle(connection, &settlement)?;
                shared.depth.fetch_sub(deleted, Ordering::Relaxed);
            }
            Ok(())
        })
        .await?;
        let mut claims = unpoisoned(&self.shared().claims);
        for seq in seqs {
            claims.remove(&seq);
        }
        drop(claims);
        // Only now can a released push be claimed again, perhaps at once.
        self.shared().arrivals.notify_one();
        Ok(())
    }
}

impl Database {
    fn claim(&self, max: usize, now: DateTime<Utc>) -> Result<Due, Unavailable> {
        // Taken before the read: what is settled meanwhile stays claimed until its commit is seen.
        let mut claims = unpoisoned(&self.shared().claims);
        self.read(|connection| claim_due(connection, &mut claims, max, now))
    }
}

fn claim_due(
    connection: &Connection,
    claims: &mut Claims,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<Due> {
    const WAITING: &str = "SELECT seq, due_at FROM queue INDEXED BY queue_due ORDER BY due_at, seq";
    const ENTRY: &str = "SELECT attempts, entry FROM queue WHERE seq = ?1";
    let mut waiting = connection.prepare_cached(WAITING)?;
    let mut entry = connection.prepare_cached(ENTRY)?;
    let mut rows = waiting.query([])?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, due_at): (i64, i64) = (row.get(0)?, row.get(1)?);
        if claims.contains(&seq) {
            continue;
        }
        if due_at > now.timestamp_millis() && deliveries.is_empty() {
            return Ok(Due::NotBefore(DateTime::from_timestamp_millis(due_at)));
        }
        if due_at > now.timestamp_millis() || deliveries.len() == max {
            break;
        }
        let (attempts, bytes): (u32, Vec<u8>) =
            entry.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        claims.insert(seq);
        match serde_json::from_slice(&bytes) {
            Ok(message) => deliveries.push(Delivery { receipt: seq, attempts, message }),
            // Left in the file, claimed, for the version that wrote it: it blocks nothing.
            Err(error) => tracing::error!(seq, %error, "a queue entry cannot be read, and is passed over"),
        }
    }
    if deliveries.is_empty() { Ok(Due::NotBefore(None)) } else { Ok(Due::Now(deliveries)) }
}

/// Returns how many rows are gone.
fn settle(connection: &Connection, settlement: &Settlement<i64>) -> rusqlite::Result<u64> {
    const DELETE: &str = "DELETE FROM queue WHERE seq = ?1";
    const RELEASE: &str = "UPDATE queue SET due_at = ?2, attempts = attempts + 1 WHERE seq = ?1";
    match settlement {
        Settlement::Delete(seq) => Ok(connection.prepare_cached(DELETE)?.execute([seq])? as u64),
        Settlement::Release(seq, due_at) => {
            connection.prepare_cached(RELEASE)?.execute(params![seq, due_at.timestamp_millis()])?;
            Ok(0)
        }
    }
}

fn receipt(settlement: &Settlement<i64>) -> i64 {
    match settlement {
        Settlement::Delete(seq) | Settlement::Release(seq, _) => *seq,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the queue's own clock, as SQS has one: a release names a moment"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use push::{Application, Body, Instance, MessageId, Registration, Target, Ttl, Urgency, message::Wishes};

    use super::*;

    fn message(number: u16) -> PushMessage {
        let target = Target {
            recipient: "juliet@example.com/phone".parse().unwrap(),
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([2; 32]),
        };
        let registration = Registration::renew(None, target, DateTime::UNIX_EPOCH, TimeDelta::days(7));
        let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Normal, topic: None };
        let mut id = [0; MessageId::BYTES];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let body = Body::from_bytes(&[0; 4096]);
        PushMessage::new(MessageId::from_bytes(id), &registration, wishes, body, DateTime::UNIX_EPOCH)
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
    async fn an_entry_that_cannot_be_read_blocks_nothing_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        for entry in ["{\"v\":2}", "{", ""] {
            let insert = "INSERT INTO queue (due_at, attempts, entry) VALUES (0, 0, CAST(?1 AS BLOB))";
            database.write(move |c| c.execute(insert, [entry])).await.unwrap();
        }
        database.send(message(1)).await.unwrap();
        assert_eq!(database.receive(10).await.unwrap().len(), 1);
        assert_eq!(database.read(crate::database::count_queue).unwrap(), 4);
    }
}
