//! A registration as a line of text, or as JSON.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use push::Registration;
use serde::Serialize;

#[derive(Serialize)]
struct Row<'a> {
    id: String,
    account: String,
    recipient: &'a str,
    application: String,
    instance: String,
    since: Option<String>,
    renewed_at: String,
    expires_at: String,
    bound_to_a_key: bool,
    legacy: bool,
    throttled_until: Option<String>,
}

/// Writes one line.
pub(crate) fn write_row(
    out: &mut impl Write,
    row: &Registration,
    now: DateTime<Utc>,
    json: bool,
) -> io::Result<()> {
    let target = &row.target;
    let begun = i64::try_from(row.epoch.as_seconds()).ok().and_then(|at| DateTime::from_timestamp(at, 0));
    let throttled = row.throttled_until.filter(|until| *until > now);
    let shown = Row {
        id: target.registration_id().to_string(),
        account: target.recipient.to_bare().to_string(),
        recipient: target.recipient.as_str(),
        application: STANDARD.encode(target.application.as_bytes()),
        instance: STANDARD.encode(target.instance.as_bytes()),
        since: begun.map(second),
        renewed_at: second(row.renewed_at),
        expires_at: second(row.expires_at),
        bound_to_a_key: target.vapid.is_some(),
        legacy: target.legacy.is_some(),
        throttled_until: throttled.map(second),
    };
    if json {
        serde_json::to_writer(&mut *out, &shown)?;
        return writeln!(out);
    }
    let since = shown.since.as_deref().unwrap_or("-");
    write!(out, "{}  {}  since {since}  until {}", shown.recipient, shown.id, shown.expires_at)?;
    for (holds, words) in [(shown.bound_to_a_key, "bound to a key"), (shown.legacy, "of a predecessor")] {
        if holds {
            write!(out, "  {words}")?;
        }
    }
    if let Some(until) = &shown.throttled_until {
        write!(out, "  throttled until {until}")?;
    }
    writeln!(out)
}

fn second(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}
