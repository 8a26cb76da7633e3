//! The file on disk: who may open it, and how a connection to it is made.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig};

/// Pages of the write-ahead log that are copied back at once: the later, the more often a page has
/// changed meanwhile and is copied once for all that.
const CHECKPOINT_PAGES: u32 = 4000;
/// Statements that a connection keeps compiled: more than there are.
const STATEMENTS_MAX: usize = 64;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another upwire process", .0.display())]
    InUse(PathBuf),
    /// It was written by a newer Upwire.
    #[error("{} was written by a newer upwire (layout {found}, this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The latest layout that this one knows.
        known: usize,
    },
    /// It is a database of another program, and was left as it is.
    #[error("{} is a database of another program", .0.display())]
    Foreign(PathBuf),
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        cause: std::io::Error,
    },
    /// SQLite refused: not a database, a damaged one, a full disk.
    #[error("{}: {cause}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
}

/// Holds `<path>.lock` for as long as the returned file is open.
///
/// SQLite would let a second process in, and both would deliver every push.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let file = |cause| OpenError::File { path: path.to_owned(), cause };
    // Made here so that SQLite, which takes over the mode for its own files, finds it private.
    private().open(path).map_err(file)?;
    let lock = private().open(lock_of(path)).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

/// Returns whether a process has opened this database, as far as this user may know. Changes nothing.
#[must_use]
pub fn is_in_use(path: &Path) -> bool {
    let lock = File::open(lock_of(path));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
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
    // A statement with a parameter in its LIMIT is compiled again at each use otherwise
    // (https://www.sqlite.org/queryplanner-ng.html#qpstab).
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_with_a_parameter_in_its_limit_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let connection = connect(&folder.path().join("upwire.db")).unwrap();
        connection.execute_batch("CREATE TABLE entry (number)").unwrap();
        let delete = "DELETE FROM entry WHERE rowid IN (SELECT rowid FROM entry ORDER BY number LIMIT ?1)";
        let mut statement = connection.prepare(delete).unwrap();
        for limit in 1..4 {
            statement.execute([limit]).unwrap();
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
