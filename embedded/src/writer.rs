//! The writer thread, which groups commits.
//!
//! A write is durable when its future resolves: SQLite's write-ahead log is synced at each commit,
//! and whatever arrived while the last commit was under way shares the next one. A write that
//! nobody waits for lingers, to share the commit of one that somebody does.
//!
//! Pushes are written with them, unless they are settled before ([`Unwritten`]). While the relay settles pushes, a
//! commit that has nothing but pushes begins [a pause](waiting::PACE) after the one before, so that it finds most of them settled: that
//! is a pause and no wait for the settlement of any of them.

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

/// Writes that wait for the writer thread; a further one waits for room.
const WRITES_WAITING_MAX: usize = 1024;
/// Time for which a write that nobody waits for lingers.
const LINGER: Duration = Duration::from_millis(20);
/// Delay before deletions are tried again that could not be committed.
const DELETION_RETRY: Duration = Duration::from_secs(1);

/// The haste of a write: somebody may wait for it to be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Now,
    /// May linger for [`LINGER`].
    Soon,
}

/// The state that the thread shares with those who write.
struct Desk {
    waiting: Mutex<Waiting>,
    work: Condvar,
    known: Arc<Known>,
    /// The usage of tenants; each commit takes it along.
    usage: OnceLock<Meter>,
}

/// Hands writes to the thread, which ends when every clone is gone and what they were given is committed.
#[derive(Clone)]
pub(crate) struct Writer {
    room: Arc<Semaphore>,
    handle: Arc<Handle>,
}

/// Dropped with the last clone.
struct Handle(Arc<Desk>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.waiting.lock().is_closed = true;
        self.0.work.notify_one();
    }
}

/// Dropped with the thread: whoever waits for it gets an error.
struct Presence(Arc<Desk>);

impl Drop for Presence {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_dead = true;
        drop(waiting.take());
    }
}

impl Writer {
    /// Starts the thread, which holds the lock for as long as it runs.
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

    /// Room for a write, or for pushes that are sent together.
    pub(crate) async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect("it is never closed")
    }

    /// Takes pushes that count already: hands them to the relay, and has them written unless they are settled before.
    pub(crate) fn send(
        &self,
        messages: Vec<PushMessage>,
        room: OwnedSemaphorePermit,
        now: DateTime<Utc>,
    ) -> oneshot::Receiver<Answer> {
        self.handle.0.send(messages, Some(room), now)
    }

    /// Has each commit take along what tenants use.
    pub(crate) fn take_along(&self, usage: Meter) {
        // The first one stays.
        let _ = self.handle.0.usage.set(usage);
    }

    /// Returns whether usage waits for a commit.
    pub(crate) fn has_usage(&self) -> bool {
        let desk = &self.handle.0;
        !desk.waiting.lock().usage.is_empty() || desk.usage.get().is_some_and(|usage| !usage.is_empty())
    }

    /// Settles pushes for good. Those that have no row yet get none; the others' rows leave with a later commit.
    /// The usage that this comes to is committed with these rows' deletion, or soon.
    pub(crate) fn settle(&self, seqs: Vec<i64>, usage: Usage) {
        self.handle.0.settle(seqs, usage);
    }

    /// Writes; `committed` runs in the writer thread right after the commit, and runs even if
    /// nobody waits for the outcome any more.
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
                // The caller may have run out of time; the write stands all the same.
                let _ = reply.send(outcome);
            })
        });
        let write = Write { statements, _room: self.room().await };
        self.handle.0.add(haste, write);
        outcome.await.map_err(|_| refused())?
    }
}

/// The thread has died.
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

    /// Wakes the thread, unless it wakes by itself as soon as it has to.
    fn wake(&self, waiting: &Waiting) {
        if let (Some(until), Some(due)) = (waiting.sleeps_until, waiting.due())
            && due < until
        {
            self.work.notify_one();
        }
    }

    /// Tells everyone what has come of a commit.
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
        // A statement that was not run has no result of its own: the commit has failed.
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
        // Last: who waits for one of these counts on all that came before it.
        done.written.into_iter().for_each(|after| after(commit));
    }

    /// The writes of the next commit, when its time has come; `None`: nobody is left to add any.
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

/// The operator's way to mend a commit that failed, by SQLite's error.
fn mend(error: &str) -> &'static str {
    if error.contains("locked") || error.contains("busy") {
        "another program has the database open and writes: end it, and read copies of the file alone"
    } else if error.contains("readonly") {
        "let the user that runs this write to the database, and to the folder that it is in"
    } else {
        "look whether the disk is full, or fails"
    }
}

/// The thread: ends when every [`Writer`] is gone.
fn write_until_closed(mut connection: Connection, desk: &Desk) {
    while let Some(mut batch) = desk.next() {
        let mut done = Done::default();
        usage::add(&mut batch.usage, desk.usage.get().map(Meter::take).unwrap_or_default());
        let commit = commit(&mut connection, &mut batch, &mut done).map_err(|error| error.to_string());
        if let Err(error) = &commit {
            tracing::error!(%error, mend = mend(error), "the database did not take a commit");
            // The log may be what fills the disk: copied back, its room serves the deletions that wait.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        desk.conclude(batch, done, &commit);
    }
}

#[cfg(test)]
mod tests;
