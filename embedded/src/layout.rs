//! The layout of the file, and the migrations from every earlier layout.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::file::OpenError;

/// Migrations: each step makes a layout from the one before it, the first from an empty file. A released step never
/// changes, since existing files took it.
const STEPS: [&str; 8] = [
    "
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE registration (
        id BLOB PRIMARY KEY,
        recipient TEXT NOT NULL,
        application BLOB NOT NULL,
        instance BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        renewed_at INTEGER NOT NULL,  -- Unix milliseconds, like every time here
        expires_at INTEGER NOT NULL,
        revoked INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE queue (
        seq INTEGER PRIMARY KEY,
        due_at INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE INDEX queue_due ON queue (due_at, seq);
    ",
    // The mailbox has row ids, since an entry fills more than a page. Without them, 40,000 entries of 6 KB took 18 s to
    // write instead of 8 s, and 357 MB instead of 251 MB.
    "
    ALTER TABLE registration ADD COLUMN throttled_until INTEGER;
    CREATE INDEX registration_expiry ON registration (expires_at);
    CREATE TABLE mailbox (
        account TEXT NOT NULL,
        id BLOB NOT NULL,  -- in this order pushes are handed out
        age BLOB NOT NULL AS (substr(id, 2)) VIRTUAL,  -- MessageId::age
        registration BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        topic TEXT,
        asked_at INTEGER,
        expires_at INTEGER NOT NULL,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX mailbox_order ON mailbox (account, id);
    CREATE INDEX mailbox_registration ON mailbox (account, registration, age);
    CREATE INDEX mailbox_topic ON mailbox (registration, topic) WHERE topic IS NOT NULL;
    CREATE INDEX mailbox_expiry ON mailbox (expires_at);
    ",
    "
    ALTER TABLE registration ADD COLUMN vapid BLOB;
    ",
    "
    ALTER TABLE registration ADD COLUMN legacy INTEGER;
    ",
    // The first slash of a full JID ends its bare JID.
    "
    ALTER TABLE registration ADD COLUMN account TEXT AS (substr(recipient, 1, instr(recipient, '/') - 1)) VIRTUAL;
    CREATE INDEX registration_account ON registration (account);
    CREATE TABLE seen (
        account TEXT NOT NULL,
        place INTEGER NOT NULL,  -- 0: seen last
        jid TEXT NOT NULL,
        seen_at INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        PRIMARY KEY (account, place)
    ) STRICT, WITHOUT ROWID;
    -- Before the entry, which fills pages of its own: it is read without them.
    CREATE TABLE new_queue (
        seq INTEGER PRIMARY KEY,
        due_at INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        registration BLOB,  -- NULL in rows of an earlier layout
        entry BLOB NOT NULL
    ) STRICT;
    INSERT INTO new_queue SELECT seq, due_at, attempts, NULL, entry FROM queue;
    DROP TABLE queue;
    ALTER TABLE new_queue RENAME TO queue;
    CREATE INDEX queue_due ON queue (due_at, seq);
    CREATE INDEX mailbox_of_registration ON mailbox (account, registration, id, expires_at);
    ",
    // Rows are read once, in the order of their keys. Postponed rows are in memory.
    "
    DROP INDEX queue_due;
    ALTER TABLE queue DROP COLUMN attempts;
    ",
    "
    CREATE TABLE usage (
        hour INTEGER NOT NULL,  -- since 1970
        tenant TEXT NOT NULL,
        domain TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        delivered INTEGER NOT NULL,
        waited INTEGER NOT NULL,
        expired INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        registrations INTEGER NOT NULL,  -- the most at one time
        PRIMARY KEY (hour, tenant, domain)
    ) STRICT, WITHOUT ROWID;
    ",
    // The index mailbox_of_registration alone has all columns that the bounds read.
    "
    DROP INDEX mailbox_registration;
    ALTER TABLE mailbox DROP COLUMN age;
    ",
];
/// The layout that this code writes, in `PRAGMA user_version`: the number of steps.
pub(crate) const VERSION: usize = STEPS.len();

/// Checks that an existing file is a database of Upwire's, or empty. Changes nothing.
pub(crate) fn examine(path: &Path) -> Result<(), OpenError> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file() || metadata.len() == 0) || !path.exists() {
        return Ok(());
    }
    let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    // Read-write: a read-only connection may not see what a crash left in the write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    let count = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    // Every layout has this table.
    let is_ours =
        count("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'registration'")? > 0;
    if is_ours || count("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(());
    }
    Err(OpenError::Foreign(path.to_owned()))
}

/// Runs the steps that the file lacks, all or none.
pub(crate) fn lay_out(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let Some(missing) = usize::try_from(found).ok().and_then(|taken| STEPS.get(taken..)) else {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    };
    if missing.is_empty() {
        return Ok(());
    }
    let steps = missing.concat();
    connection
        .execute_batch(&format!("BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;"))
        .map_err(sqlite)?;
    if found > 0 {
        tracing::info!(
            from = found,
            to = VERSION,
            "the database has a new layout; an earlier upwire refuses it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use push::{
        MailboxBounds, Registration,
        ports::{Consistency, Mailbox, QueueReader, Registrations, RelayRegistrations, Waiting},
    };
    use rusqlite::params;

    use super::*;
    use crate::{
        database::Database,
        queue::tests::{message, target},
    };

    /// Layout 1, as the first release wrote it.
    const FIRST: &str = "
        CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE registration (
            id BLOB PRIMARY KEY, recipient TEXT NOT NULL, application BLOB NOT NULL, instance BLOB NOT NULL,
            epoch INTEGER NOT NULL, renewed_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
            revoked INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE queue (
            seq INTEGER PRIMARY KEY, due_at INTEGER NOT NULL, attempts INTEGER NOT NULL, entry BLOB NOT NULL
        ) STRICT;
        CREATE INDEX queue_due ON queue (due_at, seq);
        PRAGMA user_version = 1;";

    #[tokio::test]
    async fn a_file_of_the_first_layout_keeps_all_that_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upwire.db");
        let lives = Registration::renew(None, target(), DateTime::UNIX_EPOCH, TimeDelta::days(7));
        let Registration { target, epoch, expires_at, .. } = lives.clone();
        let id = target.registration_id();
        let queued = message(1);
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST).unwrap();
        old.execute("INSERT INTO setting VALUES ('secret', 'kept')", []).unwrap();
        old.execute(
            "INSERT INTO registration VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, FALSE)",
            params![
                id.as_bytes(),
                target.recipient.as_str(),
                target.application.as_bytes(),
                target.instance.as_bytes(),
                epoch.as_seconds(),
                expires_at.timestamp_millis(),
            ],
        )
        .unwrap();
        old.execute("INSERT INTO queue VALUES (7, 0, 3, CAST(?1 AS BLOB))", [queued.to_entry()]).unwrap();
        drop(old);

        let database = Database::open(&path).unwrap();
        assert_eq!(database.setting("secret").unwrap().as_deref(), Some("kept"));
        let found = Registrations::find(&database, id, Consistency::Strong).await.unwrap();
        assert_eq!(found, Some(lives));
        let received = &database.receive(10).await.unwrap()[0];
        assert_eq!((received.receipt, &*received.message), (7, &queued));
        database.throttle(id, epoch, expires_at).await.unwrap();
        let bounds = MailboxBounds { of_registration: 1, of_account: 1 };
        database.keep(Waiting { message: queued, asked_at: None }, bounds).await.unwrap();
        assert_eq!(database.mailbox_depth(), 1);
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prosody.sqlite");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE prosody (host TEXT, user TEXT)").unwrap();
        for version in [0, 1] {
            other.pragma_update(None, "user_version", version).unwrap();
            let before = std::fs::read(&path).unwrap();
            assert!(matches!(Database::examine(&path), Err(OpenError::Foreign(_))), "{version}");
            assert!(matches!(Database::open(&path), Err(OpenError::Foreign(_))), "{version}");
            assert_eq!(std::fs::read(&path).unwrap(), before, "{version}");
        }
        let names = || folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names().collect::<Vec<_>>(), ["prosody.sqlite"]);
    }

    #[test]
    fn a_file_of_a_later_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upwire.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refused = Database::open(&path).err().unwrap().to_string();
        assert!(refused.ends_with("was written by a newer upwire (layout 9, this one knows 8)"), "{refused}");
    }
}
