//! A TCP proxy in front of AWS that a test can cut, that counts the calls which pass, and that can have their answers be
//! of another time, or as short as SQS gives them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use crate::emulator::Emulator;
use crate::fault_proxy::FaultProxy;
use chrono::{NaiveDateTime, TimeDelta};

/// The header by which both SDKs say what they call.
const TARGET: &[u8] = b"x-amz-target: ";
/// The header by which each answer says when it was given.
const DATE: &[u8] = b"\r\ndate: ";
const DATE_FORM: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// The bound of an answer, where a poll asks for as much as it may.
const ASKED: &[u8] = b"\"MaxNumberOfMessages\":10";
const DATE_BYTES: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// A proxy on a port of its own; closed when dropped.
pub struct Proxy {
    /// `http://127.0.0.1:…`.
    pub endpoint: String,
    way: FaultProxy,
    calls: Calls,
    shift: Shift,
    entries_max: EntriesMax,
}

/// The most entries of an answer to a poll, below ten; 0: as many as were asked for.
type EntriesMax = Arc<AtomicU8>;

/// By how many seconds the `Date` of each answer is moved.
type Shift = Arc<AtomicI64>;

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

    /// Returns how often each operation was called so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = self.queue.calls();
        calls.extend(self.table.calls());
        calls
    }

    /// Returns how often each was called since then.
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
    /// A proxy to this endpoint, `http://127.0.0.1:…`.
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

    /// Has each answer from now on be of another time: its `Date` is so many seconds later.
    pub fn shift_dates(&self, seconds: i64) {
        self.shift.store(seconds, Ordering::Relaxed);
    }

    /// Has each poll from now on be answered with so many entries at most, below ten; 0: as many as it asks for.
    pub fn shorten_answers(&self, entries_max: u8) {
        assert!(entries_max < 10, "one digit takes the place of two");
        self.entries_max.store(entries_max, Ordering::Relaxed);
    }

    /// Returns how often each operation was called so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.calls.lock().expect("no panic while held").clone()
    }
}

/// Moves the dates in what has come. A head that comes in two parts keeps its own.
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

/// Lowers the bound of the polls in what has come. One that comes in two parts keeps its own.
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
