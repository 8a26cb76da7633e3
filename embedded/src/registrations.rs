//! The registrations' store on SQLite.

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Application, Epoch, Instance, Registration, RegistrationId, Target,
    ports::{Consistency, Registrations, Renewal, Revocation, Unavailable},
};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params, types::Type};

use crate::Database;

impl Registrations for Database {
    async fn find(&self, id: RegistrationId, _: Consistency) -> Result<Option<Registration>, Unavailable> {
        self.read(|connection| find(connection, id))
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
    ) -> Result<Registration, Unavailable> {
        self.write(move |connection| {
            let current = find(connection, target.registration_id())?;
            if let Some(row) = &current
                && renewal == Renewal::WhereNeeded
                && !row.needs_renewal(&target, now, lifetime)
            {
                return Ok(row.clone());
            }
            let registration = Registration::renew(current.as_ref(), target, now, lifetime);
            store(connection, &registration)?;
            Ok(registration)
        })
        .await
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        const REVOKE: &str = "UPDATE registration SET revoked = TRUE
            WHERE id = ?1 AND epoch = ?2 AND renewed_at <= ?3 AND NOT revoked";
        self.write(move |connection| {
            let rows = connection.prepare_cached(REVOKE)?.execute(params![
                id.as_bytes(),
                epoch.as_seconds(),
                asked_at.timestamp_millis()
            ])?;
            if rows > 0 {
                return Ok(Revocation::Revoked);
            }
            let goes_on = find(connection, id)?.is_some_and(|row| row.epoch == epoch && !row.revoked);
            Ok(if goes_on { Revocation::Renewed } else { Revocation::OverBefore })
        })
        .await
    }
}

fn find(connection: &Connection, id: RegistrationId) -> rusqlite::Result<Option<Registration>> {
    const FIND: &str = "SELECT recipient, application, instance, epoch, renewed_at, expires_at, revoked
        FROM registration WHERE id = ?1";
    connection.prepare_cached(FIND)?.query_row([id.as_bytes()], registration).optional()
}

fn store(connection: &Connection, registration: &Registration) -> rusqlite::Result<()> {
    const STORE: &str = "INSERT OR REPLACE INTO registration
        (id, recipient, application, instance, epoch, renewed_at, expires_at, revoked)
        VALUES (:id, :recipient, :application, :instance, :epoch, :renewed_at, :expires_at, :revoked)";
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
    })?;
    Ok(())
}

fn registration(row: &Row<'_>) -> rusqlite::Result<Registration> {
    let recipient: String = row.get("recipient")?;
    let recipient = recipient.parse().map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::<jid::Error>::new(cause))
    })?;
    Ok(Registration {
        target: Target {
            recipient,
            application: Application::from_bytes(row.get("application")?),
            instance: Instance::from_bytes(row.get("instance")?),
        },
        epoch: Epoch::from_seconds(row.get("epoch")?),
        renewed_at: time(row, "renewed_at")?,
        expires_at: time(row, "expires_at")?,
        revoked: row.get("revoked")?,
    })
}

fn time(row: &Row<'_>, column: &'static str) -> rusqlite::Result<DateTime<Utc>> {
    let millis = row.get(column)?;
    DateTime::from_timestamp_millis(millis).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, millis))
}
