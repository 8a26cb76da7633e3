//! A database that another process may have open: for commands that run beside the server.

use std::{fs::File, path::Path, sync::atomic::Ordering};

use push::ports::Unavailable;

use crate::{
    database::{Database, count_mailbox},
    file::{OpenError, connect},
    layout::VERSION,
    writer::Haste,
};

/// The name of the setting that counts the changes by commands beside the server.
const CHANGE: &str = "changed_beside";

impl Database {
    /// Opens an existing file, whether or not a server has it open. The queue must not be used, since the claims of the
    /// server are not known here.
    ///
    /// # Errors
    /// See [`OpenError`]. A file of an earlier layout is refused, too: only a server migrates it.
    pub fn beside(path: &Path) -> Result<Self, OpenError> {
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        // This file stands in for the lock, and locks nothing.
        let file = File::open(path).map_err(|cause| OpenError::File { path: path.to_owned(), cause })?;
        let writer = connect(path).map_err(sqlite)?;
        let found: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
        if usize::try_from(found) != Ok(VERSION) {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        Self::start(path, writer, file)
    }

    /// Tells the server that this process changed mailboxes, so that it counts them again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn note_change_beside(&self) -> Result<(), Unavailable> {
        const NOTE: &str = "INSERT INTO setting (name, value) VALUES (?1, 1)
            ON CONFLICT (name) DO UPDATE SET value = value + 1";
        self.write(|connection| connection.execute(NOTE, [CHANGE])).await.map(drop)
    }

    /// Counts the mailboxes again if a command beside the server changed them.
    pub(crate) fn recount_after_change_beside(&self) {
        let Ok(change) = self.setting(CHANGE) else { return };
        let mut counted = self.shared().counted_change.lock();
        if *counted == change {
            return;
        }
        *counted = change;
        let database = self.clone();
        // The count runs in the writer thread, where each write is counted right after its commit, so it is exact.
        tokio::spawn(async move {
            let shared = database.shared().clone();
            let store = move |count: &u64| shared.waiting.store(*count, Ordering::Relaxed);
            database.write_then(Haste::Soon, count_mailbox, store).await
        });
    }
}
