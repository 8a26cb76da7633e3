//! A complete copy of the file, made while another process may write to it.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use tempfile::NamedTempFile;

use crate::layout::VERSION;

/// Why a copy was not made, or did not replace the file.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file of the copy exists already.
    #[error("{} exists, and nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// Another process has the database open.
    #[error("{} is in use by another upwire process", .0.display())]
    InUse(PathBuf),
    /// The file is no database of Upwire's.
    #[error("{} is no database of Upwire's: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// SQLite finds the file damaged.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first fault that SQLite found.
        problem: String,
    },
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        cause: io::Error,
    },
    /// SQLite refused.
    #[error("{}: {cause}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
}

impl BackupError {
    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { path: path.clone(), cause }
    }

    pub(crate) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Sqlite { path: path.clone(), cause }
    }
}

/// The contents of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Rows of registrations, living or not.
    pub registrations: u64,
    /// Pushes in the queue and in the mailboxes.
    pub pushes: u64,
}

/// Copies the database at `from` to `to`, in the state of one moment. The server may run, and is not blocked.
///
/// # Errors
/// `to` exists, `from` is no database of Upwire's or is damaged, or a file cannot be read or written. No file is left
/// at `to` then.
pub fn back_up(from: &Path, to: &Path) -> Result<Contents, BackupError> {
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let source = open(from)?;
    let copy = copy(&source, from, to)?;
    let contents = check(&open(copy.path())?, to)?;
    copy.persist_noclobber(to).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => BackupError::file(to)(error.error),
    })?;
    sync_folder(to)?;
    Ok(contents)
}

/// Opens an existing database, without changing it.
pub(crate) fn open(path: &Path) -> Result<Connection, BackupError> {
    // Read-write: a read-only connection may not see what a crash left in the write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    path.metadata().map_err(BackupError::file(path))?;
    let connection = Connection::open_with_flags(path, flags).map_err(BackupError::sqlite(path))?;
    let foreign = |problem| BackupError::Foreign { path: path.to_owned(), problem };
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| foreign(error.to_string()))?;
    let version = usize::try_from(version).ok().filter(|version| (1..=VERSION).contains(version));
    if version.is_none() {
        return Err(foreign(
            "its layout is none that this upwire knows; a newer one may have written it".into(),
        ));
    }
    Ok(connection)
}

/// Copies `source` to a private file in the folder of `to`. The copy is on disk when this returns.
pub(crate) fn copy(source: &Connection, from: &Path, to: &Path) -> Result<NamedTempFile, BackupError> {
    let folder = folder_of(to);
    // An error of the next call would name the temporary file.
    folder.metadata().map_err(BackupError::file(folder))?;
    let copy = tempfile::Builder::new()
        .prefix(".upwire-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(BackupError::file(to))?;
    // One read transaction. SQLite accepts an empty file as the target.
    source.execute("VACUUM INTO ?1", [copy.path().to_string_lossy()]).map_err(BackupError::sqlite(from))?;
    copy.as_file().sync_all().map_err(BackupError::file(to))?;
    Ok(copy)
}

/// Checks that a database is undamaged. Errors call it `name`.
pub(crate) fn check(connection: &Connection, name: &Path) -> Result<Contents, BackupError> {
    let damaged = |problem: String| BackupError::Damaged { path: name.to_owned(), problem };
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| damaged(error.to_string()))?;
    if found != "ok" {
        return Err(damaged(found));
    }
    let count = |table: &str| -> Result<u64, BackupError> {
        let count = format!("SELECT count(*) FROM {table}");
        connection.query_row(&count, [], |row| row.get(0)).map_err(|error| damaged(error.to_string()))
    };
    Ok(Contents {
        registrations: count("registration")?,
        pushes: count("queue")? + count_mailbox(connection)?,
    })
}

/// Counts the pushes in the mailboxes; 0 in the first layout, which has none.
fn count_mailbox(connection: &Connection) -> Result<u64, BackupError> {
    Ok(connection.query_row("SELECT count(*) FROM mailbox", [], |row| row.get(0)).unwrap_or(0))
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), BackupError> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(BackupError::file(folder))
}
