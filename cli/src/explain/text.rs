//! The facts as lines that a person reads.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};

use super::facts::{Facts, Life, Paying, Push, Row, Token};
use super::verdict::span;
use crate::trail::Told;

/// Writes them, and the sentence last.
pub(super) fn write(
    out: &mut impl Write,
    facts: &Facts,
    verdict: &str,
    now: DateTime<Utc>,
) -> io::Result<()> {
    let mut line = |name: &str, text: String| writeln!(out, "{name:<14}{text}");
    match facts.token {
        Token::SignedBy { secret, of } => line("URL", format!("signed by secret {secret} of {of}"))?,
        Token::Foreign => line("URL", "signed by no secret that is known here".into())?,
        Token::Unchecked => line("URL", "not checked: no secret is known here (UPWIRE_SECRET)".into())?,
        Token::Absent => {}
    }
    if let Some(push) = &facts.push {
        line("push", push_line(push))?;
    }
    if let Some(id) = &facts.id {
        line("registration", format!("{id}  {}", life_line(facts.life, facts.registration.as_ref())))?;
    }
    if let Some(row) = &facts.registration {
        line("account", format!("{}  registered as {}", row.account, row.recipient))?;
        if let Some(tenant) = &facts.tenant {
            line("tenant", tenant_line(tenant))?;
        }
        for phone in &facts.phones {
            let ended = if phone.session_has_ended { ", its session has ended since" } else { "" };
            let ago = span(now - phone.seen_at);
            line("phone", format!("{}  seen {}, {ago} ago{ended}", phone.jid, second(phone.seen_at)))?;
        }
        let oldest = facts.waiting.oldest_accepted_at;
        let oldest = oldest.map_or_else(String::new, |at| format!(", the oldest for {}", span(now - at)));
        line("waiting", format!("{} pushes{oldest}", facts.waiting.pushes))?;
    }
    if let Some(queued) = facts.waiting.in_the_queue.filter(|queued| *queued > 0) {
        line("queue", format!("{queued} pushes"))?;
    }
    if let Some(problem) = &facts.process.unreachable {
        line("process", format!("not asked: {problem}"))?;
    }
    for told in &facts.process.pushes {
        line("process", told_line(told))?;
    }
    writeln!(out, "{verdict}")
}

fn push_line(push: &Push) -> String {
    let mut text = push.id.to_string();
    if let Some(at) = push.accepted_at {
        text += &format!("  accepted {}", at.to_rfc3339_opts(SecondsFormat::Millis, true));
    }
    if let Some(until) = push.waits_until {
        text += &format!("  waits until {}", second(until));
    }
    if let Some(at) = push.unanswered_at {
        text += &format!("  went out at {} and was not answered", second(at));
    }
    text
}

fn life_line(life: Life, row: Option<&Row>) -> String {
    let Some(row) = row else { return "not in the store".into() };
    let since = row.since.map_or_else(|| "-".into(), second);
    let mut text = match life {
        Life::Lives => format!("lives since {since}, until {}", second(row.expires_at)),
        Life::Expired => format!("lapsed at {}", second(row.expires_at)),
        Life::Revoked => "has ended".into(),
        Life::Replaced => format!("has a later endpoint since {since}"),
        Life::Missing => format!("has an earlier endpoint since {since}"),
    };
    text += &format!(", renewed {}", second(row.renewed_at));
    for (holds, words) in [(row.bound_to_a_key, "bound to a key"), (row.legacy, "of a predecessor")] {
        if holds {
            text += &format!(", {words}");
        }
    }
    if let Some(until) = row.throttled_until {
        text += &format!(", throttled until {}", second(until));
    }
    text
}

fn tenant_line(tenant: &Paying) -> String {
    let mut text = tenant.name.clone();
    if let Some(since) = tenant.suspended_since {
        text += &format!(", suspended since {}", second(since));
    }
    if let Some(until) = tenant.used_up_until {
        text += &format!(", its pushes of the month are used up until {}", second(until));
    }
    text
}

fn told_line(told: &Told) -> String {
    let Told { id, outcome, at, failures, .. } = told;
    let mut text = format!("{id}  {outcome} {}", second(*at));
    if *failures > 0 {
        text += &format!(", {failures} attempts failed");
    }
    if let Some(at) = told.unanswered_at {
        text += &format!(", went out unanswered at {}", second(at));
    }
    text
}

fn second(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}
