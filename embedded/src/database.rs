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

/// Default for the most pushes in the queue ([`Database::with_queue_max`]).
pub const QUEUE_MAX: u64 = 100_000;

/// The embedded store and queue. Clones are cheap. The file is released when the last clone is dropped and the writer
/// thread has committed its writes.
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
    /// Number of rows in the mailbox.
    pub(crate) waiting: AtomicU64,
    /// The clock for the times in the queue.
    pub(crate) clock: RwLock<Clock>,
    pub(crate) kept_domains: KeptDomains,
    /// The number of the last change by another process after which the mailboxes were counted.
    pub(crate) counted_change: Mutex<Option<String>>,
}

#[cfg(test)]
pub(crate) fn count_queue(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM queue", [], |row| row.get(0))
}

pub(crate) fn count_mailbox(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM mailbox", [], |row| row.get(0))
}

/// Counts the pushes in the queue, for each registration and in all. Rows of an earlier layout have no registration.
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
    /// Opens the file, or creates it, readable by its owner alone.
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

    /// Checks that the file is not one of another program. Changes nothing.
    ///
    /// # Errors
    /// The file exists, and is no database of Upwire's.
    pub fn examine(path: &Path) -> Result<(), OpenError> {
        examine(path)
    }

    /// Starts on a file of the present layout. The writer thread holds `lock`.
    pub(crate) fn start(path: &Path, mut writer: Connection, lock: File) -> Result<Self, OpenError> {
        if let Err(error) = copies::finish(&mut writer) {
            // The two copies of a push are settled together anyway.
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

    /// Refuses pushes while the queue holds `max` of them. Pushes that arrive at the same time may exceed the bound.
    #[must_use]
    pub fn with_queue_max(self, max: u64) -> Self {
        Self { queue_max: max, ..self }
    }

    /// Refuses pushes of a registration while the queue holds `max` of its pushes.
    #[must_use]
    pub fn with_registration_queue_max(self, max: u64) -> Self {
        Self { registration_queue_max: max, ..self }
    }

    /// Refuses new data while the disk has fewer free bytes than these. Applies to all clones.
    #[must_use]
    pub fn with_disk_floor(self, bytes: u64) -> Self {
        self.shared.disk.set_floor(bytes);
        self
    }

    /// Replaces the clock of the queue. Applies to all clones.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        *self.shared.clock.write() = clock;
        self
    }

    /// Commits the usage of tenants in this meter with each commit. Applies to all clones.
    #[must_use]
    pub fn with_usage(self, usage: Meter) -> Self {
        self.writer.take_along(usage);
        self
    }

    /// Returns whether some usage of tenants is not committed yet.
    #[must_use]
    pub fn has_usage(&self) -> bool {
        self.writer.has_usage()
    }

    /// Commits the usage of tenants now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn write_usage(&self) -> Result<(), Unavailable> {
        self.write(|_| Ok(())).await
    }

    /// Checks whether the disk has room for new data.
    ///
    /// # Errors
    /// The disk has too little room. Accepted pushes are still settled.
    pub fn check_room(&self) -> Result<(), DiskLow> {
        self.shared.disk.check()
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Returns the setting `name`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn setting(&self, name: &str) -> Result<Option<String>, Unavailable> {
        self.read(|connection| find_setting(connection, name))
    }

    /// Returns the setting `name`, after storing `default` if there was none.
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

    /// Deletes the setting `name`. Returns whether there was one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn forget_setting(&self, name: &'static str) -> Result<bool, Unavailable> {
        const FORGET: &str = "DELETE FROM setting WHERE name = ?1";
        self.write(move |connection| connection.execute(FORGET, params![name]).map(|rows| rows > 0)).await
    }

    /// Returns the number of pushes that wait in the queue or are being delivered.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        self.known.depth()
    }

    /// Returns the number of pushes in the mailboxes. Changes by another process show a moment later.
    #[must_use]
    pub fn mailbox_depth(&self) -> u64 {
        self.recount_after_change_beside();
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Copies the write-ahead log into the file. After a stop, a copy of the file alone is then complete.
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

    /// Reads in the caller's thread. For point queries from the page cache, which take microseconds.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        query(&self.shared.reader.lock()).map_err(Unavailable::new)
    }

    /// Reads on a thread of its own.
    pub(crate) async fn read_apart<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.shared.readers.read(query).await
    }

    /// Writes in the writer thread. Resolves once the commit is on disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.write_then(Haste::Now, statements, |_| ()).await
    }

    /// Writes. `committed` runs in the writer thread right after the commit, even if the caller no longer waits for the
    /// outcome.
    pub(crate) async fn write_then<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Unavailable> {
        let statements = |connection: &Connection| statements(connection).map_err(Unavailable::new);
        self.writer.write(haste, statements, committed).await
    }

    /// Writes, and commits `counts` in the same transaction. If the write fails, the counts are given back.
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

    /// Writes new data, unless the disk has no room.
    pub(crate) async fn add<T: Send + 'static>(
        &self,
        haste: Haste,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.writer.write(haste, self.if_there_is_room(statements), committed).await
    }

    /// Writes new data and `counts`, unless the disk has no room.
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
