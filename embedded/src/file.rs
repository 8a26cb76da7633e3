//! The file on disk: its lock, and connections to it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig};

/// Pages in the write-ahead log at which a checkpoint begins. In a longer log, more pages have changed several times,
/// and a checkpoint copies each page once.
const CHECKPOINT_PAGES: u32 = 4000;
/// Size of a connection's cache of compiled statements, which holds all of them.
const STATEMENTS_MAX: usize = 64;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("{} is in use by another upwire process", .0.display())]
    InUse(PathBuf),
    /// A newer Upwire wrote the file.
    #[error("{} was written by a newer upwire (layout {found}, this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's layout.
        found: i64,
        /// The latest layout that this one knows.
        known: usize,
    },
    /// The file is a database of another program, and was not changed.
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
    /// SQLite refused: the file is no database or is damaged, or the disk is full.
    #[error("{}: {cause}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
}

/// Locks `<path>.lock` for as long as the returned file is open.
///
/// SQLite itself would admit a second process, and both would deliver every push.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let file = |cause| OpenError::File { path: path.to_owned(), cause };
    // The file is made here with a private mode, which SQLite copies to its other files.
    private().open(path).map_err(file)?;
    let lock = private().open(lock_of(path)).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

/// Returns whether a process holds the lock of this database; false if this user may not read the lock. Changes
/// nothing.
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
    // In WAL mode, only `full` syncs at each commit.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // SQLite would otherwise compile a statement with a parameter in its LIMIT again at each use
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
