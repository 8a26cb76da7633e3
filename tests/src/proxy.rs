//! A TCP proxy in front of AWS that a test can cut, and that counts the calls which pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::emulator::Emulator;
use crate::fault_proxy::FaultProxy;

/// The header by which both SDKs say what they call.
const TARGET: &[u8] = b"x-amz-target: ";

/// A proxy on a port of its own; closed when dropped.
pub struct Proxy {
    /// `http://127.0.0.1:…`.
    pub endpoint: String,
    way: FaultProxy,
    calls: Calls,
}

/// The two ways from one process to AWS: each can be cut alone.
pub struct Ways {
    /// To SQS.
    pub queue: Proxy,
    /// To DynamoDB.
    pub table: Proxy,
}

impl Ways {
    /// Ways to these endpoints.
    pub async fn to(queue: &str, table: &str) -> Self {
        Self { queue: Proxy::to(queue).await, table: Proxy::to(table).await }
    }

    /// The variables by which a process takes these ways.
    pub fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = Emulator::variables(&self.queue.endpoint);
        variables.insert("AWS_ENDPOINT_URL_DYNAMODB", self.table.endpoint.clone());
        variables
    }

    /// How often each operation was called so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = self.queue.calls();
        calls.extend(self.table.calls());
        calls
    }

    /// How often each was called since then.
    pub fn calls_since(&self, before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
        let grown = self.calls().into_iter().map(|(call, count)| {
            let grown = count - before.get(&call).unwrap_or(&0);
            (call, grown)
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

/// How often each operation was called: `GetItem`, `SendMessage` and so on.
type Calls = Arc<Mutex<BTreeMap<String, usize>>>;

impl Proxy {
    /// A proxy to this endpoint, `http://127.0.0.1:…`.
    pub async fn to(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("http://").expect("an http endpoint").to_owned();
        let calls = Calls::default();
        let counted = Arc::clone(&calls);
        let way = FaultProxy::tapped(target, move || {
            let (mut head, calls) = (Vec::new(), Arc::clone(&counted));
            Box::new(move |read| {
                head.extend_from_slice(read);
                count_calls(&mut head, &calls);
            })
        });
        let way = way.await;
        Self { endpoint: format!("http://{}", way.address()), way, calls }
    }

    /// Cuts every connection, and each new one at once.
    pub fn cut(&self) {
        self.way.cut();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.way.mend();
    }

    /// How often each operation was called so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.calls.lock().expect("no panic while held").clone()
    }
}

/// Counts the whole target headers in what has come, and keeps what may be the beginning of one.
fn count_calls(head: &mut Vec<u8>, calls: &Calls) {
    let mut kept_from = head.len().saturating_sub(TARGET.len() - 1);
    let mut at = 0;
    while let Some(found) = find(&head[at..], TARGET) {
        let value = at + found + TARGET.len();
        let Some(length) = find(&head[value..], b"\r\n") else {
            kept_from = at + found;
            break;
        };
        let target = String::from_utf8_lossy(&head[value..value + length]).into_owned();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        *calls.lock().expect("no panic while held").entry(operation).or_default() += 1;
        at = value + length;
    }
    head.drain(..kept_from.max(at));
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
