//! Putting a copy in the place of the file, while no other process has it.

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

/// The setting that the secret of a first start is.
const SECRET: &str = "secret";
const SECRET_GOES: &str = "SELECT EXISTS (SELECT value FROM present.setting WHERE name = ?1
    EXCEPT SELECT value FROM main.setting WHERE name = ?1)";
const SECRET_COMES: &str = "SELECT EXISTS (SELECT value FROM main.setting WHERE name = ?1
    EXCEPT SELECT value FROM present.setting WHERE name = ?1)";
/// The present tenants stay: one that was suspended since is not served again.
const FORGET_TENANTS: &str = "DELETE FROM main.setting WHERE name = ?1";
const KEEP_TENANTS: &str = "INSERT INTO main.setting SELECT name, value FROM present.setting WHERE name = ?1";
const HAS_USAGE: &str = "SELECT EXISTS (SELECT 1 FROM present.sqlite_schema WHERE name = 'usage')";
/// The usage stays: it may have been billed.
const KEEP_USAGE: &str = "INSERT OR REPLACE INTO main.usage
        (hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes, registrations)
    SELECT hour, tenant, domain, accepted, delivered, waited, expired, dropped, bytes, registrations
    FROM present.usage";
const ENDED_SINCE: &str =
    "SELECT count(*) FROM main.registration AS then_ JOIN present.registration AS now USING (id)
    WHERE then_.expires_at > ?1 AND NOT then_.revoked
        AND (now.epoch > then_.epoch OR now.epoch = then_.epoch AND now.revoked)";
/// Lives of the present file that the copy has not, or that have ended: as ended ones. Their URLs are refused, and the
/// next life of each begins behind them.
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

/// Why an endpoint ends by a restoration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndsSince {
    /// It was registered after the copy was made.
    Registered,
    /// Another life of it began after the copy was made.
    BegunAnew,
    /// The copy does not know of its renewals, and has let it lapse.
    Lapsed,
}

/// A registration that lives now, and whose endpoint ends by a restoration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Its bare JID.
    pub account: String,
    /// Its id.
    pub id: RegistrationId,
    /// Why it ends.
    pub why: EndsSince,
}

/// Contents of the replaced file that the copy lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Registrations of the copy that have ended since, and stay ended.
    pub stay_ended: u64,
    /// Pushes that wait.
    pub pushes: u64,
    /// The copy has another secret of a first start, or none: whatever that one signed ends.
    pub secret: bool,
    /// The copy has a secret of a first start that is not there now: endpoints that it signed are in force again.
    pub secret_of_before: bool,
}

/// A copy that was checked, and is ready to take the file's place. Dropped before, it has changed nothing.
pub struct Restoration {
    to: PathBuf,
    /// Held until the end: no server starts meanwhile.
    _lock: File,
    /// Where the lock has made the file.
    made: Option<Made>,
    copy: NamedTempFile,
    now: DateTime<Utc>,
    /// Contents of the copy.
    pub contents: Contents,
    /// Contents of the present file beyond it; `None`: there is no such file.
    pub losses: Option<Result<Losses, BackupError>>,
}

impl Restoration {
    /// Checks the copy at `from`, and brings it beside the file at `to`.
    ///
    /// # Errors
    /// Another process has the file at `to`; `from` is no database of Upwire's, or is damaged; a file cannot be read
    /// or written.
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

    /// Finds what is lost.
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

    /// Tells of each registration whose endpoint ends, by account; nothing where there is no present file, or it
    /// cannot be read.
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

    /// The copy, with the present file attached.
    fn both(&self) -> Result<Connection, BackupError> {
        let connection = open(self.copy.path())?;
        // The same checks, and its own error.
        drop(open(&self.to)?);
        connection
            .execute("ATTACH ?1 AS present", [self.to.to_string_lossy()])
            .map_err(BackupError::sqlite(&self.to))?;
        Ok(connection)
    }

    /// Puts the copy in the file's place. The file that was there is set aside with its logs, under the returned name.
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
        // From the one to the other in one step: there is a file at every moment.
        self.copy.persist(&self.to).map_err(|error| file(error.error))?;
        sync_folder(&self.to)?;
        Ok(aside)
    }

    /// Takes over from the present file what no copy may take back.
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

    /// Gives the present file another name beside its own, and its logs that name alone: beside the copy, they would
    /// be taken for its own. So would those of a file that is gone.
    fn set_aside(&self, is_there: bool) -> Result<Option<PathBuf>, BackupError> {
        let file = BackupError::file(&self.to);
        let name = self.now.format(".before-%Y%m%dT%H%M%SZ").to_string();
        let further = (2..).map(|number| format!("{name}.{number}"));
        let names = iter::once(name.clone()).chain(further);
        let free = names.map(|name| with_ending(&self.to, &name)).find(|aside| !aside.exists());
        let aside = free.unwrap_or_else(|| with_ending(&self.to, &name));
        let mut any = is_there;
        if is_there {
            // Nothing is left in the log of a file that can be read.
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

/// A file that the lock has made, and that nothing has been written to.
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
