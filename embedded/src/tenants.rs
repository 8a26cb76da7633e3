//! Tenants on SQLite: the roster is a setting, and the usage has a table.

use chrono::{DateTime, Utc};
use push::{
    Roster,
    ports::{Tenants, TenantsWriter, Unavailable},
    usage::{Counts, Hour, Slot, Usage},
};
use rusqlite::{Connection, params};

use crate::{
    database::Database,
    roster::{NAME, parse},
    setting::find_setting,
};

impl Tenants for Database {
    async fn roster(&self) -> Result<Roster, Unavailable> {
        parse(self.setting(NAME)?)
    }
}

impl TenantsWriter for Database {
    async fn set_roster(&self, roster: &Roster) -> Result<bool, Unavailable> {
        const SET: &str = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
        let (text, before) = (roster.to_json(), roster.version - 1);
        self.write(move |connection| {
            // A malformed roster has no version, and is not replaced.
            if !parse(find_setting(connection, NAME)?).is_ok_and(|stored| stored.version == before) {
                return Ok(false);
            }
            connection.execute(SET, params![NAME, text]).map(|_| true)
        })
        .await
    }

    /// Does nothing: deletions leave out the rows of suspended tenants (`roster.rs`).
    async fn preserve_rows(&self, _: &Roster, _: DateTime<Utc>) -> Result<(), Unavailable> {
        Ok(())
    }

    async fn usage(&self, from: Hour, to: Hour) -> Result<Usage, Unavailable> {
        const READ: &str =
            "SELECT hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes,
            registrations FROM usage WHERE hour >= ?1 AND hour < ?2";
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(READ)?;
            let rows = statement.query_map(params![from, to], |row| {
                let tenant: String = row.get(1)?;
                let counts = Counts {
                    accepted: row.get(3)?,
                    delivered: row.get(4)?,
                    waited: row.get(5)?,
                    expired: row.get(6)?,
                    dropped: row.get(7)?,
                    bytes: row.get(8)?,
                    registrations: row.get(9)?,
                    // SQLite bills nothing.
                    ..Counts::default()
                };
                Ok((row.get(0)?, tenant, row.get(2)?, counts))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = self.read_apart(read).await?;
        let slot = |(hour, tenant, domain, counts): (Hour, String, String, Counts)| {
            let tenant = tenant.parse().map_err(Unavailable::new)?;
            Ok((Slot { hour, tenant, domain }, counts))
        };
        rows.into_iter().map(slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use push::{
        Tenant,
        ports::{Consistency, Registrations, Renewal},
    };

    use super::*;
    use crate::queue::tests::target;

    #[tokio::test]
    async fn rows_of_a_suspended_tenant_are_not_swept_until_it_is_resumed() {
        const WEEK: TimeDelta = TimeDelta::days(7);
        for (name, keeps) in
            [("example.com", true), ("*.com", true), ("example.org", false), ("*.example.com", false)]
        {
            let folder = tempfile::tempdir().unwrap();
            let database = Database::open(&folder.path().join("upwire.db")).unwrap();
            let start = DateTime::UNIX_EPOCH;
            let register = async |number: u8, now| {
                let target = push::Target { instance: push::Instance::from_bytes([number; 32]), ..target() };
                database.register(target, now, WEEK, Renewal::Always, 100).await.unwrap().stored().unwrap()
            };
            let first = register(0, start).await;
            assert_eq!(first.target.recipient.domain().as_str(), "example.com");
            let mut roster = Roster { version: 1, ..Roster::default() };
            let suspended = Tenant { suspended_since: Some(start), ..Tenant::new(start) };
            roster.add(name.parse().unwrap(), suspended).unwrap();
            assert!(database.set_roster(&roster).await.unwrap());
            let find = async || {
                let id = first.target.registration_id();
                Registrations::find(&database, id, Consistency::Strong).await.unwrap()
            };
            let later = start + TimeDelta::days(365);
            register(1, later).await;
            assert_eq!(find().await.is_some(), keeps, "{name}");
            let mut resumed = Roster { version: 2, ..roster };
            resumed.get_mut(&name.parse().unwrap()).unwrap().suspended_since = None;
            assert!(!database.set_roster(&Roster { version: 3, ..resumed.clone() }).await.unwrap());
            assert!(database.set_roster(&resumed).await.unwrap());
            register(1, later).await;
            assert_eq!(find().await, None, "{name}");
        }
    }
}
