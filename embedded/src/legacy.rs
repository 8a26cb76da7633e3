//! The endpoints of a predecessor. They have no index of their own, since they are few and are read once, at the start.

use chrono::{DateTime, Utc};
use jid::{BareJid, FullJid};
use push::ports::Unavailable;

use crate::{
    database::Database,
    row::{full_jid, moment},
};

const LIVING: &str = "SELECT recipient, expires_at FROM registration
    WHERE legacy IS NOT NULL AND expires_at > ?1 AND NOT revoked";

impl Database {
    /// Returns the account and the expiry of each predecessor's endpoint that lives at `now`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn legacy_living(&self, now: DateTime<Utc>) -> Result<Vec<(BareJid, DateTime<Utc>)>, Unavailable> {
        self.read(|connection| {
            let mut statement = connection.prepare(LIVING)?;
            let living = statement.query_map([now.timestamp_millis()], |row| {
                let account = full_jid(&row.get::<_, String>(0)?).map(FullJid::into_bare)?;
                Ok((account, moment(row.get(1)?)?))
            })?;
            living.collect()
        })
    }
}
