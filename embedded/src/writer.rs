//! The writer thread, which groups commits.
//!
//! A write is durable when its future resolves: SQLite's write-ahead log is synced at each commit,
//! and whatever arrived while the last commit was under way shares the next one. A write that
//! nobody waits for lingers, to share the commit of one that somebody does.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use push::ports::Unavailable;
use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Writes that wait for the writer thread; a further one waits for room.
const WRITES_WAITING_MAX: usize = 1024;
/// Writes that share a commit.
const WRITES_PER_COMMIT_MAX: usize = 512;
/// How long a write that nobody waits for lingers.
const LINGER: Duration = Duration::from_millis(20);

/// Whether somebody waits for a write to be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Now,
    /// May linger for [`LINGER`].
    Soon,
}

/// Runs within the transaction, and returns what to do once the commit is known.
type Statements = Box<dyn FnOnce(&Connection) -> AfterCommit + Send>;
type AfterCommit = Box<dyn FnOnce(&Result<(), String>) + Send>;

struct Write {
    haste: Haste,
    statements: Statements,
}

/// Hands writes to the thread, which ends when every clone is gone and what they were given is committed.
#[derive(Clone)]
pub(crate) struct Writer {
    writes: mpsc::Sender<Write>,
    commits: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread, which holds the lock for as long as it runs.
    pub(crate) fn start(connection: Connection, lock: File) -> io::Result<Self> {
        let (writes, incoming) = mpsc::channel(WRITES_WAITING_MAX);
        let commits = Arc::new(AtomicBool::new(true));
        let stands = Arc::clone(&commits);
        let clock = runtime::Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new()
            .name("upwire-writer".into())
            .spawn(move || clock.block_on(write_until_closed(connection, incoming, &stands, &lock)))?;
        Ok(Self { writes, commits })
    }

    /// Whether the last commit stands. While none does, nothing is handed on before its own.
    pub(crate) fn commits(&self) -> &Arc<AtomicBool> {
        &self.commits
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
                // Whoever asked may have run out of time; the write stands all the same.
                let _ = reply.send(outcome);
            })
        });
        let refused = |_| Unavailable::new("the database did not take the write");
        self.writes.send(Write { haste, statements }).await.map_err(|_| refused(()))?;
        outcome.await.map_err(|_| refused(()))?
    }
}

/// What the operator can do about a commit that failed, by what SQLite said.
fn mend(error: &str) -> &'static str {
    if error.contains("locked") || error.contains("busy") {
        "another program has the database open and writes: end it, and read copies of the file alone"
    } else if error.contains("readonly") {
        "let the user that runs this write to the database, and to the folder that it is in"
    } else {
        "look whether the disk is full, or fails"
    }
}

/// The thread: ends when every [`Writer`] is gone, and gives up the lock with that.
async fn write_until_closed(
    mut connection: Connection,
    mut writes: mpsc::Receiver<Write>,
    commits: &AtomicBool,
    _lock: &File,
) {
    let mut group = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    let mut after = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    while writes.recv_many(&mut group, WRITES_PER_COMMIT_MAX).await > 0 {
        let _ = timeout(LINGER, gather_until_hasty(&mut writes, &mut group)).await;
        let commit = commit(&mut connection, group.drain(..), &mut after).map_err(|error| error.to_string());
        if let Err(error) = &commit {
            tracing::error!(%error, mend = mend(error), "the database did not take a commit");
            // The log may be what fills the disk: copied back, its room serves the deletions that wait.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        commits.store(commit.is_ok(), Ordering::Relaxed);
        for after in after.drain(..) {
            after(&commit);
        }
    }
}

/// Adds to the group until somebody waits for it, or it is full.
async fn gather_until_hasty(writes: &mut mpsc::Receiver<Write>, group: &mut Vec<Write>) {
    let mut seen = 0;
    while group.len() < WRITES_PER_COMMIT_MAX && group[seen..].iter().all(|write| write.haste == Haste::Soon)
    {
        seen = group.len();
        if writes.recv_many(group, WRITES_PER_COMMIT_MAX - seen).await == 0 {
            return;
        }
    }
}

/// Runs the group in one transaction. A write that was not run is dropped, and so refused.
fn commit(
    connection: &mut Connection,
    group: impl Iterator<Item = Write>,
    after: &mut Vec<AfterCommit>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for write in group {
        after.push((write.statements)(&transaction));
        // A full disk rolls the transaction back at the statement: nothing of the group stands.
        if transaction.is_autocommit() {
            let aborted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT);
            return Err(rusqlite::Error::SqliteFailure(aborted, Some("it was rolled back".into())));
        }
    }
    transaction.commit()
}
