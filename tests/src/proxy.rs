//! A TCP proxy in front of AWS. A test can cut it, read its count of the calls, shift the dates of answers, and shorten
//! the answers to polls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use crate::emulator::Emulator;
use crate::fault_proxy::FaultProxy;
use chrono::{NaiveDateTime, TimeDelta};

/// The header with which both SDKs name the call.
const TARGET: &[u8] = b"x-amz-target: ";
/// The header with the date of each answer.
const DATE: &[u8] = b"\r\ndate: ";
const DATE_FORM: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// The bound of a poll that asks for the most entries.
const ASKED: &[u8] = b"\"MaxNumberOfMessages\":10";
const DATE_BYTES: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// A proxy on a port of its own, closed when dropped.
pub struct Proxy {
    /// The base URL, `http://127.0.0.1:…`.
    pub endpoint: String,
    way: FaultProxy,
    calls: Calls,
    shift: Shift,
    entries_max: EntriesMax,
}

/// Most entries of an answer to a poll, below ten; 0: as many as the poll asks for.
type EntriesMax = Arc<AtomicU8>;

/// Number of seconds that is added to the `Date` of each answer.
type Shift = Arc<AtomicI64>;

/// The two proxies between one process and AWS. Each can be cut alone.
pub struct Ways {
    /// The proxy to SQS.
    pub queue: Proxy,
    /// The proxy to DynamoDB.
    pub table: Proxy,
}

impl Ways {
    /// Opens proxies to these endpoints.
    pub async fn to(queue: &str, table: &str) -> Self {
        Self { queue: Proxy::to(queue).await, table: Proxy::to(table).await }
    }

    /// Returns the variables with which a process uses these proxies.
    pub fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = Emulator::variables(&self.queue.endpoint);
        variables.insert("AWS_ENDPOINT_URL_DYNAMODB", self.table.endpoint.clone());
        variables
    }

    /// Returns the number of calls of each operation so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = self.queue.calls();
        calls.extend(self.table.calls());
        calls
    }

    /// Returns the number of calls of each operation since then.
    pub fn calls_since(&self, before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
        let grown = self.calls().into_iter().map(|(call, count)| {
            let grown = count - before.get(&call).unwrap_or(&0);
            (call, grown)
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

/// Number of calls of each operation: `GetItem`, `SendMessage` and so on.
type Calls = Arc<Mutex<BTreeMap<String, usize>>>;

impl Proxy {
    /// Opens a proxy to this endpoint, `http://127.0.0.1:…`.
    pub async fn to(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("http://").expect("an http endpoint").to_owned();
        let (calls, shift, entries_max) = (Calls::default(), Shift::default(), EntriesMax::default());
        let (counted, shifted, bounded) = (Arc::clone(&calls), Arc::clone(&shift), Arc::clone(&entries_max));
        let way = FaultProxy::tapped(target, move || {
            let (mut head, calls, shift) = (Vec::new(), Arc::clone(&counted), Arc::clone(&shifted));
            let entries_max = Arc::clone(&bounded);
            let there = move |read: &mut [u8]| {
                head.extend_from_slice(read);
                count_calls(&mut head, &calls);
                shorten(read, entries_max.load(Ordering::Relaxed));
            };
            let back = move |read: &mut [u8]| move_dates(read, shift.load(Ordering::Relaxed));
            [Box::new(there), Box::new(back)]
        });
        let way = way.await;
        Self { endpoint: format!("http://{}", way.address()), way, calls, shift, entries_max }
    }

    /// Cuts every connection, and each new one at once.
    pub fn cut(&self) {
        self.way.cut();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.way.mend();
    }

    /// Adds this number of seconds to the `Date` of each answer from now on.
    pub fn shift_dates(&self, seconds: i64) {
        self.shift.store(seconds, Ordering::Relaxed);
    }

    /// Limits the answers to polls to this number of entries from now on, below ten; 0: as many as the poll asks for.
    pub fn shorten_answers(&self, entries_max: u8) {
        assert!(entries_max < 10, "one digit takes the place of two");
        self.entries_max.store(entries_max, Ordering::Relaxed);
    }

    /// Returns the number of calls of each operation so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.calls.lock().expect("no panic while held").clone()
    }
}

/// Shifts the dates in these bytes. A date that is split between two reads keeps its value.
fn move_dates(part: &mut [u8], seconds: i64) {
    if seconds == 0 {
        return;
    }
    let lower = part.to_ascii_lowercase();
    let mut at = 0;
    while let Some(found) = find(&lower[at..], DATE) {
        let value = at + found + DATE.len()..at + found + DATE.len() + DATE_BYTES;
        at = value.start;
        let told = part.get(value.clone()).and_then(|told| std::str::from_utf8(told).ok());
        let told = told.and_then(|told| NaiveDateTime::parse_from_str(told, DATE_FORM).ok());
        if let Some(moved) = told.and_then(|told| told.checked_add_signed(TimeDelta::seconds(seconds))) {
            part[value].copy_from_slice(moved.format(DATE_FORM).to_string().as_bytes());
        }
    }
}

/// Lowers the bound of the polls in these bytes. A bound that is split between two reads keeps its value.
fn shorten(part: &mut [u8], entries_max: u8) {
    if entries_max == 0 {
        return;
    }
    let mut at = 0;
    while let Some(found) = find(&part[at..], ASKED) {
        at += found + ASKED.len();
        part[at - 2..at].copy_from_slice(&[b' ', b'0' + entries_max]);
    }
}

/// Counts the complete target headers in these bytes, and keeps the bytes that may begin another.
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
