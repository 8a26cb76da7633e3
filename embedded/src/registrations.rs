//! The registrations' store on SQLite.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use jid::FullJid;
use push::{
    Epoch, Registration, RegistrationId, Target, VapidKey,
    ports::{Consistency, Registered, Registrations, RelayRegistrations, Renewal, Revocation, Unavailable},
    registration::PURGE_AFTER,
};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::{
    accounts::{count, forget_if_gone},
    database::Database,
    roster::KeptDomains,
    row::registration,
    writer::Haste,
};

/// Most ended rows that are deleted when a row is stored. More than one, so that they do not accumulate.
const SWEPT_PER_REGISTRATION_MAX: i64 = 16;

impl Registrations for Database {
    async fn find(&self, id: RegistrationId, _: Consistency) -> Result<Option<Registration>, Unavailable> {
        self.read(|connection| find(connection, id))
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        _: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        self.read(|connection| ids.into_iter().filter_map(|id| find(connection, id).transpose()).collect())
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> Result<Registered, Unavailable> {
        let shared = Arc::clone(self.shared());
        let register = move |connection: &Connection| {
            let current = find(connection, target.registration_id())?;
            if let Some(row) = &current
                && renewal == Renewal::WhereNeeded
                && !row.needs_renewal(&target, now, lifetime)
            {
                return Ok(Registered::Stored(row.clone()));
            }
            let is_new = target.legacy.is_none() && !current.as_ref().is_some_and(|row| row.lives(now));
            if is_new && count(connection, &target.recipient.to_bare(), now, account_max)? >= account_max {
                return Ok(Registered::AccountFull);
            }
            let registration = Registration::renew(current.as_ref(), target, now, lifetime);
            store(connection, &registration)?;
            sweep(connection, &registration, &shared.kept_domains)?;
            Ok(if is_new { Registered::Begun(registration) } else { Registered::Stored(registration) })
        };
        self.add(Haste::Now, register, |_| ()).await
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        const REVOKE: &str = "UPDATE registration SET revoked = TRUE
            WHERE id = ?1 AND epoch = ?2 AND renewed_at <= ?3 AND recipient = ?4 AND NOT revoked";
        let recipient = recipient.clone();
        self.write(move |connection| {
            let rows = connection.prepare_cached(REVOKE)?.execute(params![
                id.as_bytes(),
                epoch.as_seconds(),
                asked_at.timestamp_millis(),
                recipient.as_str(),
            ])?;
            if rows > 0 {
                return Ok(Revocation::Revoked);
            }
            let goes_on = find(connection, id)?.is_some_and(|row| row.epoch == epoch && !row.revoked);
            Ok(if goes_on { Revocation::GoesOn } else { Revocation::OverBefore })
        })
        .await
    }
}

impl RelayRegistrations for Database {
    async fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> Result<bool, Unavailable> {
        const FOLLOW: &str = "UPDATE registration SET recipient = ?4
            WHERE id = ?1 AND epoch = ?2 AND recipient = ?3 AND NOT revoked";
        if from.to_bare() != to.to_bare() {
            return Ok(false);
        }
        let (from, to) = (from.clone(), to.clone());
        let follow = move |connection: &Connection| {
            let life = params![id.as_bytes(), epoch.as_seconds(), from.as_str(), to.as_str()];
            connection.prepare_cached(FOLLOW)?.execute(life)
        };
        Ok(self.write_then(Haste::Soon, follow, |_| ()).await? > 0)
    }

    async fn throttle(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        until: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        const THROTTLE: &str = "UPDATE registration SET throttled_until = ?3 WHERE id = ?1 AND epoch = ?2";
        let mark = move |connection: &Connection| {
            let life = params![id.as_bytes(), epoch.as_seconds(), until.timestamp_millis()];
            connection.prepare_cached(THROTTLE)?.execute(life)
        };
        self.write_then(Haste::Soon, mark, |_| ()).await?;
        Ok(())
    }
}

fn find(connection: &Connection, id: RegistrationId) -> rusqlite::Result<Option<Registration>> {
    const FIND: &str = "SELECT recipient, application, instance, epoch, renewed_at, expires_at, revoked,
        throttled_until, vapid, legacy FROM registration WHERE id = ?1";
    connection.prepare_cached(FIND)?.query_row([id.as_bytes()], registration).optional()
}

fn store(connection: &Connection, registration: &Registration) -> rusqlite::Result<()> {
    const STORE: &str = "INSERT OR REPLACE INTO registration
        (id, recipient, application, instance, epoch, renewed_at, expires_at, revoked, throttled_until, vapid,
            legacy)
        VALUES (:id, :recipient, :application, :instance, :epoch, :renewed_at, :expires_at, :revoked,
            :throttled_until, :vapid, :legacy)";
    let target = &registration.target;
    connection.prepare_cached(STORE)?.execute(named_params! {
        ":id": target.registration_id().as_bytes(),
        ":recipient": target.recipient.as_str(),
        ":application": target.application.as_bytes(),
        ":instance": target.instance.as_bytes(),
        ":epoch": registration.epoch.as_seconds(),
        ":renewed_at": registration.renewed_at.timestamp_millis(),
        ":expires_at": registration.expires_at.timestamp_millis(),
        ":revoked": registration.revoked,
        ":throttled_until": registration.throttled_until.map(|until| until.timestamp_millis()),
        ":vapid": target.vapid.as_ref().map(VapidKey::as_bytes),
        ":legacy": target.legacy.map(|expiry| expiry.timestamp_millis()),
    })?;
    Ok(())
}

/// Deletes rows that may be purged, those that expired first before the others.
fn sweep(connection: &Connection, stored: &Registration, kept_domains: &KeptDomains) -> rusqlite::Result<()> {
    const SWEEP: &str = "DELETE FROM registration WHERE id IN
        (SELECT id FROM registration WHERE expires_at <= ?1 AND (revoked OR NOT EXISTS (
            SELECT 1 FROM json_each(?3) WHERE value = substr(account, instr(account, '@') + 1)
                OR value LIKE '*.%' AND substr(account, 1 - length(value)) = substr(value, 2)
        )) ORDER BY expires_at LIMIT ?2) RETURNING account";
    const ANY_DEAD: &str = "SELECT EXISTS (SELECT 1 FROM registration WHERE expires_at <= ?1)";
    let dead_since = (stored.renewed_at - PURGE_AFTER).timestamp_millis();
    if !connection.prepare_cached(ANY_DEAD)?.query_row([dead_since], |row| row.get(0))? {
        return Ok(());
    }
    let kept = kept_domains.read(connection)?;
    let mut statement = connection.prepare_cached(SWEEP)?;
    let swept =
        statement.query_map(params![dead_since, SWEPT_PER_REGISTRATION_MAX, kept], |row| row.get(0))?;
    let accounts: BTreeSet<String> = swept.collect::<rusqlite::Result<_>>()?;
    accounts.iter().try_for_each(|account| forget_if_gone(connection, account))
}

#[cfg(test)]
mod tests {
    use push::Instance;

    use super::*;
    use crate::queue::tests::target;

    const WEEK: TimeDelta = TimeDelta::days(7);

    #[tokio::test]
    async fn rows_of_the_dead_are_swept_a_day_after_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        let register = async |number: u8, now| {
            let target = Target { instance: Instance::from_bytes([number; 32]), ..target() };
            database.register(target, now, WEEK, Renewal::Always, 100).await.unwrap().stored().unwrap()
        };
        let count = || {
            let count = "SELECT count(*) FROM registration";
            database.read(|c| c.query_row(count, [], |row| row.get::<_, i64>(0))).unwrap()
        };
        let first = register(0, DateTime::UNIX_EPOCH).await;
        for number in 1..40 {
            register(number, DateTime::UNIX_EPOCH).await;
        }
        register(40, first.purge_at() - TimeDelta::milliseconds(1)).await;
        assert_eq!(count(), 41, "not yet");
        for left in [41 + 1 - 16, 41 + 1 - 32, 2] {
            register(41, first.purge_at()).await;
            assert_eq!(count(), left);
        }
        register(41, first.purge_at()).await;
        assert_eq!(count(), 2, "the others live");
    }
}
