//! The file: one writer thread that groups commits, one connection for point queries, and some for longer reads.
//!
//! A write is durable when its future resolves: SQLite's write-ahead log is synced at each commit,
//! and whatever arrived while the last commit was under way shares the next one. A write that
//! nobody waits for lingers, to share the commit of one that somebody does.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::ports::Unavailable;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::{
    runtime,
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use crate::{
    layout::{VERSION, lay_out},
    queue::Backlog,
    readers::Readers,
};

/// Writes that wait for the writer thread; a further one waits for room.
const WRITES_WAITING_MAX: usize = 1024;
/// Writes that share a commit.
const WRITES_PER_COMMIT_MAX: usize = 512;
/// How long a write that nobody waits for lingers.
const LINGER: Duration = Duration::from_millis(20);
/// Pages of the write-ahead log that are copied back at once: the later, the more often a page has
/// changed meanwhile and is copied once for all that.
const CHECKPOINT_PAGES: u32 = 4000;
/// Statements that a connection keeps compiled: more than there are.
const STATEMENTS_MAX: usize = 64;
/// Most pushes in the queue, unless [`Database::with_queue_max`] says otherwise.
pub const QUEUE_MAX: u64 = 100_000;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another upwire process", .0.display())]
    InUse(PathBuf),
    /// It was written by a newer Upwire.
    #[error("{} was written by a newer upwire (layout {found}, this one knows {VERSION})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: std::io::Error,
    },
    /// SQLite refused: not a database, a damaged one, a full disk.
    #[error("{}: {cause}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: rusqlite::Error,
    },
}

/// The embedded store and queue. Cheap to clone; the file is released when the last clone is gone
/// and the writer thread has committed what it was given.
#[derive(Clone)]
pub struct Database {
    writer: mpsc::Sender<Write>,
    shared: Arc<Shared>,
    queue_max: u64,
}

/// What every clone of a [`Database`] and its writer thread hold together.
pub(crate) struct Shared {
    path: PathBuf,
    reader: Mutex<Connection>,
    readers: Readers,
    pub(crate) backlog: Mutex<Backlog>,
    /// Rows in the queue.
    pub(crate) depth: AtomicU64,
    /// Rows in the mailbox.
    pub(crate) waiting: AtomicU64,
    /// Whether the last commit stands. While none does, nothing is handed on before its own.
    pub(crate) commits: AtomicBool,
    /// What the next row of the queue is called.
    pub(crate) next_seq: AtomicI64,
    /// Rung when something may have become due.
    pub(crate) arrivals: Notify,
}

pub(crate) fn count_queue(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM queue", [], |row| row.get(0))
}

pub(crate) fn count_mailbox(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM mailbox", [], |row| row.get(0))
}

/// Reads a time of the file.
pub(crate) fn moment(millis: i64) -> rusqlite::Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, millis))
}

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

impl Database {
    /// Opens the file, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let writer = connect(path).map_err(sqlite)?;
        lay_out(&writer, path)?;
        let reader = connect(path).map_err(sqlite)?;
        let depth = count_queue(&reader).map_err(sqlite)?;
        let waiting = count_mailbox(&reader).map_err(sqlite)?;
        let last_seq: i64 = reader
            .query_row("SELECT coalesce(max(seq), 0) FROM queue", [], |row| row.get(0))
            .map_err(sqlite)?;

        let shared = Arc::new(Shared {
            path: path.to_owned(),
            reader: Mutex::new(reader),
            readers: Readers::open(path).map_err(sqlite)?,
            backlog: Mutex::default(),
            depth: AtomicU64::new(depth),
            waiting: AtomicU64::new(waiting),
            commits: AtomicBool::new(true),
            next_seq: AtomicI64::new(last_seq + 1),
            arrivals: Notify::new(),
        });
        let shared_by_writer = Arc::clone(&shared);
        let (sender, writes) = mpsc::channel(WRITES_WAITING_MAX);
        let file = |cause| OpenError::File { path: path.to_owned(), cause };
        let clock = runtime::Builder::new_current_thread().enable_time().build().map_err(file)?;
        thread::Builder::new()
            .name("upwire-writer".into())
            .spawn(move || clock.block_on(write_until_closed(writer, writes, &shared_by_writer, &lock)))
            .map_err(file)?;
        Ok(Self { writer: sender, shared, queue_max: QUEUE_MAX })
    }

    /// The same one, which refuses pushes while its queue holds `max` of them; those that come at once may
    /// exceed it.
    #[must_use]
    pub fn with_queue_max(self, max: u64) -> Self {
        Self { queue_max: max, ..self }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The value kept under `name`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn setting(&self, name: &str) -> Result<Option<String>, Unavailable> {
        self.read(|connection| find_setting(connection, name))
    }

    /// The value kept under `name`; `default` is kept from now on if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub async fn setting_or(&self, name: &'static str, default: String) -> Result<String, Unavailable> {
        self.write(move |connection| {
            const KEEP: &str = "INSERT OR IGNORE INTO setting (name, value) VALUES (?1, ?2)";
            connection.execute(KEEP, params![name, default])?;
            find_setting(connection, name).map(|kept| kept.unwrap_or(default))
        })
        .await
    }

    /// Pushes that wait in the queue or are being delivered.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        self.shared.depth.load(Ordering::Relaxed)
    }

    /// Pushes that wait in mailboxes.
    #[must_use]
    pub fn mailbox_depth(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Brings what is in the write-ahead log into the file, which is whole by itself then: whoever copies it after a
    /// stop need not know of the log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fold_log(&self) -> Result<(), Unavailable> {
        self.read(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }

    pub(crate) fn queue_max(&self) -> u64 {
        self.queue_max
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads in the caller's own thread: point queries of a page cache, microseconds each.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        query(&unpoisoned(&self.shared.reader)).map_err(Unavailable::new)
    }

    /// Reads on another thread than the caller's.
    pub(crate) async fn read_apart<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.shared.readers.read(query).await
    }

    /// Writes in the writer thread; resolves once the commit is on disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.write_then(Haste::Now, statements, |_| ()).await
    }

    /// Writes; `committed` runs in the writer thread right after the commit, and runs even if
    /// nobody waits for the outcome any more.
    pub(crate) async fn write_then<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
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
                    (Err(cause), _) => Err(Unavailable::new(cause)),
                    (_, Err(cause)) => Err(Unavailable::new(cause.clone())),
                };
                // Whoever asked may have run out of time; the write stands all the same.
                let _ = reply.send(outcome);
            })
        });
        let refused = |_| Unavailable::new("the database did not take the write");
        self.writer.send(Write { haste, statements }).await.map_err(|_| refused(()))?;
        outcome.await.map_err(|_| refused(()))?
    }
}

fn find_setting(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// A poisoned lock means that a panic was reported elsewhere; what it guards is consistent after
/// every statement.
pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds `<path>.lock` for as long as the returned file is open.
///
/// SQLite would let a second process in, and both would deliver every push.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = |cause| OpenError::File { path: path.to_owned(), cause };
    // Made here so that SQLite, which takes over the mode for its own files, finds it private.
    private().open(path).map_err(file)?;
    let lock = private().open(PathBuf::from(name)).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // In WAL mode only FULL syncs at each commit.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// The writer thread: ends when every [`Database`] is gone, and gives up the lock with that.
async fn write_until_closed(
    mut connection: Connection,
    mut writes: mpsc::Receiver<Write>,
    shared: &Shared,
    _lock: &File,
) {
    let mut group = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    let mut after = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    while writes.recv_many(&mut group, WRITES_PER_COMMIT_MAX).await > 0 {
        let _ = timeout(LINGER, gather_until_hasty(&mut writes, &mut group)).await;
        let commit = commit(&mut connection, group.drain(..), &mut after).map_err(|error| error.to_string());
        if let Err(error) = &commit {
            tracing::error!(%error, "the database did not take a commit; is the disk full?");
            // The log may be what fills the disk: copied back, its room serves the deletions that wait.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        shared.commits.store(commit.is_ok(), Ordering::Relaxed);
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
