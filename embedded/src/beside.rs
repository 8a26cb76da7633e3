//! A database that another process may have: for commands that run beside the server.

use std::{fs::File, path::Path, sync::atomic::Ordering};

use push::ports::Unavailable;

use crate::{
    database::{Database, count_mailbox},
    file::{OpenError, connect},
    layout::VERSION,
    writer::Haste,
};

/// The setting that says which change from beside was the last.
const CHANGE: &str = "changed_beside";

impl Database {
    /// Opens a file that is there, whether or not a server has it. Its queue must be left alone: the pushes that the
    /// server has claimed are not known here.
    ///
    /// # Errors
    /// See [`OpenError`]; also a file of an earlier layout, which only a server brings to the present one.
    pub fn beside(path: &Path) -> Result<Self, OpenError> {
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        // Held instead of the lock, and locks nothing.
        let file = File::open(path).map_err(|cause| OpenError::File { path: path.to_owned(), cause })?;
        let writer = connect(path).map_err(sqlite)?;
        let found: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
        if usize::try_from(found) != Ok(VERSION) {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        Self::start(path, writer, file)
    }

    /// Tells the server that its mailboxes were changed from beside: it counts them anew.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn note_change_beside(&self) -> Result<(), Unavailable> {
        const NOTE: &str = "INSERT INTO setting (name, value) VALUES (?1, 1)
            ON CONFLICT (name) DO UPDATE SET value = value + 1";
        self.write(|connection| connection.execute(NOTE, [CHANGE])).await.map(drop)
    }

    /// Counts the mailboxes anew if they were changed from beside.
    pub(crate) fn recount_after_change_beside(&self) {
        let Ok(change) = self.setting(CHANGE) else { return };
        let mut counted = self.shared().counted_change.lock();
        if *counted == change {
            return;
        }
        *counted = change;
        let database = self.clone();
        // In the writer's thread, where each write is counted right after its commit: the count is exact.
        tokio::spawn(async move {
            let shared = database.shared().clone();
            let store = move |count: &u64| shared.waiting.store(*count, Ordering::Relaxed);
            database.write_then(Haste::Soon, count_mailbox, store).await
        });
    }
}
