//! Replaces the file by a copy, while no other process has it open.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind},
    iter,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use push::RegistrationId;
use rusqlite::{Connection, params};
use tempfile::NamedTempFile;

use crate::{
    backup::{BackupError, Contents, check, copy, folder_of, open, sync_folder},
    file::{OpenError, lock},
    layout::lay_out,
    roster,
};

/// Suffixes that SQLite adds to the name of the file.
const LOGS: [&str; 2] = ["-wal", "-shm"];
/// Suffix of the lock.
const LOCK: &str = ".lock";

/// The name of the setting that holds the secret of the first start.
const SECRET: &str = "secret";
const SECRET_GOES: &str = "SELECT EXISTS (SELECT value FROM present.setting WHERE name = ?1
    EXCEPT SELECT value FROM main.setting WHERE name = ?1)";
const SECRET_COMES: &str = "SELECT EXISTS (SELECT value FROM main.setting WHERE name = ?1
    EXCEPT SELECT value FROM present.setting WHERE name = ?1)";
/// The present tenants stay, so that a tenant that was suspended since the copy is not served again.
const FORGET_TENANTS: &str = "DELETE FROM main.setting WHERE name = ?1";
const KEEP_TENANTS: &str = "INSERT INTO main.setting SELECT name, value FROM present.setting WHERE name = ?1";
const HAS_USAGE: &str = "SELECT EXISTS (SELECT 1 FROM present.sqlite_schema WHERE name = 'usage')";
/// The present usage stays: it may have been billed.
const KEEP_USAGE: &str = "INSERT OR REPLACE INTO main.usage
        (hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes, registrations)
    SELECT hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes, registrations
    FROM present.usage";
const ENDED_SINCE: &str =
    "SELECT count(*) FROM main.registration AS then_ JOIN present.registration AS now USING (id)
    WHERE then_.expires_at > ?1 AND NOT then_.revoked
        AND (now.epoch > then_.epoch OR now.epoch = then_.epoch AND now.revoked)";
/// Copies lives of the present file as ended ones, if the copy lacks them or they have ended. Their URLs are refused,
/// and the next life of each gets a greater epoch.
const END: &str = "INSERT OR REPLACE INTO main.registration
        (id, recipient, application, instance, epoch, renewed_at, expires_at, revoked, throttled_until, vapid, legacy)
    SELECT now.id, now.recipient, now.application, now.instance, now.epoch, now.renewed_at, now.expires_at, 1,
        now.throttled_until, now.vapid, now.legacy
    FROM present.registration AS now LEFT JOIN main.registration AS then_ ON then_.id = now.id
    WHERE then_.id IS NULL OR now.epoch > then_.epoch OR now.epoch = then_.epoch AND now.revoked";
const ENDING: &str = "SELECT substr(now.recipient, 1, instr(now.recipient, '/') - 1), now.id,
        CASE WHEN then_.id IS NULL THEN 0 WHEN then_.epoch <> now.epoch THEN 1 ELSE 2 END
    FROM present.registration AS now LEFT JOIN main.registration AS then_ ON then_.id = now.id
    WHERE now.expires_at > ?1 AND NOT now.revoked
        AND (then_.id IS NULL OR then_.epoch <> now.epoch OR then_.revoked OR then_.expires_at <= ?1)
    ORDER BY 1, 2";
const LOST_PUSHES: &str = "SELECT (SELECT count(*) FROM present.queue)
    + (SELECT count(*) FROM present.mailbox AS now WHERE NOT EXISTS
        (SELECT 1 FROM main.mailbox AS then_ WHERE then_.account = now.account AND then_.id = now.id))";

/// Why a restoration ends an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndsSince {
    /// The registration was made after the copy.
    Registered,
    /// The registration's present life began after the copy was made.
    BegunAnew,
    /// The copy lacks the last renewals, so the registration has lapsed in it.
    Lapsed,
}

/// A living registration whose endpoint a restoration ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Its account, a bare JID.
    pub account: String,
    /// Its id.
    pub id: RegistrationId,
    /// The reason.
    pub why: EndsSince,
}

/// Contents of the replaced file that the copy lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Registrations of the copy that have ended since, and stay ended.
    pub stay_ended: u64,
    /// Pushes in the queue and the mailboxes.
    pub pushes: u64,
    /// True if the copy lacks the present file's secret of the first start: the endpoints that it signed end.
    pub secret: bool,
    /// True if the copy has a secret of the first start that the present file lacks: the endpoints that it signed are
    /// valid again.
    pub secret_of_before: bool,
}

/// A checked copy, ready to replace the file. Dropping it changes nothing.
pub struct Restoration {
    to: PathBuf,
    /// Held until the end, so that no server starts meanwhile.
    _lock: File,
    /// The file, if taking the lock created it.
    made: Option<Made>,
    copy: NamedTempFile,
    now: DateTime<Utc>,
    /// Contents of the copy.
    pub contents: Contents,
    /// Contents of the present file that the copy lacks; `None`: there is no present file.
    pub losses: Option<Result<Losses, BackupError>>,
}

impl Restoration {
    /// Checks the copy at `from`, and copies it into the folder of `to`.
    ///
    /// # Errors
    /// Another process has the file at `to` open, `from` is no database of Upwire's or is damaged, or a file cannot be
    /// read or written.
    pub fn prepare(from: &Path, to: &Path, now: DateTime<Utc>) -> Result<Self, BackupError> {
        let source = open(from)?;
        check(&source, from)?;
        let made = (!to.exists()).then(|| Made(to.to_owned()));
        let lock = lock(to).map_err(as_backup_error)?;
        let copy = copy(&source, from, to)?;
        let restored = open(copy.path())?;
        lay_out(&restored, from).map_err(as_backup_error)?;
        let contents = check(&restored, from)?;
        drop(restored);
        let mut restoration =
            Self { to: to.to_owned(), _lock: lock, made, copy, now, contents, losses: None };
        if fs::metadata(to).map_err(BackupError::file(to))?.len() > 0 {
            restoration.losses = Some(restoration.compare());
        }
        Ok(restoration)
    }

    /// Counts the contents of the present file that the copy lacks.
    fn compare(&self) -> Result<Losses, BackupError> {
        let both = self.both()?;
        let losses = || -> rusqlite::Result<Losses> {
            let now = params![self.now.timestamp_millis()];
            let stay_ended = both.query_row(ENDED_SINCE, now, |row| row.get(0))?;
            let asked = |sql: &str| both.query_row(sql, [SECRET], |row| row.get(0));
            Ok(Losses {
                stay_ended,
                pushes: both.query_row(LOST_PUSHES, [], |row| row.get(0))?,
                secret: asked(SECRET_GOES)?,
                secret_of_before: asked(SECRET_COMES)?,
            })
        };
        losses().map_err(BackupError::sqlite(&self.to))
    }

    /// Calls `tell` for each registration whose endpoint ends, in the order of accounts. Does nothing if there is no
    /// present file, or if it cannot be read.
    ///
    /// # Errors
    /// The files cannot be read, or `tell` fails.
    pub fn ending(&self, mut tell: impl FnMut(Ending) -> io::Result<()>) -> Result<(), BackupError> {
        if !matches!(self.losses, Some(Ok(_))) {
            return Ok(());
        }
        let both = self.both()?;
        let sqlite = BackupError::sqlite(&self.to);
        let mut statement = both.prepare(ENDING).map_err(&sqlite)?;
        let mut rows = statement.query(params![self.now.timestamp_millis()]).map_err(&sqlite)?;
        while let Some(row) = rows.next().map_err(&sqlite)? {
            let why = match row.get(2).map_err(&sqlite)? {
                0 => EndsSince::Registered,
                1 => EndsSince::BegunAnew,
                _ => EndsSince::Lapsed,
            };
            let id = RegistrationId::from_bytes(row.get(1).map_err(&sqlite)?);
            tell(Ending { account: row.get(0).map_err(&sqlite)?, id, why })
                .map_err(BackupError::file(Path::new("stdout")))?;
        }
        Ok(())
    }

    /// Opens the copy, with the present file attached.
    fn both(&self) -> Result<Connection, BackupError> {
        let connection = open(self.copy.path())?;
        // Opening the present file runs the same checks, and names it in errors.
        drop(open(&self.to)?);
        connection
            .execute("ATTACH ?1 AS present", [self.to.to_string_lossy()])
            .map_err(BackupError::sqlite(&self.to))?;
        Ok(connection)
    }

    /// Replaces the file by the copy. The present file is kept with its logs, under the returned name.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn put_in_place(self) -> Result<Option<PathBuf>, BackupError> {
        let file = BackupError::file(&self.to);
        if let Some(Ok(_)) = self.losses {
            self.keep_what_has_happened()?;
        }
        let present = fs::metadata(&self.to).map_err(&file)?;
        let owner = if self.made.is_some() {
            fs::metadata(folder_of(&self.to)).map_err(&file)?
        } else {
            present.clone()
        };
        for path in [self.copy.path(), &with_ending(&self.to, LOCK)] {
            let own = fs::metadata(path).map_err(&file)?;
            if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
                chown(path, Some(owner.uid()), Some(owner.gid())).map_err(&file)?;
            }
        }
        let aside = self.set_aside(present.len() > 0)?;
        // The rename is atomic: a file exists at every moment.
        self.copy.persist(&self.to).map_err(|error| file(error.error))?;
        sync_folder(&self.to)?;
        Ok(aside)
    }

    /// Copies from the present file the state that a restoration must not undo: ended lives, tenants and usage.
    fn keep_what_has_happened(&self) -> Result<(), BackupError> {
        let sqlite = BackupError::sqlite(&self.to);
        let mut both = self.both()?;
        let transaction = both.transaction().map_err(&sqlite)?;
        transaction.execute(END, []).map_err(&sqlite)?;
        transaction.execute(FORGET_TENANTS, [roster::NAME]).map_err(&sqlite)?;
        transaction.execute(KEEP_TENANTS, [roster::NAME]).map_err(&sqlite)?;
        if transaction.query_row(HAS_USAGE, [], |row| row.get(0)).map_err(&sqlite)? {
            transaction.execute(KEEP_USAGE, []).map_err(&sqlite)?;
        }
        transaction.commit().map_err(sqlite)
    }

    /// Links the present file under another name, and renames its logs. SQLite would take logs that stay for those of
    /// the copy; this goes also for logs whose file is gone.
    fn set_aside(&self, is_there: bool) -> Result<Option<PathBuf>, BackupError> {
        let file = BackupError::file(&self.to);
        let name = self.now.format(".before-%Y%m%dT%H%M%SZ").to_string();
        let further = (2..).map(|number| format!("{name}.{number}"));
        let names = iter::once(name.clone()).chain(further);
        let free = names.map(|name| with_ending(&self.to, &name)).find(|aside| !aside.exists());
        let aside = free.unwrap_or_else(|| with_ending(&self.to, &name));
        let mut any = is_there;
        if is_there {
            // If the file can be read, the log is copied into it first.
            if let Ok(present) = open(&self.to) {
                let _ = present.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
            fs::hard_link(&self.to, &aside).map_err(BackupError::file(&aside))?;
        }
        for log in LOGS {
            match fs::rename(with_ending(&self.to, log), with_ending(&aside, log)) {
                Ok(()) => any = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(file(error)),
            }
        }
        Ok(any.then_some(aside))
    }
}

/// An empty file that taking the lock has created. Dropping this removes the file, if it is still empty.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        if fs::metadata(&self.0).is_ok_and(|file| file.len() == 0) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn as_backup_error(error: OpenError) -> BackupError {
    match error {
        OpenError::InUse(path) => BackupError::InUse(path),
        OpenError::Foreign(path) => {
            BackupError::Foreign { path, problem: "another program has written it".into() }
        }
        OpenError::File { path, cause } => BackupError::File { path, cause },
        OpenError::Sqlite { path, cause } => BackupError::Sqlite { path, cause },
        OpenError::Newer { path, .. } => {
            BackupError::Foreign { path, problem: "a newer upwire has written it".into() }
        }
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests;
