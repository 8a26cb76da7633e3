//! Conversions from columns: registrations, times and JIDs.

use chrono::{DateTime, Utc};
use jid::FullJid;
use push::{Application, Epoch, Instance, Registration, Target, VapidKey, vapid::VapidKeyError};
use rusqlite::{Row, types::Type};

/// Reads a time, in Unix milliseconds.
pub(crate) fn moment(millis: i64) -> rusqlite::Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, millis))
}

/// Reads a full JID.
pub(crate) fn full_jid(text: &str) -> rusqlite::Result<FullJid> {
    text.parse().map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::<jid::Error>::new(cause))
    })
}

/// Reads a registration from a row that has all its columns.
pub(crate) fn registration(row: &Row<'_>) -> rusqlite::Result<Registration> {
    let recipient = full_jid(&row.get::<_, String>("recipient")?)?;
    let throttled_until: Option<i64> = row.get("throttled_until")?;
    let legacy: Option<i64> = row.get("legacy")?;
    let vapid: Option<[u8; VapidKey::BYTES]> = row.get("vapid")?;
    let vapid = vapid.map(|point| VapidKey::from_bytes(&point)).transpose().map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::<VapidKeyError>::new(cause))
    })?;
    Ok(Registration {
        target: Target {
            recipient,
            application: Application::from_bytes(row.get("application")?),
            instance: Instance::from_bytes(row.get("instance")?),
            vapid,
            legacy: legacy.map(moment).transpose()?,
        },
        epoch: Epoch::from_seconds(row.get("epoch")?),
        renewed_at: moment(row.get("renewed_at")?)?,
        expires_at: moment(row.get("expires_at")?)?,
        revoked: row.get("revoked")?,
        throttled_until: throttled_until.map(moment).transpose()?,
    })
}
