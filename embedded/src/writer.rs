//! The writer thread, which groups commits.
//!
//! A write is durable when its future resolves: SQLite syncs the write-ahead log at each commit. Writes that arrive
//! during a commit share the next one. A write that nobody waits for lingers, to share the commit of an urgent write.
//!
//! Pushes are written in the same commits, unless they are settled before ([`Unwritten`]). While the relay settles
//! pushes, a commit of nothing but pushes begins [a pause](waiting::PACE) after the commit before. Most of them are
//! settled by then, but the commit does not wait for any settlement.

use std::{
    fs::File,
    io,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use parking_lot::{Condvar, Mutex};
use push::{
    PushMessage,
    ports::Unavailable,
    usage::{self, Meter, Usage},
};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::{
    commit::{Batch, Done, Statements, Write, commit},
    waiting::Waiting,
};
use crate::entries::{
    known::Known,
    unwritten::{Answer, Row, Sending, Unwritten},
};

mod commit;
mod waiting;

/// Most writes that wait for the writer thread. Further callers wait for room.
const WRITES_WAITING_MAX: usize = 1024;
/// Longest time for which a write that nobody waits for lingers.
const LINGER: Duration = Duration::from_millis(20);
/// Delay before failed deletions are retried.
const DELETION_RETRY: Duration = Duration::from_secs(1);

/// The urgency of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Now,
    /// Nobody waits for the write: it may linger for [`LINGER`].
    Soon,
}

/// The state that the thread shares with its callers.
struct Desk {
    waiting: Mutex<Waiting>,
    work: Condvar,
    known: Arc<Known>,
    /// The usage of tenants, which each commit writes.
    usage: OnceLock<Meter>,
}

/// Hands writes to the thread. The thread ends when every clone is dropped and all writes are committed.
#[derive(Clone)]
pub(crate) struct Writer {
    room: Arc<Semaphore>,
    handle: Arc<Handle>,
}

/// Closes the desk when the last clone is dropped.
struct Handle(Arc<Desk>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.waiting.lock().is_closed = true;
        self.0.work.notify_one();
    }
}

/// Fails all waiting writes when the thread ends.
struct Presence(Arc<Desk>);

impl Drop for Presence {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_dead = true;
        drop(waiting.take());
    }
}

impl Writer {
    /// Starts the thread, which holds the lock until it ends.
    pub(crate) fn start(
        connection: Connection,
        lock: File,
        known: Arc<Known>,
        next_seq: i64,
    ) -> io::Result<Self> {
        let desk = Arc::new(Desk::of(known, next_seq));
        let presence = Presence(Arc::clone(&desk));
        thread::Builder::new().name("upwire-writer".into()).spawn(move || {
            write_until_closed(connection, &presence.0);
            drop((presence, lock));
        })?;
        Ok(Self { room: Arc::new(Semaphore::new(WRITES_WAITING_MAX)), handle: Arc::new(Handle(desk)) })
    }

    /// Waits for room for a write, or for pushes that are sent together.
    pub(crate) async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect("it is never closed")
    }

    /// Takes pushes that are counted already. Hands them to the relay, and writes them unless they are settled before.
    pub(crate) fn send(
        &self,
        messages: Vec<PushMessage>,
        room: OwnedSemaphorePermit,
        now: DateTime<Utc>,
    ) -> oneshot::Receiver<Answer> {
        self.handle.0.send(messages, Some(room), now)
    }

    /// Sets the meter whose usage each commit writes.
    pub(crate) fn take_along(&self, usage: Meter) {
        // The first meter stays.
        let _ = self.handle.0.usage.set(usage);
    }

    /// Returns whether usage waits for a commit.
    pub(crate) fn has_usage(&self) -> bool {
        let desk = &self.handle.0;
        !desk.waiting.lock().usage.is_empty() || desk.usage.get().is_some_and(|usage| !usage.is_empty())
    }

    /// Settles pushes for good. Pushes without a row get none; the rows of the others are deleted by a later commit.
    /// Their usage is committed with the deletion, or soon.
    pub(crate) fn settle(&self, seqs: Vec<i64>, usage: Usage) {
        self.handle.0.settle(seqs, usage);
    }

    /// Writes. `committed` runs in the writer thread right after the commit, even if the caller no longer waits for the
    /// outcome.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> Result<T, Unavailable> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, outcome) = oneshot::channel();
        let statements: Statements = Box::new(move |connection| {
            let result = statements(connection);
            Box::new(move |commit| {
                let outcome = match (result, commit) {
                    (Ok(value), Ok(())) => {
                        committed(&value);
                        Ok(value)
                    }
                    (Err(cause), _) => Err(cause),
                    (_, Err(cause)) => Err(Unavailable::new(cause.clone())),
                };
                // The caller may have given up; the write stands anyway.
                let _ = reply.send(outcome);
            })
        });
        let write = Write { statements, _room: self.room().await };
        self.handle.0.add(haste, write);
        outcome.await.map_err(|_| refused())?
    }
}

/// Returns the error for a write that the thread dropped.
pub(crate) fn refused() -> Unavailable {
    Unavailable::new("the database did not take the write")
}

impl Desk {
    fn of(known: Arc<Known>, next_seq: i64) -> Self {
        let waiting = Waiting {
            unwritten: Unwritten::default(),
            writes: Vec::new(),
            deletions: Vec::new(),
            usage: Usage::new(),
            usage_until: None,
            is_hasty: false,
            linger_until: None,
            begun: Instant::now(),
            settles: false,
            stands: true,
            next_seq,
            sleeps_until: None,
            is_closed: false,
            is_dead: false,
        };
        Self { waiting: Mutex::new(waiting), work: Condvar::new(), known, usage: OnceLock::new() }
    }

    /// See [`Writer::send`].
    fn send(
        &self,
        messages: Vec<PushMessage>,
        room: Option<OwnedSemaphorePermit>,
        now: DateTime<Utc>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, outcome) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let first = waiting.next_seq;
        let rows = (first..).zip(messages).map(|(seq, message)| {
            let message = Arc::new(message);
            let is_handed_on = waiting.stands && self.known.hand_on(seq, &message, now);
            if !is_handed_on {
                self.known.await_row();
            }
            Row { message, is_handed_on }
        });
        let rows: Vec<Row> = rows.collect();
        waiting.next_seq += rows.len() as i64;
        let is_any_handed_on = rows.iter().any(|row| row.is_handed_on);
        let sending = Sending::new(first, rows, answer, room);
        if waiting.is_dead {
            self.known.note_refused(&sending);
            return outcome;
        }
        waiting.unwritten.add(sending);
        self.wake(&waiting);
        drop(waiting);
        if is_any_handed_on {
            self.known.arrivals.notify_one();
        }
        outcome
    }

    /// See [`Writer::settle`].
    fn settle(&self, seqs: Vec<i64>, usage: Usage) {
        let mut waiting = self.waiting.lock();
        let has_usage = !usage.is_empty();
        waiting.add_usage(usage);
        for seq in seqs {
            waiting.settles = true;
            match waiting.unwritten.settle(seq) {
                Some(registration) => self.known.settle_unwritten(seq, registration),
                None if self.known.settle_written(seq) => waiting.deletions.push(seq),
                None => {}
            }
        }
        if !waiting.deletions.is_empty() {
            waiting.linger(LINGER);
        }
        if has_usage || !waiting.deletions.is_empty() {
            self.wake(&waiting);
        }
    }

    fn add(&self, haste: Haste, write: Write) {
        let mut waiting = self.waiting.lock();
        if waiting.is_dead {
            return;
        }
        waiting.writes.push(write);
        match haste {
            Haste::Now => waiting.is_hasty = true,
            Haste::Soon => waiting.linger(LINGER),
        }
        self.wake(&waiting);
    }

    /// Wakes the thread, unless it wakes by itself in time.
    fn wake(&self, waiting: &Waiting) {
        if let (Some(until), Some(due)) = (waiting.sleeps_until, waiting.due())
            && due < until
        {
            self.work.notify_one();
        }
    }

    /// Reports the outcome of a commit to all of its callers.
    fn conclude(&self, batch: Batch, done: Done, commit: &Result<(), String>) {
        let Batch { sendings, deletions, usage, .. } = batch;
        let mut waiting = self.waiting.lock();
        waiting.stands = commit.is_ok();
        if commit.is_err() {
            waiting.add_usage(usage);
        }
        if commit.is_err() && !deletions.is_empty() {
            waiting.linger(DELETION_RETRY);
            waiting.deletions.extend_from_slice(&deletions);
        }
        drop(waiting);
        // A statement that did not run has no result; the commit has failed then.
        let mut sent = done.sent.into_iter();
        for sending in sendings {
            let answer = match (sent.next(), commit) {
                (Some(Ok(())), Ok(())) => Ok(()),
                (Some(Err(cause)), _) => Err(Unavailable::new(cause)),
                (_, Err(cause)) => Err(Unavailable::new(cause.clone())),
                (None, Ok(())) => Err(refused()),
            };
            match answer {
                Ok(()) => self.known.note_written(&sending),
                Err(_) => self.known.note_refused(&sending),
            }
            sending.answer(answer);
        }
        if commit.is_ok() {
            for (seq, row) in deletions.into_iter().zip(done.deleted) {
                self.known.note_deleted(seq, row);
            }
        }
        // Last, since callers of these writes rely on all of the above.
        done.written.into_iter().for_each(|after| after(commit));
    }

    /// Waits until the next commit is due, and returns its writes; `None`: no callers are left.
    fn next(&self) -> Option<Batch> {
        let mut waiting = self.waiting.lock();
        loop {
            let now = Instant::now();
            match waiting.due() {
                None if waiting.is_closed => return None,
                Some(due) if waiting.is_closed || due <= now => {
                    waiting.begun = now;
                    return Some(waiting.take());
                }
                due => {
                    let until = due.unwrap_or(now + Duration::from_secs(3600));
                    waiting.sleeps_until = Some(until);
                    self.work.wait_until(&mut waiting, until);
                    waiting.sleeps_until = None;
                }
            }
        }
    }
}

/// Returns the remedy for a failed commit, by SQLite's error.
fn mend(error: &str) -> &'static str {
    if error.contains("locked") || error.contains("busy") {
        "another program has the database open and writes: end it, and read copies of the file alone"
    } else if error.contains("readonly") {
        "let the user that runs this write to the database, and to the folder that it is in"
    } else {
        "look whether the disk is full, or fails"
    }
}

/// Runs the thread until every [`Writer`] is dropped.
fn write_until_closed(mut connection: Connection, desk: &Desk) {
    while let Some(mut batch) = desk.next() {
        let mut done = Done::default();
        usage::add(&mut batch.usage, desk.usage.get().map(Meter::take).unwrap_or_default());
        let commit = commit(&mut connection, &mut batch, &mut done).map_err(|error| error.to_string());
        if let Err(error) = &commit {
            tracing::error!(%error, mend = mend(error), "the database did not take a commit");
            // The write-ahead log may have filled the disk. A checkpoint frees its room for the waiting deletions.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        desk.conclude(batch, done, &commit);
    }
}

#[cfg(test)]
mod tests;
