//! The usage of tenants, which each commit writes.

use push::usage::Usage;
use rusqlite::{Connection, named_params};

/// Adds counts to the table.
pub(crate) fn add(connection: &Connection, usage: &Usage) -> rusqlite::Result<()> {
    const ADD: &str = "INSERT INTO usage
        (hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes, registrations)
        VALUES (:hour, :tenant, :domain, :accepted, :delivered, :waited, :expired, :dropped, :bytes, :registrations)
        ON CONFLICT (hour, tenant, domain) DO UPDATE SET
            accepted = accepted + excluded.accepted, delivered = delivered + excluded.delivered,
            waited = waited + excluded.waited, expired = expired + excluded.expired,
            dropped = dropped + excluded.dropped, bytes = bytes + excluded.bytes,
            registrations = max(registrations, excluded.registrations)";
    let mut statement = connection.prepare_cached(ADD)?;
    for (slot, counts) in usage {
        statement.execute(named_params! {
            ":hour": slot.hour,
            ":tenant": slot.tenant.as_str(),
            ":domain": slot.domain,
            ":accepted": counts.accepted,
            ":delivered": counts.delivered,
            ":waited": counts.waited,
            ":expired": counts.expired,
            ":dropped": counts.dropped,
            ":bytes": counts.bytes,
            ":registrations": counts.registrations,
        })?;
    }
    Ok(())
}
