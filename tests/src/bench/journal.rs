//! The journal of one run: when each push was posted, answered, and seen by a phone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;

/// Size of a push's body in bytes, as most senders have it.
pub const BODY_BYTES: usize = 1024;
/// Number of bytes at the start of a body that name its run and its place in the run. A multiple of three, so that
/// their base64 ends where they end.
pub const TAG_BYTES: usize = 12;
const TAG_BASE64_BYTES: usize = TAG_BYTES / 3 * 4;
const RUN_BYTES: usize = 4;

/// The first bytes of a body.
pub type Tag = [u8; TAG_BYTES];

struct Entry {
    posted: Instant,
    answered: Option<Instant>,
    arrived: Option<Instant>,
    /// True if its sender got another answer than 201, or none.
    refused: bool,
    /// The sender that waits for the arrival.
    sender: Option<Rc<Notify>>,
}

impl Entry {
    /// Returns whether nothing more is expected: the push was refused, or it was accepted and has arrived.
    fn is_over(&self) -> bool {
        self.refused || (self.answered.is_some() && self.arrived.is_some())
    }
}

/// The pushes of one run at a time. Everything happens in one thread.
#[derive(Default)]
pub struct Journal {
    run: Cell<u32>,
    entries: RefCell<VecDeque<Entry>>,
    /// Number of entries that were forgotten from the front of `entries`.
    forgotten: Cell<usize>,
    errors: Cell<u64>,
    duplicates: Cell<u64>,
    arrivals: Cell<usize>,
    /// The first refusal.
    complaint: RefCell<Option<String>>,
}

/// The result of a run.
pub struct Account {
    /// Arrivals within the window.
    pub delivered: usize,
    /// Answers 201 within the window.
    pub accepted: usize,
    /// Pushes accepted but not yet arrived at the end of the window.
    pub backlog: usize,
    /// Pushes accepted and never arrived.
    pub lost: usize,
    /// Requests with another answer than 201, or none.
    pub errors: u64,
    /// Arrivals of pushes that had arrived before.
    pub duplicates: u64,
    /// Times from POST to the phone, of pushes that were posted within the window; sorted.
    pub to_client: Vec<Duration>,
    /// Times from POST to 201, of pushes that were posted within the window; sorted.
    pub to_answer: Vec<Duration>,
}

impl Journal {
    /// Begins a run, and forgets the last one.
    pub fn begin(&self) {
        self.run.set(self.run.get() + 1);
        self.entries.borrow_mut().clear();
        self.forgotten.set(0);
        self.errors.set(0);
        self.duplicates.set(0);
        self.arrivals.set(0);
        self.complaint.take();
    }

    /// Notes that a push is posted now. Returns its number and its tag.
    pub fn posted(&self, sender: Option<Rc<Notify>>) -> (usize, Tag) {
        self.planned(Instant::now(), sender)
    }

    /// Notes a push that was planned for `posted`, so that the delay of a busy sender counts. Returns its number and
    /// its tag.
    pub fn planned(&self, posted: Instant, sender: Option<Rc<Notify>>) -> (usize, Tag) {
        let mut entries = self.entries.borrow_mut();
        let number = self.forgotten.get() + entries.len();
        entries.push_back(Entry { posted, answered: None, arrived: None, refused: false, sender });
        let mut tag = [0; TAG_BYTES];
        tag[..RUN_BYTES].copy_from_slice(&self.run.get().to_be_bytes());
        tag[RUN_BYTES..].copy_from_slice(&(number as u64).to_be_bytes());
        (number, tag)
    }

    /// Notes a 201.
    pub fn accepted(&self, number: usize) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(number.wrapping_sub(self.forgotten.get())) {
            entry.answered = Some(Instant::now());
        }
    }

    /// Notes any other outcome.
    pub fn refused(&self, number: usize, what: &str) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(number.wrapping_sub(self.forgotten.get())) {
            entry.refused = true;
        }
        self.errors.set(self.errors.get() + 1);
        self.complaint.borrow_mut().get_or_insert_with(|| what.to_owned());
    }

    /// Notes that a phone got the body that begins with this base64.
    pub fn arrived(&self, base64: &[u8], now: Instant) {
        self.arrivals.set(self.arrivals.get() + 1);
        let mut tag = [0; TAG_BYTES];
        let tag_base64 = base64.get(..TAG_BASE64_BYTES).unwrap_or_default();
        let decoded = STANDARD.decode_slice(tag_base64, &mut tag).is_ok();
        let (run, number) = tag.split_at(RUN_BYTES);
        let number = number.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(number.wrapping_sub(self.forgotten.get()));
        let entry = entry.filter(|_| decoded && run == self.run.get().to_be_bytes());
        match entry {
            Some(entry) if entry.arrived.is_none() => {
                entry.arrived = Some(now);
                if let Some(sender) = entry.sender.take() {
                    sender.notify_one();
                }
            }
            // It came twice, or it is of an earlier run.
            _ => self.duplicates.set(self.duplicates.get() + 1),
        }
    }

    /// Returns the number of pushes that phones got, duplicates included.
    pub fn arrivals(&self) -> usize {
        self.arrivals.get()
    }

    /// Counts the pushes that are accepted and have not yet arrived.
    pub fn under_way(&self) -> usize {
        let waits = |entry: &&Entry| entry.answered.is_some() && entry.arrived.is_none();
        self.entries.borrow().iter().filter(waits).count()
    }

    /// Forgets the oldest pushes, up to the first that is under way, so that a run may last. Returns the times from
    /// POST to the phone of those that arrived.
    pub fn forget_oldest(&self) -> Vec<Duration> {
        let mut entries = self.entries.borrow_mut();
        let over = entries.iter().take_while(|entry| entry.is_over()).count();
        self.forgotten.set(self.forgotten.get() + over);
        let times =
            entries.drain(..over).filter_map(|entry| Some(entry.arrived?.duration_since(entry.posted)));
        times.collect()
    }

    /// Returns the number of pushes that were posted.
    pub fn posted_so_far(&self) -> usize {
        self.forgotten.get() + self.entries.borrow().len()
    }

    /// Returns the number of requests with another answer than 201, or none.
    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// Returns the first refusal of the run.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }

    /// Returns the result of the run within `begin..end`.
    pub fn account(&self, begin: Instant, end: Instant) -> Account {
        let entries = self.entries.borrow();
        let within = |moment: Option<Instant>| moment.is_some_and(|at| (begin..end).contains(&at));
        let count = |test: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| test(entry)).count();
        let since = |moment: &dyn Fn(&Entry) -> Option<Instant>| {
            let posted = entries.iter().filter(|entry| within(Some(entry.posted)));
            let mut times: Vec<Duration> =
                posted.filter_map(|entry| Some(moment(entry)?.duration_since(entry.posted))).collect();
            times.sort_unstable();
            times
        };
        let before_end = |moment: Option<Instant>| moment.is_some_and(|at| at < end);
        Account {
            delivered: count(&|entry| within(entry.arrived)),
            accepted: count(&|entry| within(entry.answered)),
            backlog: count(&|entry| before_end(entry.answered) && !before_end(entry.arrived)),
            lost: count(&|entry| entry.answered.is_some() && entry.arrived.is_none()),
            errors: self.errors.get(),
            duplicates: self.duplicates.get(),
            to_client: since(&|entry| entry.arrived),
            to_answer: since(&|entry| entry.answered),
        }
    }
}
