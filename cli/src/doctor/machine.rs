//! This machine: checks the database, file permissions, free space and descriptors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use embedded::Database;

use super::finding::Finding;
use crate::http;

/// Descriptors for the most connections of the ingress, and for the rest of the server.
const DESCRIPTORS_MIN: u64 = 4096 + 128;
const OTHERS: u32 = 0o007;
pub(super) const GROUP_AND_OTHERS: u32 = 0o077;
/// Size of the write-ahead log beyond which its checkpoints do not work.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// Checks the permissions of the files that hold secrets, and of the TLS key.
pub(super) fn modes(database: Option<&Path>, secrets: &[&Path], key: Option<&Path>) -> Vec<Finding> {
    let forges = "who reads a secret can forge endpoints, or be the component";
    let poses = "who reads the key can pose as this server, and read what senders send";
    let all = database.iter().map(|file| (*file, GROUP_AND_OTHERS, forges));
    let all = all.chain(secrets.iter().map(|file| (*file, OTHERS, forges)));
    // A group may read a TLS key: Debian's `ssl-cert`, or Prosody's.
    let all = all.chain(key.iter().map(|file| (*file, OTHERS, poses)));
    all.filter_map(|(file, forbidden, why)| {
        let mode = fs::metadata(file).ok()?.permissions().mode();
        let shown = file.display();
        Some(if mode & forbidden == 0 {
            Finding::ok("modes", format!("{shown} is private"))
        } else {
            let what = format!("others may read or write {shown} (mode {:o})", mode & 0o7777);
            Finding::error("modes", what, why, format!("chmod {:o} {shown}", mode & !forbidden & 0o7777))
        })
    })
    .collect()
}

/// Checks whether the database opens, the free space of its disk, and its write-ahead log.
pub(super) fn database(file: &Path, floor: u64) -> (Option<Database>, Vec<Finding>) {
    let shown = file.display();
    if !file.exists() {
        let what = format!("{shown} does not exist");
        let why =
            "a server that starts makes a new, empty one: all endpoints of another file are unknown in it";
        let mend = "name the file in UPWIRE_DATABASE, or start the server to make it";
        return (None, vec![Finding::warning("database", what, why, mend)]);
    }
    let database = match Database::beside(file) {
        Ok(database) => database.with_disk_floor(floor),
        Err(error) => {
            let mend = format!("run this as the server's user, with the same upwire: ls -l {shown}");
            let what = format!("{shown} cannot be opened: {error}");
            return (None, vec![Finding::error("database", what, "the server cannot start on it", mend)]);
        }
    };
    let mut findings = vec![Finding::ok("database", format!("{shown} opens"))];
    findings.push(match database.check_room() {
        Ok(()) => Finding::ok("disk", "the database's disk has room"),
        Err(low) => {
            let mend = format!("make room on that disk, or lower UPWIRE_DISK_FLOOR: df -h {shown}");
            Finding::error(
                "disk",
                low.to_string(),
                "new pushes and registrations are refused until there is room",
                mend,
            )
        }
    });
    findings.extend(log(file));
    (Some(database), findings)
}

/// Makes a finding for a write-ahead log that has grown too large.
fn log(file: &Path) -> Option<Finding> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let bytes = fs::metadata(&log).map_or(0, |log| log.len());
    if bytes <= LOG_BYTES_MAX {
        return None;
    }
    let what = format!("{} has {} MiB", PathBuf::from(log).display(), bytes >> 20);
    let why = "some program reads the database for very long, and the log grows until the disk is full";
    let mend = format!("find it and end it: fuser -v {}", file.display());
    Some(Finding::warning("log", what, why, mend))
}

/// Checks the limit of descriptors for processes of this user.
pub(super) fn descriptors() -> Finding {
    let limit = http::raise_limit();
    if limit >= DESCRIPTORS_MIN {
        return Finding::ok("descriptors", format!("a process may have {limit}"));
    }
    let what = format!("a process may have {limit} descriptors here");
    let why = "with fewer than 4224, fewer than 4096 senders can be connected at a time";
    Finding::warning("descriptors", what, why, "set LimitNOFILE=8192 in the unit, or: ulimit -n 8192")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_secret_that_others_may_read_is_an_error_with_its_mend() {
        let folder = tempfile::tempdir().unwrap();
        let (database, secret) = (folder.path().join("upwire.db"), folder.path().join("secret"));
        for (file, mode) in [(&database, 0o640), (&secret, 0o640)] {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        let found = modes(Some(&database), &[&secret, Path::new("/nowhere")], None);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].level, found[1].level), (Level::Error, Level::Ok), "a group may read a secret");
        assert_eq!(found[0].mend, format!("chmod 600 {}", database.display()));
    }

    #[test]
    fn the_key_of_the_certificate_is_for_its_owner_and_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("push.example.com.key");
        fs::write(&key, "x").unwrap();
        for (mode, level) in [(0o600, Level::Ok), (0o640, Level::Ok), (0o644, Level::Error)] {
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            let found = modes(None, &[], Some(&key));
            assert_eq!(found.iter().map(|finding| finding.level).collect::<Vec<_>>(), [level], "{mode:o}");
        }
        assert_eq!(modes(None, &[], Some(&key))[0].mend, format!("chmod 640 {}", key.display()));
    }

    #[test]
    fn a_log_that_grows_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("upwire.db");
        assert_eq!(log(&file), None, "there is none");
        let grown = fs::File::create(folder.path().join("upwire.db-wal")).unwrap();
        grown.set_len(LOG_BYTES_MAX).unwrap();
        assert_eq!(log(&file), None);
        grown.set_len(LOG_BYTES_MAX + 1).unwrap();
        assert_eq!(log(&file).map(|found| found.level), Some(Level::Warning));
    }

    #[tokio::test]
    async fn a_disk_without_room_and_a_file_of_something_else_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("upwire.db");
        assert_eq!(database(&file, 0).1[0].level, Level::Warning, "it is not there");
        drop(Database::open(&file).unwrap());
        let (open, found) = database(&file, 0);
        assert!(open.is_some() && found.iter().all(|finding| finding.level == Level::Ok), "{found:?}");
        let full = database(&file, u64::MAX).1;
        assert!(
            full.iter().any(|finding| (finding.check, finding.level) == ("disk", Level::Error)),
            "{full:?}"
        );
        let other = folder.path().join("other.db");
        fs::write(&other, "no database").unwrap();
        assert_eq!(database(&other, 0).1[0].level, Level::Error);
    }
}
