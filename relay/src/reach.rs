//! What is known of recipients and their mailboxes: for whom something waits, whose mailbox is being read, and
//! when who failed to answer is tried again.
//!
//! Pure bookkeeping, of bounded size: what is forgotten is unknown, and read before the next push goes out.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use push::{MessageId, RegistrationId};
use tokio::time::Instant;
use tokio_xmpp::jid::FullJid;

/// Most mailboxes that are read at a time.
pub(crate) const READING_MAX: usize = 128;
/// Most recipients whose mailbox is still to be read. A sweep finds those beyond.
const CUED_MAX: usize = 65_536;
/// Most recipients whose mailboxes are known to be empty or not, in each of two generations: 16 bytes each.
const KNOWN_MAX: usize = 524_288;
/// Most recipients that are tried again by themselves. A sweep finds those beyond.
const RETRIED_MAX: usize = 4096;
/// Pushes of one recipient that are put off by themselves, because it answers others.
const REFUSED_MAX: usize = 256;
/// The first delay before a recipient is tried again; each further one is twice as long.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(2);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(128);
/// Between further ones, as between sweeps.
const RETRY_DELAY_LAST: Duration = Duration::from_secs(600);
/// Failures are counted together if no more than this is between them.
const FAILURES_APART_MAX: Duration = Duration::from_secs(2 * RETRY_DELAY_LAST.as_secs());

/// What a mailbox is known to hold for a recipient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Knowledge {
    #[default]
    Nothing,
    Something,
    /// Something, and the recipient was not there when it was tried last.
    Away,
}

/// Why a mailbox is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cue {
    /// Perhaps the recipient is back. What the XMPP server may still hold for its session is left out.
    Guess,
    /// It has a new session, or has answered: whatever waits is for it.
    There,
}

/// What to read next of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadRequest {
    pub(crate) recipient: FullJid,
    /// Of which reading this is a part.
    pub(crate) reading: u64,
    pub(crate) cue: Cue,
    pub(crate) progress: Progress,
}

/// How far a mailbox was read for a recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last push that was read; `None`: from the beginning.
    pub(crate) upto: Option<MessageId>,
    /// What was left out of what waits.
    pub(crate) left_out: Knowledge,
    /// Registrations that named somebody else. One that moves meanwhile has all of its pushes read in order, by a
    /// reading of its own.
    pub(crate) passed_over: HashSet<RegistrationId>,
}

/// One reading of a mailbox from its beginning to its end, a page at a time.
#[derive(Debug)]
struct Reading {
    number: u64,
    cue: Cue,
    /// `None` while a page is asked for.
    progress: Option<Progress>,
    /// Something was kept, or a guess came, since it began: it begins once more.
    again: bool,
}

/// Someone who did not answer, or not all.
#[derive(Debug)]
struct Retry {
    failures: u32,
    failed_at: Instant,
    at: Option<Instant>,
    /// It answers, but not all: its answers say nothing of the rest.
    refuses: bool,
    /// What it refuses: put off until then.
    refused: Vec<MessageId>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reach {
    hasher: RandomState,
    /// Two generations: when the younger is full, the older is forgotten.
    known: [HashMap<u64, Knowledge>; 2],
    readings: HashMap<FullJid, Reading>,
    /// Pages that are asked for and not wanted any more. Each takes the place of a reading.
    stale: usize,
    /// How many readings began so far.
    begun: u64,
    cued: VecDeque<FullJid>,
    cues: HashMap<FullJid, Cue>,
    retries: HashMap<FullJid, Retry>,
}

impl Reach {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            known: Default::default(),
            readings: HashMap::new(),
            stale: 0,
            begun: 0,
            cued: VecDeque::new(),
            cues: HashMap::new(),
            retries: HashMap::new(),
        }
    }

    /// What is known to wait for a recipient; `None`: it was not read yet, or is forgotten.
    pub(crate) fn known(&self, jid: &FullJid) -> Option<Knowledge> {
        let key = self.hasher.hash_one(jid);
        self.known.iter().find_map(|generation| generation.get(&key)).copied()
    }

    fn learn(&mut self, jid: &FullJid, knowledge: Knowledge) {
        if self.known[0].len() >= KNOWN_MAX {
            self.known.swap(0, 1);
            self.known[0].clear();
        }
        let key = self.hasher.hash_one(jid);
        self.known[0].insert(key, knowledge);
    }

    /// Whether a mailbox is being read, or to be read, for this recipient.
    pub(crate) fn is_reading(&self, jid: &FullJid) -> bool {
        self.readings.contains_key(jid) || self.cues.contains_key(jid)
    }

    /// Whose mailboxes are being read.
    pub(crate) fn being_read(&self) -> HashSet<FullJid> {
        self.readings.keys().cloned().collect()
    }

    /// Asks for a mailbox to be read. Whether it will be: not if too many are asked for already.
    pub(crate) fn cue(&mut self, jid: &FullJid, cue: Cue) -> bool {
        match self.readings.get_mut(jid) {
            Some(reading) if cue == Cue::Guess => {
                reading.again = true;
                return true;
            }
            // What it left out, or passed over, is to go out before what it would read next.
            Some(_) => self.abandon_reading(jid),
            None if self.cues.len() >= CUED_MAX && !self.cues.contains_key(jid) => {
                self.something_waits(jid);
                return false;
            }
            None => {}
        }
        self.line_up(jid, cue);
        true
    }

    fn abandon_reading(&mut self, jid: &FullJid) {
        let abandoned = self.readings.remove(jid);
        self.stale += usize::from(abandoned.is_some_and(|reading| reading.progress.is_none()));
    }

    fn line_up(&mut self, jid: &FullJid, cue: Cue) {
        match self.cues.entry(jid.clone()) {
            Entry::Occupied(mut entry) => {
                let stronger = cue.max(*entry.get());
                entry.insert(stronger);
            }
            Entry::Vacant(entry) => {
                entry.insert(cue);
                self.cued.push_back(jid.clone());
            }
        }
    }

    /// Begins to read the next mailbox that is asked for, if there is room.
    pub(crate) fn begin(&mut self) -> Option<ReadRequest> {
        while self.readings.len() + self.stale < READING_MAX {
            let recipient = self.cued.pop_front()?;
            let Some(cue) = self.cues.remove(&recipient) else { continue };
            self.begun += 1;
            let number = self.begun;
            let reading = Reading { number, cue, progress: None, again: false };
            self.readings.insert(recipient.clone(), reading);
            return Some(ReadRequest { recipient, reading: number, cue, progress: Progress::default() });
        }
        None
    }

    /// Notes a page. Whether it is wanted still; if not, nothing of it is.
    pub(crate) fn page_read(&mut self, jid: &FullJid, number: u64, progress: Progress) -> bool {
        let reading = self.readings.get_mut(jid).filter(|reading| reading.number == number);
        let Some(reading) = reading else {
            self.stale -= 1;
            return false;
        };
        reading.progress = Some(progress);
        true
    }

    /// Asks for the page after the one that was read last.
    pub(crate) fn read_on(&mut self, jid: &FullJid) -> Option<ReadRequest> {
        let reading = self.readings.get_mut(jid)?;
        let progress = reading.progress.take()?;
        let Reading { number, cue, .. } = *reading;
        Some(ReadRequest { recipient: jid.clone(), reading: number, cue, progress })
    }

    /// Ends a reading that has come to the end of the mailbox: what is known now; or nothing, if it has to begin
    /// once more.
    pub(crate) fn finish_reading(&mut self, jid: &FullJid) -> Option<Knowledge> {
        let reading = self.readings.remove(jid)?;
        if reading.again {
            self.line_up(jid, reading.cue);
            self.learn(jid, Knowledge::Something);
            return None;
        }
        let knowledge = reading.progress.unwrap_or_default().left_out;
        self.learn(jid, knowledge);
        Some(knowledge)
    }

    /// Stops reading for a recipient whose line is given up.
    pub(crate) fn stop_reading(&mut self, jid: &FullJid) {
        self.abandon_reading(jid);
        self.cues.remove(jid);
        self.learn(jid, Knowledge::Something);
    }

    /// Notes that something waits for it.
    pub(crate) fn something_waits(&mut self, jid: &FullJid) {
        if self.known(jid) != Some(Knowledge::Away) {
            self.learn(jid, Knowledge::Something);
        }
    }

    /// Notes that nothing which was sent to it was answered, or that its session has ended. It is tried again after a
    /// while, and then ever later: it may have had another session by then, or have one that says nothing of itself.
    pub(crate) fn is_away(&mut self, jid: &FullJid, now: Instant) {
        self.stop_reading(jid);
        self.learn(jid, Knowledge::Away);
        self.retry_later(jid, now);
    }

    /// Notes that it refuses a push while it answers others.
    pub(crate) fn refuses(&mut self, jid: &FullJid, pushes: &[MessageId], now: Instant) {
        self.retry_later(jid, now);
        if let Some(retry) = self.retries.get_mut(jid) {
            retry.refuses = true;
            retry.refused.extend(pushes);
            retry.refused.truncate(REFUSED_MAX);
        }
    }

    /// Whether it is put off by itself.
    pub(crate) fn is_refused(&self, jid: &FullJid, push: MessageId) -> bool {
        self.retries.get(jid).is_some_and(|retry| retry.refused.contains(&push))
    }

    /// Whether it has failed so lately that it is not tried again for a new push.
    pub(crate) fn is_put_off(&self, jid: &FullJid, now: Instant) -> bool {
        self.retries.get(jid).is_some_and(|retry| now.duration_since(retry.failed_at) < RETRY_DELAY_MIN)
    }

    /// Notes an answer. Whether that is a reason to read its mailbox.
    pub(crate) fn has_answered(&mut self, jid: &FullJid) -> bool {
        // What it refuses is put off until its time, and then for longer.
        if self.retries.get(jid).is_some_and(|retry| !retry.refuses) {
            self.retries.remove(jid);
        }
        self.known(jid) != Some(Knowledge::Nothing) && !self.is_reading(jid)
    }

    /// Notes a new session: nothing is put off for it any more.
    pub(crate) fn is_back(&mut self, jid: &FullJid) {
        self.retries.remove(jid);
    }

    /// Something new came for it while it is put off: it is tried as soon as it is not.
    pub(crate) fn retry_soon(&mut self, jid: &FullJid) {
        if let Some(retry) = self.retries.get_mut(jid) {
            let soon = retry.failed_at + RETRY_DELAY_MIN;
            retry.at = Some(retry.at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The recipients whose time to be tried again has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<FullJid> {
        self.retries.retain(|_, retry| {
            retry.at.is_some() || now.duration_since(retry.failed_at) < FAILURES_APART_MAX
        });
        let due = self.retries.iter_mut().filter(|(_, retry)| retry.at.is_some_and(|at| at <= now));
        let due: Vec<FullJid> = due
            .map(|(jid, retry)| {
                retry.at = None;
                retry.refused.clear();
                jid.clone()
            })
            .collect();
        // What it refused was passed over by whoever read its mailbox meanwhile.
        due.iter().for_each(|jid| self.something_waits(jid));
        due
    }

    fn retry_later(&mut self, jid: &FullJid, now: Instant) {
        if self.retries.len() >= RETRIED_MAX && !self.retries.contains_key(jid) {
            return;
        }
        let retry = self.retries.entry(jid.clone()).or_insert(Retry {
            failures: 0,
            failed_at: now,
            at: None,
            refuses: false,
            refused: Vec::new(),
        });
        retry.failed_at = now;
        let delay = RETRY_DELAY_MIN * 2u32.pow(retry.failures.min(16));
        let delay = if delay > RETRY_DELAY_MAX { RETRY_DELAY_LAST } else { delay };
        retry.failures += 1;
        retry.at = Some(now + delay);
    }
}

/// Ids seen lately, of a bounded number.
#[derive(Debug)]
pub(crate) struct Lately<Id> {
    ids: HashSet<Id>,
    order: VecDeque<Id>,
    max: usize,
}

impl<Id: Clone + Eq + Hash> Lately<Id> {
    pub(crate) fn new(max: usize) -> Self {
        Self { ids: HashSet::new(), order: VecDeque::new(), max }
    }

    /// Whether it is new.
    pub(crate) fn note(&mut self, id: Id) -> bool {
        let new = self.ids.insert(id.clone());
        if new {
            self.order.push_back(id);
            if self.order.len() > self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
        new
    }

    pub(crate) fn contains(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }
}

#[cfg(test)]
mod tests;
