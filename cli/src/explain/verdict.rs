//! The verdict: one sentence with the most important fact.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{Facts, Life, Push, Token};
use crate::trail::Told;

/// Time since a phone was last seen within which it counts as present.
const LATELY: TimeDelta = TimeDelta::minutes(5);

/// Returns the verdict.
pub(super) fn verdict(facts: &Facts, now: DateTime<Utc>) -> String {
    if facts.token == Token::Foreign {
        return "No secret that is known here has signed this URL: another server has, or the secret was changed.".into();
    }
    match &facts.push {
        Some(push) => of_push(facts, push, now),
        None => of_endpoint(facts, now),
    }
}

fn of_push(facts: &Facts, push: &Push, now: DateTime<Utc>) -> String {
    let told = facts.process.pushes.iter().find(|told| told.id == push.id);
    if let Some(ended) = told.and_then(ended) {
        return ended;
    }
    let waited = told.filter(|told| facts.process.wait_no_more.contains(&told.id));
    if let Some(until) = push.waits_until {
        return if until <= now {
            format!(
                "Its time ran out {} ago, before a phone took it: {}.",
                span(now - until),
                phone(facts, now)
            )
        } else {
            let cause = suspended(facts, now).unwrap_or_else(|| phone(facts, now));
            format!("It waits: {cause}.")
        };
    }
    if told.is_some_and(|told| told.outcome == "held") {
        return "The relay has it, and is about to send it or waits for the phone's answer.".into();
    }
    if push.in_the_queue {
        return match &facts.process.unreachable {
            Some(_) => "It is in the queue, and no server runs here that would take it.".into(),
            None => "It is in the queue, and the relay does not take it: look at /readyz, the XMPP server may be away."
                .into(),
        };
    }
    if facts.id.is_none() {
        return "The running process does not remember it: give its whole Location, which names its registration."
            .into();
    }
    match (facts.life, waited) {
        (Life::Lives, Some(waited)) => left_the_mailbox(waited, facts, now),
        (Life::Lives, None) => match &facts.process.unreachable {
            None => "It waits nowhere, and the running process does not remember it: it ended before the last 10,000 \
                     pushes, or before the last start."
                .into(),
            Some(_) => "It does not wait in the mailbox; the process that may know what became of it did not answer.".into(),
        },
        _ => format!("It does not wait, and its registration is over. {}", of_life(facts, now)),
    }
}

/// Returns the end of a push that has left the mailbox, though the process knows no end of it. The process does not see
/// removals by a sender or an operator.
fn left_the_mailbox(waited: &Told, facts: &Facts, now: DateTime<Utc>) -> String {
    if waited.expires_at <= now {
        return format!("It waited, and its time ran out {} ago.", span(now - waited.expires_at));
    }
    let since = facts.registration.as_ref().and_then(|row| row.since);
    match since.filter(|since| *since > waited.accepted_at) {
        Some(since) => format!(
            "It waited, until its registration ended; the application has a newer endpoint, for {}.",
            span(now - since)
        ),
        None => {
            "It waited, and waits no more: its sender withdrew it, or a phone took it at this moment.".into()
        }
    }
}

/// Returns the end of a push, if it is final.
fn ended(told: &Told) -> Option<String> {
    let took = span(told.at - told.accepted_at);
    Some(match told.outcome.as_str() {
        "delivered" => format!("It was delivered {took} after it came."),
        "expired" => format!("Its time ran out {took} after it came, and no phone had taken it."),
        "ended" => format!("Its registration ended {took} after it came, before a phone took it."),
        "replaced" => format!("A later push of its topic took its place {took} after it came."),
        "dropped" => format!(
            "It was dropped {took} after it came: too many pushes waited (UPWIRE_MAILBOX_MAX, \
             UPWIRE_ACCOUNT_MAILBOX_MAX, UPWIRE_DOMAIN_MAILBOX_MAX)."
        ),
        _ => return None,
    })
}

fn of_endpoint(facts: &Facts, now: DateTime<Utc>) -> String {
    // The tenant's users cannot renew meanwhile, so a lapsed registration is not over for its senders.
    if let (Life::Lives | Life::Expired, Some(cause)) = (facts.life, suspended(facts, now)) {
        return format!("Senders get 429: {cause}.");
    }
    if facts.life != Life::Lives {
        return of_life(facts, now);
    }
    if let Some((tenant, until)) =
        facts.tenant.as_ref().and_then(|tenant| Some((tenant, tenant.used_up_until?)))
    {
        return format!(
            "Senders get 429 for another {}: the tenant {} has used up its pushes of this month (`upwire tenant set {1} \
             --pushes-per-month`).",
            span(until - now),
            tenant.name
        );
    }
    if let Some(until) = facts.registration.as_ref().and_then(|row| row.throttled_until) {
        return format!(
            "Its senders are over their rate (UPWIRE_RATE), and get 429 for another {}.",
            span(until - now)
        );
    }
    let waiting = facts.waiting.pushes;
    if waiting > 0 {
        let pushes = counted(waiting, "push waits", "pushes wait");
        return format!("{pushes}: {}.", phone(facts, now));
    }
    if facts.waiting.in_the_queue.unwrap_or(0) > 0 {
        return "Pushes are in the queue: the relay is about to take them, or is not connected (/readyz)."
            .into();
    }
    match facts.process.pushes.first() {
        Some(last) if last.outcome == "delivered" => format!(
            "The last push was delivered {} after it came, {} ago.",
            span(last.at - last.accepted_at),
            span(now - last.at)
        ),
        Some(last) => match ended(last) {
            Some(text) => of_the_last_push(&text),
            None if facts.process.wait_no_more.contains(&last.id) => {
                of_the_last_push(&left_the_mailbox(last, facts, now))
            }
            None => "The relay has a push for it, which the phone has not answered yet.".into(),
        },
        None => "It lives, and nothing waits for it: no push has come to it lately.".into(),
    }
}

fn of_the_last_push(text: &str) -> String {
    format!("Of the last push: {}{}", text[..1].to_lowercase(), &text[1..])
}

fn of_life(facts: &Facts, now: DateTime<Utc>) -> String {
    let row = facts.registration.as_ref();
    match (facts.life, row) {
        (Life::Lives, _) => "The registration lives.".into(),
        (Life::Revoked, _) => {
            "The registration was ended, by the phone since the application is gone, by its user with a command \
             (XEP-0050), or by an operator: senders get 410."
                .into()
        }
        (Life::Expired, Some(row)) => format!(
            "The registration lapsed {} ago, since the phone did not renew it: senders get 410.",
            span(now - row.expires_at)
        ),
        (Life::Replaced, Some(row)) => format!(
            "The application has a newer endpoint, for {}: senders get 410 at this one.",
            row.since.map_or_else(|| "some time".to_owned(), |since| span(now - since))
        ),
        _ => "This store has no such registration: it ended more than a day ago, or never was in it.".into(),
    }
}

/// Returns the statement that the account's tenant is suspended, if it is.
fn suspended(facts: &Facts, now: DateTime<Utc>) -> Option<String> {
    let tenant = facts.tenant.as_ref()?;
    let since = tenant.suspended_since?;
    let name = &tenant.name;
    Some(format!(
        "the tenant {name} has been suspended for {}, until `upwire tenant resume {name}`",
        span(now - since)
    ))
}

/// Returns the state of the phone in words.
fn phone(facts: &Facts, now: DateTime<Utc>) -> String {
    let renewed = facts.registration.as_ref().map(|row| row.renewed_at);
    let Some(last) = facts.phones.first() else {
        let since =
            renewed.map_or_else(String::new, |at| format!(" since it registered {} ago", span(now - at)));
        return format!("no phone of the account has been seen{since}");
    };
    // A registration counts as a sign of life, whether or not it was noted.
    let seen_at = renewed.map_or(last.seen_at, |renewed| renewed.max(last.seen_at));
    let ago = span(now - seen_at);
    match (now - seen_at < LATELY, last.session_has_ended) {
        (_, true) if seen_at == last.seen_at => {
            format!("the phone's session has ended, it was last seen {ago} ago")
        }
        (true, _) => format!("the phone was seen {ago} ago, and does not answer"),
        (false, _) => format!("the phone has sent no presence and no registration for {ago}"),
    }
}

/// Returns a time in words, in its largest unit.
pub(super) fn span(time: TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    match seconds {
        0..10 => format!("{:.1} s", time.num_milliseconds().max(0) as f64 / 1000.0),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => counted(seconds / 3600, "hour", "hours"),
        _ => counted(seconds / 86_400, "day", "days"),
    }
}

/// Returns a count with its unit, in the singular or the plural.
pub(super) fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, one: &str, several: &str) -> String {
    let unit = if count == N::from(1) { one } else { several };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests;
