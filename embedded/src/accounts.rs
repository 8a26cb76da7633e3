//! Accounts on SQLite. An index finds their registrations, and a table has their full JIDs.

use chrono::{DateTime, Utc};
use jid::BareJid;
use push::{
    Registration,
    bounds::registrations_counted,
    ports::{Account, Accounts, Page, Registrant, SEEN_MAX, Seen, Unavailable},
    registration::PURGE_AFTER,
};
use rusqlite::{Connection, Row, params};

use crate::{
    database::Database,
    row::{full_jid, moment, registration},
    writer::Haste,
};

const LIVING: &str = "SELECT recipient, application, instance, epoch, renewed_at, expires_at, revoked,
    throttled_until, vapid, legacy FROM registration WHERE account = ?1 AND expires_at > ?2 AND NOT revoked";
/// The order is that of the index `registration_account`, which ends in the key of the table.
const ALL_LIVING: &str = "SELECT recipient, application, instance, epoch, renewed_at, expires_at, revoked,
    throttled_until, vapid, legacy FROM registration INDEXED BY registration_account
    WHERE (account, id) > (?1, ?2) AND expires_at > ?3 AND NOT revoked ORDER BY account, id LIMIT ?4";
const ANY_LIVES: &str = "SELECT EXISTS
    (SELECT 1 FROM registration WHERE account = ?1 AND expires_at > ?2 AND NOT revoked)";
/// Endpoints of a predecessor do not count.
const COUNT: &str =
    "SELECT count(*), count(CASE WHEN expires_at > ?2 AND NOT revoked THEN 1 END) FROM registration
    WHERE account = ?1 AND expires_at > ?3 AND legacy IS NULL";
const SEEN: &str = "SELECT jid, seen_at, ended FROM seen WHERE account = ?1 ORDER BY place";
const FORGET: &str = "DELETE FROM seen WHERE account = ?1";
const NOTE: &str = "INSERT INTO seen (account, place, jid, seen_at, ended) VALUES (?1, ?2, ?3, ?4, ?5)";
const FORGET_IF_GONE: &str = "DELETE FROM seen WHERE account = ?1
    AND NOT EXISTS (SELECT 1 FROM registration WHERE account = ?1)";

impl Accounts for Database {
    async fn account(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Account, Unavailable> {
        let account = account.clone();
        self.read_apart(move |connection| {
            Ok(Account {
                registrations: living(connection, &account, now)?,
                seen: seen(connection, &account)?,
            })
        })
        .await
    }

    async fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let account = account.clone();
        let note = move |connection: &Connection| note(connection, &account, &seen, now);
        self.add(Haste::Soon, note, |()| ()).await
    }

    async fn living(
        &self,
        after: Option<Registrant>,
        max: usize,
        now: DateTime<Utc>,
    ) -> Result<Page<Registration>, Unavailable> {
        let found =
            self.read_apart(move |connection| all_living(connection, after.as_ref(), max, now)).await?;
        // A full page may be the last one; then an empty one follows.
        let last = found.last().filter(|_| found.len() >= max);
        let further = last.map(|row| (row.target.recipient.to_bare(), row.target.registration_id()));
        Ok((found, further))
    }
}

fn living(
    connection: &Connection,
    account: &BareJid,
    now: DateTime<Utc>,
) -> rusqlite::Result<Vec<Registration>> {
    let mut statement = connection.prepare_cached(LIVING)?;
    statement.query_map(params![account.as_str(), now.timestamp_millis()], registration)?.collect()
}

fn all_living(
    connection: &Connection,
    after: Option<&Registrant>,
    max: usize,
    now: DateTime<Utc>,
) -> rusqlite::Result<Vec<Registration>> {
    // The empty texts come before all others.
    let (account, id) = after.map_or(("", &[][..]), |(account, id)| (account.as_str(), id.as_bytes()));
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(ALL_LIVING)?;
    statement.query_map(params![account, id, now.timestamp_millis(), max], registration)?.collect()
}

/// Returns how many registrations of an account count against a bound of `max`.
pub(crate) fn count(
    connection: &Connection,
    account: &BareJid,
    now: DateTime<Utc>,
    max: usize,
) -> rusqlite::Result<usize> {
    let kept_since = now - PURGE_AFTER;
    let key = params![account.as_str(), now.timestamp_millis(), kept_since.timestamp_millis()];
    let counts = connection.prepare_cached(COUNT)?.query_row(key, |row| Ok((row.get(0)?, row.get(1)?)));
    counts.map(|(kept, living)| registrations_counted(living, kept, max))
}

fn seen(connection: &Connection, account: &BareJid) -> rusqlite::Result<Vec<Seen>> {
    let seen = |row: &Row<'_>| {
        Ok(Seen {
            jid: full_jid(&row.get::<_, String>("jid")?)?,
            seen_at: moment(row.get("seen_at")?)?,
            ended: row.get("ended")?,
        })
    };
    connection.prepare_cached(SEEN)?.query_map([account.as_str()], seen)?.collect()
}

fn note(
    connection: &Connection,
    account: &BareJid,
    seen: &[Seen],
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    let key = params![account.as_str(), now.timestamp_millis()];
    let lives: bool = connection.prepare_cached(ANY_LIVES)?.query_row(key, |row| row.get(0))?;
    if !lives {
        return Ok(());
    }
    connection.prepare_cached(FORGET)?.execute([account.as_str()])?;
    let mut insert = connection.prepare_cached(NOTE)?;
    for (place, Seen { jid, seen_at, ended }) in seen.iter().take(SEEN_MAX).enumerate() {
        insert.execute(params![account.as_str(), place, jid.as_str(), seen_at.timestamp_millis(), ended])?;
    }
    Ok(())
}

/// Deletes the full JIDs of an account that has no rows left.
pub(crate) fn forget_if_gone(connection: &Connection, account: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(FORGET_IF_GONE)?.execute([account]).map(drop)
}
