//! Application servers: each sends its pushes one after the other, and each push until it gets a 201 or a 410.

use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::ledger::{Ledger, PostAnswer};
use super::plan::{PushPlan, Timed};
use crate::http;

const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for an answer to a POST.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a final answer. Generous: an XMPP server may take a minute to start on two busy cores, and several
/// parts may be down.
const SENT_DEADLINE: Duration = Duration::from_secs(180);

/// A push and its number.
pub(super) type Numbered<'a> = (usize, &'a Timed<PushPlan>);

/// Sends pushes of one registration, each with its number, to the URL that the phone got last. Drops a URL that is
/// answered with 410, as real application servers do.
pub(super) async fn send(pushes: &[Numbered<'_>], endpoint: watch::Receiver<String>, ledger: &Ledger) {
    let client = http::client();
    let mut dropped = None;
    for (number, push) in pushes {
        sleep_until(ledger.instant(push.at)).await;
        let url = endpoint.borrow().clone();
        if dropped.as_ref() == Some(&url) {
            continue;
        }
        let body = body(*number, push.what.bytes);
        let sent = timeout(SENT_DEADLINE, send_one(&client, &url, *number, &push.what, &body, ledger));
        match sent.await {
            Ok(PostAnswer::Gone) => dropped = Some(url),
            Ok(_) => {}
            Err(_) => panic!("not within {SENT_DEADLINE:?}: push {number} is answered for good"),
        }
    }
}

async fn send_one(
    client: &Client,
    url: &str,
    number: usize,
    push: &PushPlan,
    body: &str,
    ledger: &Ledger,
) -> PostAnswer {
    let ttl = push.ttl.map(|ttl| ttl.to_string());
    let topic = push.topic.map(|topic| format!("topic-{topic}"));
    let headers = [("ttl", ttl.as_deref()), ("urgency", push.urgency), ("topic", topic.as_deref())];
    let headers: Vec<(&str, &str)> =
        headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    loop {
        ledger.begins_to_send(number, url);
        let post = http::try_send(client, "POST", url, &headers, body.to_owned());
        let answer = match timeout(ANSWER_TIMEOUT, post).await {
            Err(_) => PostAnswer::Unsure("no answer".to_owned()),
            Ok(Err(error)) => unanswered(&error),
            Ok(Ok(response)) => read(&response, number, ledger),
        };
        ledger.is_answered(number, answer.clone());
        if matches!(answer, PostAnswer::Accepted(_) | PostAnswer::Gone) {
            return answer;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

fn unanswered(error: &anyhow::Error) -> PostAnswer {
    match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_connect() => PostAnswer::Unreached,
        _ => PostAnswer::Unsure("connection lost".to_owned()),
    }
}

fn read(response: &http::Response, number: usize, ledger: &Ledger) -> PostAnswer {
    match response.status {
        201 => {
            let ttl = response.header("ttl").and_then(|ttl| ttl.parse().ok());
            if ttl.is_none() {
                ledger.violation(format!("push {number} got a 201 without a TTL"));
            }
            PostAnswer::Accepted(Duration::from_secs(ttl.unwrap_or_default()))
        }
        410 => PostAnswer::Gone,
        // The proxy in front of the function answers 502 when it finds the function dead.
        429 | 502 | 503 => PostAnswer::Unsure(response.status.to_string()),
        status => {
            ledger.violation(format!("push {number} is answered with {status}: {}", response.text()));
            PostAnswer::Unsure(status.to_string())
        }
    }
}

/// Returns a text with the push's number, padded to a length.
fn body(number: usize, bytes: usize) -> String {
    format!("{:.<bytes$}", format!("push {number} "))
}

/// Returns the number of the push that a body names.
pub(super) fn number(body: &[u8]) -> Option<usize> {
    std::str::from_utf8(body).ok()?.strip_prefix("push ")?.split(' ').next()?.parse().ok()
}
