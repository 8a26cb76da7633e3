//! The facts as lines for people.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};

use super::facts::{Facts, Life, Paying, Push, Row, Token};
use super::verdict::{counted, span};
use crate::trail::Told;

/// Writes the facts, and the verdict last.
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
        line("waiting", format!("{}{oldest}", pushes(facts.waiting.pushes)))?;
    }
    if let Some(queued) = facts.waiting.in_the_queue.filter(|queued| *queued > 0) {
        line("queue", pushes(queued))?;
    }
    if let Some(problem) = &facts.process.unreachable {
        line("process", format!("not asked: {problem}"))?;
    }
    for told in &facts.process.pushes {
        line("process", told_line(told, facts.process.wait_no_more.contains(&told.id)))?;
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

fn pushes(count: usize) -> String {
    counted(count, "push", "pushes")
}

fn told_line(told: &Told, waits_no_more: bool) -> String {
    let Told { id, outcome, at, failures, .. } = told;
    let outcome = if waits_no_more { "waited" } else { outcome };
    let mut text = format!("{id}  {outcome} {}", second(*at));
    if *failures > 0 {
        text += &format!(", {} failed", counted(*failures, "attempt", "attempts"));
    }
    if let Some(at) = told.unanswered_at {
        text += &format!(", went out unanswered at {}", second(at));
    }
    if waits_no_more {
        text += "; waits no more, by the store, which is newer than what the process remembers";
    }
    text
}

fn second(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use push::{MessageId, RegistrationId, Urgency};

    use super::super::facts::{Process, Waiting};
    use super::*;

    fn lines(facts: &Facts) -> String {
        let mut out = Vec::new();
        write(&mut out, facts, "It is so.", DateTime::UNIX_EPOCH).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn told(failures: u32) -> Told {
        let at = DateTime::UNIX_EPOCH;
        Told {
            id: MessageId::new(Urgency::Normal, at, [1; 8]),
            registration: RegistrationId::from_bytes([1; 16]),
            accepted_at: at,
            expires_at: at + TimeDelta::hours(1),
            outcome: "waits".into(),
            at,
            failures,
            unanswered_at: None,
        }
    }

    #[test]
    fn the_memory_of_the_process_does_not_contradict_the_store() {
        let remembered = told(1);
        let process = Process { pushes: vec![remembered.clone()], ..Process::default() };
        let waits = lines(&Facts { process: process.clone(), ..Facts::default() });
        assert!(waits.contains("  waits 1970-01-01T00:00:00Z, 1 attempt failed\n"), "{waits}");
        let process = Process { wait_no_more: vec![remembered.id], ..process };
        let left = lines(&Facts { process, ..Facts::default() });
        assert!(left.contains("  waited 1970-01-01T00:00:00Z, 1 attempt failed; waits no more"), "{left}");
        assert!(!left.contains("waits 1970"), "{left}");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!([pushes(0), pushes(1), pushes(2)], ["0 pushes", "1 push", "2 pushes"]);
        assert!(told_line(&told(2), false).ends_with(", 2 attempts failed"));
        let queued = Waiting { in_the_queue: Some(1), ..Waiting::default() };
        assert!(lines(&Facts { waiting: queued, ..Facts::default() }).contains("1 push\n"));
    }
}
