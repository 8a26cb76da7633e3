//! The folder of backups: checks the age of the newest copy, and the permissions of the copies.

use std::cmp::Reverse;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use embedded::Database;

use super::finding::Finding;
use super::machine::GROUP_AND_OTHERS;

const AGE_MAX: u64 = 2 * 86_400;
/// The first bytes of an SQLite file (<https://www.sqlite.org/fileformat.html>).
const SQLITE: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// The place of `PRAGMA user_version` in the header. It is above 0 in each layout of ours.
const VERSION: std::ops::Range<usize> = 60..64;
/// The prefix of an unfinished copy's name. The copy is under way, or was left by a crash.
const UNFINISHED: &str = ".upwire-";
/// Most files that a remedy names.
const NAMED_MAX: usize = 8;

/// A file whose header is that of a copy.
struct Copy {
    file: PathBuf,
    modified: SystemTime,
    mode: u32,
}

/// Checks the copies of `database` in the folder.
pub(super) fn check(folder: Option<&Path>, database: &Path, now: SystemTime) -> Vec<Finding> {
    let why = "a lost database takes all endpoints with it";
    let Some(folder) = folder else {
        return vec![Finding::skipped("backup", "no folder of backups was named (--backups)")];
    };
    let shown = folder.display();
    let mend = format!("run it daily: upwire backup {shown}/upwire-$(date +%F).db");
    let copies = match copies(folder, database) {
        Ok(copies) => copies,
        Err(error) => {
            return vec![Finding::error("backup", format!("{shown} cannot be read: {error}"), why, mend)];
        }
    };
    let Some(newest) = copies.iter().find(|copy| Database::examine(&copy.file).is_ok()) else {
        let what = format!("{shown} holds no backup that this user can read");
        return vec![Finding::error("backup", what, why, mend)];
    };
    let age = now.duration_since(newest.modified).map_or(0, |age| age.as_secs());
    let what = format!("the newest backup in {shown} is {} hours old", age / 3600);
    let aged =
        if age > AGE_MAX { Finding::warning("backup", what, why, mend) } else { Finding::ok("backup", what) };
    vec![aged, modes(folder, &copies)]
}

/// Returns the copies, the newest first.
fn copies(folder: &Path, database: &Path) -> std::io::Result<Vec<Copy>> {
    let itself = fs::canonicalize(database).ok();
    let mut copies: Vec<Copy> = fs::read_dir(folder)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let (file, metadata) = (entry.path(), entry.metadata().ok()?);
            let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            let is_itself = itself.is_some() && fs::canonicalize(&file).ok() == itself;
            (!is_unfinished && !is_itself && is_copy(&file, &metadata)).then_some(())?;
            let mode = metadata.permissions().mode();
            Some(Copy { modified: metadata.modified().ok()?, file, mode })
        })
        .collect();
    copies.sort_by_key(|copy| Reverse(copy.modified));
    Ok(copies)
}

/// Returns whether a file has the header of an SQLite file with a layout. It is not opened as a database, since this
/// runs for each file in the folder.
fn is_copy(file: &Path, metadata: &Metadata) -> bool {
    let mut header = [0; HEADER_BYTES];
    metadata.is_file()
        && File::open(file).and_then(|mut file| file.read_exact(&mut header)).is_ok()
        && header.starts_with(SQLITE)
        && header[VERSION] != [0; 4]
}

/// Makes one finding for all copies, of which there may be hundreds.
fn modes(folder: &Path, copies: &[Copy]) -> Finding {
    let shown = folder.display();
    let open = copies.iter().filter(|copy| copy.mode & GROUP_AND_OTHERS != 0);
    let open: Vec<&Copy> = open.filter(|copy| Database::examine(&copy.file).is_ok()).collect();
    let Some(first) = open.first() else {
        return Finding::ok("modes", format!("the backups in {shown} are private"));
    };
    let what = format!(
        "others may read or write {} of the backups in {shown}, as {} (mode {:o})",
        open.len(),
        first.file.display(),
        first.mode & 0o7777
    );
    let why = "a backup has addresses, pushes and the secret of the first start in it";
    let named: Vec<String> =
        open.iter().take(NAMED_MAX).map(|copy| copy.file.display().to_string()).collect();
    let rest = match open.len() - named.len() {
        0 => String::new(),
        rest => format!("; and {rest} more alike"),
    };
    Finding::error("modes", what, why, format!("chmod go= {}{rest}", named.join(" ")))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::finding::Level;
    use super::*;

    fn later(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    /// Makes a database, and a folder with a copy of it from day 1.
    fn backed_up() -> (TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("upwire.db");
        drop(Database::open(&database).unwrap());
        let backups = folder.path().join("backups");
        fs::create_dir(&backups).unwrap();
        let copy = backups.join("upwire-1.db");
        embedded::back_up(&database, &copy).unwrap();
        File::open(&copy).unwrap().set_modified(later(1)).unwrap();
        (folder, database, backups)
    }

    fn levels(folder: &Path, database: &Path, now: SystemTime) -> Vec<(&'static str, Level)> {
        check(Some(folder), database, now).iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn a_backup_ages() {
        let (folder, database, backups) = backed_up();
        assert_eq!(check(None, &database, later(1))[0].level, Level::Skipped);
        let private = ("modes", Level::Ok);
        assert_eq!(levels(&backups, &database, later(2)), [("backup", Level::Ok), private]);
        assert_eq!(levels(&backups, &database, later(4)), [("backup", Level::Warning), private]);
        let missing = folder.path().join("none");
        assert_eq!(levels(&missing, &database, later(4)), [("backup", Level::Error)]);
    }

    #[test]
    fn only_a_database_of_upwires_is_a_backup() {
        let (_folder, database, backups) = backed_up();
        for (name, content) in [
            ("notes.txt", &b"remember the milk"[..]),
            ("empty.db", b""),
            ("upwire.db.lock", b""),
            ("cut.db", SQLITE),
            (".upwire-Ab3", &fs::read(backups.join("upwire-1.db")).unwrap()),
        ] {
            fs::write(backups.join(name), content).unwrap();
        }
        // A database of another program has a layout's number, and no table of ours.
        let mut other = fs::read(backups.join("upwire-1.db")).unwrap();
        let ours = b"registration";
        for at in 0..other.len() - ours.len() {
            if other[at..].starts_with(ours) {
                other[at..at + ours.len()].copy_from_slice(b"prosodysroom");
            }
        }
        fs::write(backups.join("other.db"), other).unwrap();
        for entry in fs::read_dir(&backups).unwrap() {
            let file = entry.unwrap().path();
            if !file.ends_with("upwire-1.db") {
                File::open(file).unwrap().set_modified(later(4)).unwrap();
            }
        }
        assert_eq!(levels(&backups, &database, later(4))[0], ("backup", Level::Warning));
        fs::remove_file(backups.join("upwire-1.db")).unwrap();
        assert_eq!(levels(&backups, &database, later(4)), [("backup", Level::Error)]);
    }

    #[test]
    fn the_database_itself_is_no_backup() {
        let (folder, database, _) = backed_up();
        assert_eq!(levels(folder.path(), &database, later(1)), [("backup", Level::Error)]);
    }

    #[test]
    fn a_backup_that_others_may_read_is_an_error_with_its_mend() {
        let (_folder, database, backups) = backed_up();
        let copy = backups.join("upwire-1.db");
        fs::set_permissions(&copy, Permissions::from_mode(0o640)).unwrap();
        let found = check(Some(&backups), &database, later(1)).pop().unwrap();
        assert_eq!((found.check, found.level), ("modes", Level::Error));
        assert_eq!(found.mend, format!("chmod go= {}", copy.display()));
    }
}
