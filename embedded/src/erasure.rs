//! Erasing an account, on SQLite.

use chrono::{DateTime, Utc};
use jid::BareJid;
use push::{
    Registration, RegistrationId,
    ports::{
        Unavailable,
        operator::{Erasure, nameless},
    },
};
use rusqlite::{Connection, params};

use crate::{database::Database, row::registration};

const ROWS: &str = "SELECT id, recipient, application, instance, epoch, renewed_at, expires_at, revoked,
    throttled_until, vapid, legacy FROM registration WHERE account = ?1";
const MAKE_NAMELESS: &str =
    "UPDATE registration SET recipient = ?3, application = ?4, instance = ?5, renewed_at = ?6,
    expires_at = ?7, revoked = 1, throttled_until = NULL, vapid = NULL WHERE id = ?1 AND epoch = ?2";
const FORGET_SEEN: &str = "DELETE FROM seen WHERE account = ?1";

impl Erasure for Database {
    async fn forget(&self, account: &BareJid, now: DateTime<Utc>) -> Result<usize, Unavailable> {
        let account = account.clone();
        self.write(move |connection| forget(connection, &account, now)).await
    }
}

fn forget(connection: &Connection, account: &BareJid, now: DateTime<Utc>) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare(ROWS)?;
    let rows = statement.query_map([account.as_str()], |row| {
        Ok((RegistrationId::from_bytes(row.get("id")?), registration(row)?))
    })?;
    let rows: Vec<(RegistrationId, Registration)> = rows.collect::<rusqlite::Result<_>>()?;
    for (id, row) in &rows {
        let row = nameless(row, now);
        connection.execute(
            MAKE_NAMELESS,
            params![
                id.as_bytes(),
                row.epoch.as_seconds(),
                row.target.recipient.as_str(),
                row.target.application.as_bytes(),
                row.target.instance.as_bytes(),
                row.renewed_at.timestamp_millis(),
                row.expires_at.timestamp_millis(),
            ],
        )?;
    }
    connection.execute(FORGET_SEEN, [account.as_str()])?;
    Ok(rows.len())
}
