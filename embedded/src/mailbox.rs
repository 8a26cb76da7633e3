//! The mailbox on SQLite: one row for each push that waits, keyed by account and id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use chrono::{DateTime, TimeDelta, Utc};
use jid::BareJid;
use push::{
    Epoch, MailboxBounds, MessageId, PushMessage, RegistrationId, Topic,
    ports::{Kept, Mailbox, Page, Registrant, Trimmed, Unavailable, Waiting, Withdrawals},
    usage::{Drops, Tally},
};
use rusqlite::{Connection, named_params, params};

use self::reading::id;
use crate::{database::Database, writer::Haste};

mod reading;

/// Time for which an expired push stays, so that the relay can remove and count it.
const PURGE_AFTER: TimeDelta = TimeDelta::days(1);
/// Most long-expired pushes that are purged when a push is kept. More than one, so that they do not accumulate.
const PURGED_PER_KEEP_MAX: i64 = 16;

const STORE: &str = "INSERT OR REPLACE INTO mailbox
    (account, id, registration, epoch, topic, asked_at, expires_at, entry)
    VALUES (:account, :id, :registration, :epoch, :topic, :asked_at, :expires_at, :entry)";
const PURGE: &str = "DELETE FROM mailbox WHERE rowid IN
    (SELECT rowid FROM mailbox WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
const IS_THERE: &str = "SELECT EXISTS (SELECT 1 FROM mailbox WHERE account = ?1 AND id = ?2)";
const OF_TOPIC: &str = "SELECT id FROM mailbox INDEXED BY mailbox_topic
    WHERE account = ?1 AND registration = ?2 AND topic = ?3";
const COUNT_OF_REGISTRATION: &str = "SELECT count(*) FROM mailbox INDEXED BY mailbox_of_registration
    WHERE account = ?1 AND registration = ?2 AND expires_at > ?3";
const OF_REGISTRATION: &str = "SELECT id FROM mailbox INDEXED BY mailbox_of_registration
    WHERE account = ?1 AND registration = ?2 AND expires_at > ?3";
const COUNT_OF_ACCOUNT: &str = "SELECT count(*) FROM mailbox INDEXED BY mailbox_of_registration
    WHERE account = ?1 AND expires_at > ?2";
const OF_ACCOUNT: &str = "SELECT id, registration FROM mailbox INDEXED BY mailbox_of_registration
    WHERE account = ?1 AND expires_at > ?2";
const NOTE_ASKED: &str = "UPDATE mailbox SET asked_at = ?3 WHERE account = ?1 AND id = ?2";
/// An expired push stays, so that the relay removes and counts it.
const WITHDRAW: &str = "DELETE FROM mailbox WHERE account = ?1 AND id = ?2 AND expires_at > ?3";
const REMOVE: &str = "DELETE FROM mailbox WHERE account = ?1 AND id = ?2";
const CLEAR: &str = "DELETE FROM mailbox WHERE account = ?1 AND registration = ?2 AND epoch <= ?3";

impl Mailbox for Database {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        self.keep_counted(waiting, bounds, &Drops::default()).await
    }

    async fn keep_counted(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
        drops: &Drops,
    ) -> Result<Kept, Unavailable> {
        let (shared, noted) = (self.shared().clone(), drops.clone());
        // The clock may have been wrong when the push was accepted.
        let least = self.shared().clock.read().read().least();
        let statements = move |connection: &Connection| {
            let (kept, gone) = keep(connection, &waiting, bounds, least)?;
            noted.note(&kept.dropped);
            Ok((kept, gone))
        };
        let committed = move |(_, gone): &(Kept, usize)| {
            shared.waiting.fetch_add(1, Ordering::Relaxed);
            shared.waiting.fetch_sub(*gone as u64, Ordering::Relaxed);
        };
        // Further settlements wait for this one. The push's row in the queue is often in the same commit.
        let (kept, _) = self.add_counted(Haste::Now, statements, committed, &drops.counts).await?;
        Ok(kept)
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let (account, of) = (account.clone(), of.cloned());
        self.read_apart(move |connection| match of {
            None => reading::all_waiting(connection, &account, after, max),
            Some(of) => reading::waiting_of(connection, &account, &of, after, max),
        })
        .await
    }

    async fn find(&self, account: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        self.read(|connection| reading::find_one(connection, account, message))
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        self.remove_counted(messages, &BTreeMap::new()).await
    }

    async fn remove_counted(
        &self,
        messages: Vec<(BareJid, MessageId)>,
        counts: &BTreeMap<MessageId, Tally>,
    ) -> Result<(), Unavailable> {
        let (of_each, taken) = (counts.clone(), Tally::default());
        let all = taken.clone();
        let removal = move |connection: &Connection| {
            let mut gone = 0;
            for (account, id) in &messages {
                let removed = remove(connection, account, *id)?;
                let counts = of_each.get(id).map(Tally::take).unwrap_or_default();
                // A push that is not there was removed and counted before.
                if removed > 0 {
                    all.add(counts);
                }
                gone += removed;
            }
            Ok(gone)
        };
        let shared = self.shared().clone();
        let committed = move |gone: &usize| {
            shared.waiting.fetch_sub(*gone as u64, Ordering::Relaxed);
        };
        let outcome = self.write_counted(Haste::Soon, removal, committed, &taken).await;
        if outcome.is_err()
            && let Some(one) = counts.values().next()
        {
            one.add(taken.take());
        }
        outcome.map(drop)
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let account = account.clone();
        let note = move |connection: &Connection| {
            let values = params![account.as_str(), message.as_bytes(), asked_at.timestamp_millis()];
            connection.prepare_cached(NOTE_ASKED)?.execute(values)
        };
        self.write_then(Haste::Soon, note, |_| ()).await.map(drop)
    }

    async fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<usize, Unavailable> {
        let account = account.clone();
        self.take_out(Haste::Soon, move |connection| {
            let key = params![account.as_str(), registration.as_bytes(), epoch.as_seconds()];
            connection.prepare_cached(CLEAR)?.execute(key)
        })
        .await
    }

    async fn trim(&self, account: &BareJid, max: usize, now: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        self.trim_counted(account, max, now, &Drops::default()).await
    }

    async fn trim_counted(
        &self,
        account: &BareJid,
        max: usize,
        now: DateTime<Utc>,
        drops: &Drops,
    ) -> Result<Trimmed, Unavailable> {
        let (account, shared, noted) = (account.clone(), self.shared().clone(), drops.clone());
        let statements = move |connection: &Connection| {
            let trimmed = trim(connection, &account, max, now)?;
            noted.note(&trimmed.dropped);
            Ok(trimmed)
        };
        let committed = move |trimmed: &Trimmed| {
            shared.waiting.fetch_sub(trimmed.dropped.len() as u64, Ordering::Relaxed);
        };
        self.write_counted(Haste::Soon, statements, committed, &drops.counts).await
    }

    async fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        let recipients =
            self.read_apart(move |connection| reading::recipients(connection, after, max)).await?;
        // A full page may be the last one; then an empty one follows.
        let last = recipients.last().filter(|_| recipients.len() >= max);
        let further = last.map(|(recipient, _)| recipient.clone());
        Ok((recipients, further))
    }
}

impl Withdrawals for Database {
    async fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        let account = account.clone();
        let statements = move |connection: &Connection| {
            let push = params![account.as_str(), message.as_bytes(), now.timestamp_millis()];
            connection.prepare_cached(WITHDRAW)?.execute(push)
        };
        Ok(self.take_out(Haste::Now, statements).await? > 0)
    }
}

impl Database {
    /// Runs statements that return the number of pushes that they removed.
    async fn take_out(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static,
    ) -> Result<usize, Unavailable> {
        let shared = self.shared().clone();
        let committed = move |gone: &usize| {
            shared.waiting.fetch_sub(*gone as u64, Ordering::Relaxed);
        };
        self.write_then(haste, statements, committed).await
    }
}

/// Adds a row. Also returns the number of other rows that were deleted for it.
///
/// The row is stored before any other is deleted, so a failure in between loses no push.
fn keep(
    connection: &Connection,
    waiting: &Waiting,
    bounds: MailboxBounds,
    least: DateTime<Utc>,
) -> rusqlite::Result<(Kept, usize)> {
    let message = &waiting.message;
    let account = message.recipient.to_bare();
    let mut gone = purge(connection, message.accepted_at.min(least))?;
    let key = params![account.as_str(), message.id.as_bytes()];
    let overwritten: bool = connection.prepare_cached(IS_THERE)?.query_row(key, |row| row.get(0))?;
    gone += usize::from(overwritten);
    store(connection, &account, waiting)?;

    let replaced = all_but_the_newest_of_its_topic(connection, &account, message)?;
    gone += remove_all(connection, &account, &replaced)?;
    let mut dropped = beyond_the_bound(connection, &account, message, bounds.of_registration)?;
    gone += remove_all(connection, &account, &dropped)?;
    let (of_account, _) =
        beyond_the_bound_of_the_account(connection, &account, message.accepted_at, bounds.of_account)?;
    gone += remove_all(connection, &account, &of_account)?;
    dropped.extend(of_account);
    Ok((Kept { replaced, dropped }, gone))
}

fn purge(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<usize> {
    let expired_before = (now - PURGE_AFTER).timestamp_millis();
    let purged = connection.prepare_cached(PURGE)?.execute(params![expired_before, PURGED_PER_KEEP_MAX])?;
    if purged > 0 {
        tracing::debug!(purged, "pushes were removed from the mailbox long after their expiry");
    }
    Ok(purged)
}

fn store(connection: &Connection, account: &BareJid, waiting: &Waiting) -> rusqlite::Result<()> {
    let message = &waiting.message;
    connection.prepare_cached(STORE)?.execute(named_params! {
        ":account": account.as_str(),
        ":id": message.id.as_bytes(),
        ":registration": message.registration.as_bytes(),
        ":epoch": message.epoch.as_seconds(),
        ":topic": message.topic.as_ref().map(Topic::as_str),
        ":asked_at": waiting.asked_at.map(|asked_at| asked_at.timestamp_millis()),
        ":expires_at": message.expires_at.timestamp_millis(),
        ":entry": message.to_entry().into_bytes(),
    })?;
    Ok(())
}

fn oldest_first(
    connection: &Connection,
    query: &str,
    key: impl rusqlite::Params,
) -> rusqlite::Result<Vec<MessageId>> {
    let mut statement = connection.prepare_cached(query)?;
    let mut ids = statement.query_map(key, id)?.collect::<rusqlite::Result<Vec<_>>>()?;
    ids.sort_unstable_by(|one, other| one.age().cmp(other.age()));
    Ok(ids)
}

/// Returns all pushes of a stored push's topic but the newest, the oldest first. The stored push itself is among them
/// if it is not the newest.
fn all_but_the_newest_of_its_topic(
    connection: &Connection,
    account: &BareJid,
    message: &PushMessage,
) -> rusqlite::Result<Vec<MessageId>> {
    let Some(topic) = &message.topic else { return Ok(Vec::new()) };
    let key = params![account.as_str(), message.registration.as_bytes(), topic.as_str()];
    let mut ids = oldest_first(connection, OF_TOPIC, key)?;
    ids.pop();
    Ok(ids)
}

/// Returns the pushes that a registration has beyond `max`, the oldest first. Pushes that had expired when this one was
/// accepted do not count.
fn beyond_the_bound(
    connection: &Connection,
    account: &BareJid,
    message: &PushMessage,
    max: usize,
) -> rusqlite::Result<Vec<MessageId>> {
    let accepted_at = message.accepted_at.timestamp_millis();
    let key = params![account.as_str(), message.registration.as_bytes(), accepted_at];
    let count: usize = connection.prepare_cached(COUNT_OF_REGISTRATION)?.query_row(key, |row| row.get(0))?;
    if count <= max {
        return Ok(Vec::new());
    }
    let mut ids = oldest_first(connection, OF_REGISTRATION, key)?;
    ids.truncate(count - max);
    Ok(ids)
}

/// Drops the pushes that an account has beyond `max`.
fn trim(
    connection: &Connection,
    account: &BareJid,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<Trimmed> {
    let (dropped, count) = beyond_the_bound_of_the_account(connection, account, now, max)?;
    remove_all(connection, account, &dropped)?;
    Ok(Trimmed { left: count - dropped.len(), dropped })
}

/// Returns the pushes that an account has beyond `max`, and the number of all its pushes. Pushes that had expired at
/// that moment do not count.
fn beyond_the_bound_of_the_account(
    connection: &Connection,
    account: &BareJid,
    moment: DateTime<Utc>,
    max: usize,
) -> rusqlite::Result<(Vec<MessageId>, usize)> {
    let key = params![account.as_str(), moment.timestamp_millis()];
    let count: usize = connection.prepare_cached(COUNT_OF_ACCOUNT)?.query_row(key, |row| row.get(0))?;
    if count <= max {
        return Ok((Vec::new(), count));
    }
    let mut statement = connection.prepare_cached(OF_ACCOUNT)?;
    let waiting = statement.query_map(key, |row| {
        Ok((RegistrationId::from_bytes(row.get(1)?), MessageId::from_bytes(row.get(0)?)))
    })?;
    let waiting: Vec<_> = waiting.collect::<rusqlite::Result<_>>()?;
    Ok((MailboxBounds::of_account(max).beyond_account(waiting), count))
}

fn remove(connection: &Connection, account: &BareJid, message: MessageId) -> rusqlite::Result<usize> {
    connection.prepare_cached(REMOVE)?.execute(params![account.as_str(), message.as_bytes()])
}

fn remove_all(connection: &Connection, account: &BareJid, messages: &[MessageId]) -> rusqlite::Result<usize> {
    messages.iter().map(|id| remove(connection, account, *id)).sum()
}

#[cfg(test)]
mod tests;
