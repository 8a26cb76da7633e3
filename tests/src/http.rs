//! HTTP requests as a sender makes them, each over a connection of its own.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
pub use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Method};

use crate::wait::eventually_some;

const PATIENCE: Duration = Duration::from_secs(120);

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// Sends a GET. Panics if nothing answers.
pub async fn get(url: &str) -> Response {
    send("GET", url, &[], "").await
}

/// Sends a POST without headers. Panics if nothing answers.
pub async fn post(url: &str, body: impl Into<Body>) -> Response {
    send("POST", url, &[], body).await
}

/// Sends a POST with headers. A name may come twice.
pub async fn post_with(url: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    send("POST", url, headers, body).await
}

/// Sends a POST until the answer is not 503, as senders do: on a busy machine, a call to the emulator may take longer
/// than one to AWS may. A push that was answered with 503 may have been queued all the same; a phone counts it once.
pub async fn post_patiently(url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Response {
    let body = body.into();
    eventually_some(PATIENCE, &format!("POST {url} is not 503"), async || {
        let response = post_with(url, headers, body.clone()).await;
        if response.status == 503 {
            will_be_posted_again(url, &body);
            return None;
        }
        Some(response)
    })
    .await
}

/// Returns a token that names the same endpoint, and that no secret signed.
pub fn forged(token: &str) -> String {
    let (signed, mac_end) = token.split_at(token.len() - 2);
    let other = if mac_end.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}{other}{}", &mac_end[1..])
}

/// Notes that a sender got 503 or no answer for this push, and posts it again.
pub(crate) fn will_be_posted_again(endpoint: &str, body: &[u8]) {
    posted_again().insert((token(endpoint).to_owned(), body.to_owned()));
}

/// Returns whether a sender in this process got 503 or no answer for this push, and posted it again.
pub(crate) fn was_posted_again(endpoint: &str, body: &[u8]) -> bool {
    posted_again().contains(&(token(endpoint).to_owned(), body.to_owned()))
}

/// Returns the tokens and bodies of the pushes that were posted again.
fn posted_again() -> MutexGuard<'static, BTreeSet<(String, Vec<u8>)>> {
    static POSTED_AGAIN: Mutex<BTreeSet<(String, Vec<u8>)>> = Mutex::new(BTreeSet::new());
    POSTED_AGAIN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an endpoint's last segment. The host differs between the fronts of one server.
fn token(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Sends a request with any method. Panics if nothing answers.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    match try_send(&client(), method, url, headers, body).await {
        Ok(response) => response,
        Err(error) => panic!("{method} {url}: {error:#}"),
    }
}

/// Sends a request with any method over a given client: to a server that may be down, or as load over persistent
/// connections.
pub async fn try_send(
    client: &Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> anyhow::Result<Response> {
    let method: Method = method.parse().context("the method")?;
    let mut request = client.request(method, url).body(body);
    for (name, value) in headers {
        // Headers are added, not set: a header that comes twice stays twice.
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await?.to_vec();
    Ok(Response { status, headers, body })
}

/// Returns a client whose connections end with the runtime of the test.
pub fn client() -> Client {
    Client::builder().redirect(Policy::none()).no_proxy().build().expect("an HTTP client")
}
