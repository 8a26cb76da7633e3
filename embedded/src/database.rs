//! The database: one writer thread, one connection for point queries, and some for longer reads.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use push::{
    Clock, RegistrationId,
    ports::Unavailable,
    usage::{Meter, Tally},
};
use rusqlite::{Connection, params};

use crate::{
    disk::{Disk, DiskLow},
    entries::{copies, known::Known},
    file::{OpenError, connect, lock},
    layout::{examine, lay_out},
    readers::Readers,
    roster::KeptDomains,
    setting::find_setting,
    usage,
    writer::{Haste, Writer},
};

/// Most pushes in the queue, unless [`Database::with_queue_max`] says otherwise.
pub const QUEUE_MAX: u64 = 100_000;

/// The embedded store and queue. Cheap to clone; the file is released when the last clone is gone
/// and the writer thread has committed what it was given.
#[derive(Clone)]
pub struct Database {
    writer: Writer,
    known: Arc<Known>,
    shared: Arc<Shared>,
    queue_max: u64,
    registration_queue_max: u64,
}

/// The state that every clone of a [`Database`] shares with its writer thread.
pub(crate) struct Shared {
    path: PathBuf,
    reader: Mutex<Connection>,
    readers: Readers,
    disk: Disk,
    /// Rows in the mailbox.
    pub(crate) waiting: AtomicU64,
    /// The clock that moments of the queue go by.
    pub(crate) clock: RwLock<Clock>,
    pub(crate) kept_domains: KeptDomains,
    /// The last change from beside after which the mailboxes were counted.
    pub(crate) counted_change: Mutex<Option<String>>,
}

#[cfg(test)]
pub(crate) fn count_queue(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM queue", [], |row| row.get(0))
}

pub(crate) fn count_mailbox(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM mailbox", [], |row| row.get(0))
}

/// Counts the pushes that the queue holds, of each registration and in all: those of an earlier layout are of none.
fn count_shares(connection: &Connection) -> rusqlite::Result<(HashMap<RegistrationId, u64>, u64)> {
    const SHARES: &str = "SELECT registration, count(*) FROM queue GROUP BY registration";
    let mut statement = connection.prepare(SHARES)?;
    let mut rows = statement.query([])?;
    let (mut shares, mut depth) = (HashMap::new(), 0);
    while let Some(row) = rows.next()? {
        let (registration, count): (Option<[u8; RegistrationId::BYTES]>, u64) = (row.get(0)?, row.get(1)?);
        depth += count;
        shares.extend(registration.map(|id| (RegistrationId::from_bytes(id), count)));
    }
    Ok((shares, depth))
}

impl Database {
    /// Opens the file, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::examine(path)?;
        let lock = lock(path)?;
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let writer = connect(path).map_err(sqlite)?;
        lay_out(&writer, path)?;
        Self::start(path, writer, lock)
    }

    /// Makes sure that [`Self::open`] would open no file of another program. Changes nothing.
    ///
    /// # Errors
    /// The file is there, and is no database of Upwire's.
    pub fn examine(path: &Path) -> Result<(), OpenError> {
        examine(path)
    }

    /// Starts on a file of the present layout; the writer thread holds `lock`.
    pub(crate) fn start(path: &Path, mut writer: Connection, lock: File) -> Result<Self, OpenError> {
        if let Err(error) = copies::finish(&mut writer) {
            // They are settled as one, all the same.
            tracing::warn!(%error, "pushes that wait in the mailbox are in the queue still");
        }
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let reader = connect(path).map_err(sqlite)?;
        let waiting = count_mailbox(&reader).map_err(sqlite)?;
        let (shares, depth) = count_shares(&reader).map_err(sqlite)?;
        let last_seq: i64 = reader
            .query_row("SELECT coalesce(max(seq), 0) FROM queue", [], |row| row.get(0))
            .map_err(sqlite)?;

        let shared = Arc::new(Shared {
            path: path.to_owned(),
            reader: Mutex::new(reader),
            readers: Readers::open(path).map_err(sqlite)?,
            disk: Disk::of(path.to_owned()),
            waiting: AtomicU64::new(waiting),
            clock: RwLock::new(Clock::system()),
            kept_domains: KeptDomains::default(),
            counted_change: Mutex::default(),
        });
        let known = Arc::new(Known::of(shares, depth));
        let file = |cause| OpenError::File { path: path.to_owned(), cause };
        let writer = Writer::start(writer, lock, Arc::clone(&known), last_seq + 1).map_err(file)?;
        Ok(Self { writer, known, shared, queue_max: QUEUE_MAX, registration_queue_max: u64::MAX })
    }

    /// The same one, which refuses pushes while its queue holds `max` of them; those that come at once may
    /// exceed it.
    #[must_use]
    pub fn with_queue_max(self, max: u64) -> Self {
        Self { queue_max: max, ..self }
    }

    /// The same one, whose queue holds no more than `max` pushes of one registration.
    #[must_use]
    pub fn with_registration_queue_max(self, max: u64) -> Self {
        Self { registration_queue_max: max, ..self }
    }

    /// The same one, which takes nothing new while fewer bytes than these are free on its disk. For all clones.
    #[must_use]
    pub fn with_disk_floor(self, bytes: u64) -> Self {
        self.shared.disk.set_floor(bytes);
        self
    }

    /// The same one, which goes by this clock. For all clones.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        *self.shared.clock.write() = clock;
        self
    }

    /// The same one, which takes what tenants use from this meter along with each commit. For all clones.
    #[must_use]
    pub fn with_usage(self, usage: Meter) -> Self {
        self.writer.take_along(usage);
        self
    }

    /// Returns whether something that tenants have used is not committed yet.
    #[must_use]
    pub fn has_usage(&self) -> bool {
        self.writer.has_usage()
    }

    /// Commits what tenants have used, where nothing else is committed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn write_usage(&self) -> Result<(), Unavailable> {
        self.write(|_| Ok(())).await
    }

    /// Checks whether the disk has room for anything new.
    ///
    /// # Errors
    /// It has not; what was taken is settled still.
    pub fn check_room(&self) -> Result<(), DiskLow> {
        self.shared.disk.check()
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

    /// Forgets the value kept under `name`; returns whether there was one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn forget_setting(&self, name: &'static str) -> Result<bool, Unavailable> {
        const FORGET: &str = "DELETE FROM setting WHERE name = ?1";
        self.write(move |connection| connection.execute(FORGET, params![name]).map(|rows| rows > 0)).await
    }

    /// Pushes that wait in the queue or are being delivered.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        self.known.depth()
    }

    /// Pushes that wait in mailboxes. Changes by another process are counted a moment later.
    #[must_use]
    pub fn mailbox_depth(&self) -> u64 {
        self.recount_after_change_beside();
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

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    pub(crate) fn queue_max(&self) -> u64 {
        self.queue_max
    }

    pub(crate) fn registration_queue_max(&self) -> u64 {
        self.registration_queue_max
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads in the caller's own thread: point queries of a page cache, microseconds each.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        query(&self.shared.reader.lock()).map_err(Unavailable::new)
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
        let statements = |connection: &Connection| statements(connection).map_err(Unavailable::new);
        self.writer.write(haste, statements, committed).await
    }

    /// Writes, and takes the counts that go with it. Should the write fail, they are there again.
    pub(crate) async fn write_counted<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
        counts: &Tally,
    ) -> Result<T, Unavailable> {
        let statements = |connection: &Connection| statements(connection).map_err(Unavailable::new);
        self.count_with(haste, statements, committed, counts).await
    }

    async fn count_with<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> Result<T, Unavailable> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
        counts: &Tally,
    ) -> Result<T, Unavailable> {
        let (free, taken) = (counts.clone(), Tally::default());
        let (take, stand) = (taken.clone(), taken.clone());
        let statements = move |connection: &Connection| {
            let value = statements(connection)?;
            let counts = free.take();
            let added = usage::add(connection, &counts);
            take.add(counts);
            added.map(|()| value).map_err(Unavailable::new)
        };
        let committed = move |value: &T| {
            drop(stand.take());
            committed(value);
        };
        let outcome = self.writer.write(haste, statements, committed).await;
        if outcome.is_err() {
            counts.add(taken.take());
        }
        outcome
    }

    /// The same for something new: it is refused where the disk has no room for that.
    pub(crate) async fn add<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.writer.write(haste, self.if_there_is_room(statements), committed).await
    }

    /// The same, and takes the counts that go with it.
    pub(crate) async fn add_counted<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
        counts: &Tally,
    ) -> Result<T, Unavailable> {
        self.count_with(haste, self.if_there_is_room(statements), committed, counts).await
    }

    fn if_there_is_room<T>(
        &self,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> impl FnOnce(&Connection) -> Result<T, Unavailable> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |connection: &Connection| {
            shared.disk.check().map_err(Unavailable::new)?;
            statements(connection).map_err(Unavailable::new)
        }
    }
}
