use std::{os::unix::fs::PermissionsExt, time::Duration};

use chrono::TimeDelta;
use push::{
    Instance, Registration, Roster, Target, Tenant,
    ports::{
        Consistency, QueueReader, QueueWriter, Registrations, Renewal, Revocation, Tenants, TenantsWriter,
    },
};

use super::*;
use crate::{
    backup::back_up,
    database::Database,
    queue::tests::{message, target},
};

const START: DateTime<Utc> = DateTime::UNIX_EPOCH;
const WEEK: TimeDelta = TimeDelta::days(7);

async fn register(database: &Database, number: u8, now: DateTime<Utc>) -> Registration {
    let target = Target { instance: Instance::from_bytes([number; 32]), ..target() };
    database.register(target, now, WEEK, Renewal::Always, 1000).await.unwrap().stored().unwrap()
}

async fn revoke(database: &Database, row: &Registration) {
    let id = row.target.registration_id();
    let revoked = database.revoke(id, row.epoch, &row.target.recipient, row.renewed_at).await.unwrap();
    assert_eq!(revoked, Revocation::Revoked);
}

/// Prepares a restoration, once the writer thread has ended and released the lock.
async fn prepare(from: &Path, to: &Path, now: DateTime<Utc>) -> Restoration {
    let prepared = async {
        loop {
            match Restoration::prepare(from, to, now) {
                Err(BackupError::InUse(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                prepared => return prepared.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(180), prepared).await.expect("the lock goes")
}

fn endings(restoration: &Restoration) -> Vec<(RegistrationId, EndsSince)> {
    let mut endings = Vec::new();
    restoration
        .ending(|ending| {
            assert_eq!(ending.account, "juliet@example.com");
            endings.push((ending.id, ending.why));
            Ok(())
        })
        .unwrap();
    endings.sort();
    endings
}

#[tokio::test]
async fn a_restoration_says_what_ends_and_ends_again_what_had_ended() {
    let folder = tempfile::tempdir().unwrap();
    let [file, backup] = ["upwire.db", "backup"].map(|name| folder.path().join(name));
    let database = Database::open(&file).unwrap();
    let [kept, revoked, anew, renewed] = [0, 1, 2, 3].map(|number| register(&database, number, START));
    let (kept, revoked, anew, renewed) = (kept.await, revoked.await, anew.await, renewed.await);
    database.send(message(1)).await.unwrap();
    let contents = back_up(&file, &backup).unwrap();
    assert_eq!(contents, Contents { registrations: 4, pushes: 1 });
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(back_up(&file, &backup), Err(BackupError::Exists(_))));
    assert!(matches!(Restoration::prepare(&backup, &file, START), Err(BackupError::InUse(_))));

    let later = START + TimeDelta::days(6);
    revoke(&database, &revoked).await;
    revoke(&database, &anew).await;
    register(&database, 2, later).await;
    register(&database, 3, later).await;
    let new = register(&database, 4, later).await;
    register(&database, 0, later).await;
    database.setting_or("secret", "made since".into()).await.unwrap();
    for number in [2, 3] {
        database.send(message(number)).await.unwrap();
    }
    drop(database);

    let ids = |rows: &[(&Registration, EndsSince)]| {
        let mut ids: Vec<_> = rows.iter().map(|(row, why)| (row.target.registration_id(), *why)).collect();
        ids.sort();
        ids
    };
    let late = prepare(&backup, &file, START + TimeDelta::days(8)).await;
    let lapsed = [(&new, EndsSince::Registered), (&anew, EndsSince::BegunAnew), (&kept, EndsSince::Lapsed)];
    let expected = [&lapsed[..], &[(&renewed, EndsSince::Lapsed)]].concat();
    assert_eq!(endings(&late), ids(&expected));
    drop(late);

    let restoration = prepare(&backup, &file, later).await;
    assert_eq!(endings(&restoration), ids(&lapsed[..2]));
    let losses = *restoration.losses.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(losses, Losses { stay_ended: 2, pushes: 3, secret: true, secret_of_before: false });
    let aside = restoration.put_in_place().unwrap().unwrap();
    assert_eq!(aside, folder.path().join("upwire.db.before-19700107T000000Z"));

    let find = async |database: &Database, row: &Registration| {
        Registrations::find(database, row.target.registration_id(), Consistency::Strong).await.unwrap()
    };
    let database = Database::open(&file).unwrap();
    assert!(find(&database, &kept).await.unwrap().lives(later));
    for row in [&revoked, &anew, &new] {
        assert!(find(&database, row).await.unwrap().revoked, "its URL was refused before");
    }
    assert_eq!(database.receive(9).await.unwrap().len(), 1);
    let again = register(&database, 4, later).await;
    assert!(again.epoch > new.epoch, "its URL does not come back, even within the second");
    let before = Database::open(&aside).unwrap();
    assert!(find(&before, &new).await.is_some(), "nothing is lost of what was set aside");
}

#[tokio::test]
async fn the_log_of_the_file_that_is_replaced_is_not_taken_for_the_copys() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["upwire.db", "backup", "crashed.db", "damaged.db"];
    let [file, backup, crashed, damaged] = names.map(|name| folder.path().join(name));
    let database = Database::open(&file).unwrap();
    let kept = register(&database, 0, START).await;
    back_up(&file, &backup).unwrap();
    let new = register(&database, 1, START).await;
    // One file is gone, but its log is left. Another file is damaged.
    fs::copy(with_ending(&file, "-wal"), with_ending(&crashed, "-wal")).unwrap();
    let aside = prepare(&backup, &crashed, START).await.put_in_place().unwrap().unwrap();
    assert!(with_ending(&aside, "-wal").exists() && !with_ending(&crashed, "-wal").exists());
    fs::write(&damaged, "no database").unwrap();
    let restoration = prepare(&backup, &damaged, START).await;
    assert!(matches!(restoration.losses, Some(Err(_))), "it cannot be compared");
    assert_eq!(endings(&restoration), []);
    let aside = restoration.put_in_place().unwrap().unwrap();
    assert_eq!(fs::read(aside).unwrap(), b"no database");
    drop(Database::open(&damaged).unwrap());
    let restored = Database::open(&crashed).unwrap();
    let find = async |row: &Registration| {
        Registrations::find(&restored, row.target.registration_id(), Consistency::Strong).await.unwrap()
    };
    assert!(find(&kept).await.is_some());
    assert_eq!(find(&new).await, None);
}

#[tokio::test]
async fn what_is_no_whole_copy_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other, damaged] = ["upwire.db", "other", "damaged"].map(|name| folder.path().join(name));
    let database = Database::open(&file).unwrap();
    for number in 0..200 {
        register(&database, number, START).await;
    }
    back_up(&file, &damaged).unwrap();
    drop(database);
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&damaged, bytes).unwrap();
    fs::write(&other, "no database").unwrap();
    let elsewhere = folder.path().join("elsewhere.db");
    for (wrong, to) in
        [(&damaged, &file), (&damaged, &elsewhere), (&other, &file), (&folder.path().join("none"), &file)]
    {
        assert!(Restoration::prepare(wrong, to, START).is_err());
    }
    for wrong in [&other, &folder.path().join("none")] {
        assert!(back_up(wrong, &folder.path().join("copy")).is_err());
    }
    assert!(!elsewhere.exists() && !folder.path().join("copy").exists(), "nothing is left behind");
    back_up(&file, &folder.path().join("copy")).unwrap();
    drop(prepare(&folder.path().join("copy"), &elsewhere, START).await);
    assert!(!elsewhere.exists(), "what is not put in place is not there");
    let restored = prepare(&folder.path().join("copy"), &elsewhere, START).await.put_in_place().unwrap();
    assert_eq!(restored, None);
    assert_eq!(check(&open(&elsewhere).unwrap(), &elsewhere).unwrap().registrations, 200);
}

#[tokio::test]
async fn tenants_and_what_was_counted_of_them_stay_and_so_does_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let [file, backup] = ["upwire.db", "backup"].map(|name| folder.path().join(name));
    let database = Database::open(&file).unwrap();
    database.setting_or("secret", "of the first start".into()).await.unwrap();
    back_up(&file, &backup).unwrap();
    let mut roster = Roster { version: 1, ..Roster::default() };
    roster.add("example.com".parse().unwrap(), Tenant::new(START)).unwrap();
    assert!(database.set_roster(&roster).await.unwrap());
    let count = "INSERT INTO usage VALUES (1, 'example.com', 'example.com', 7, 7, 0, 0, 0, 70, 1)";
    database.write(move |connection| connection.execute(count, [])).await.unwrap();
    drop(database);

    for _ in 0..2 {
        let restoration = prepare(&backup, &file, START).await;
        let losses = *restoration.losses.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(losses, Losses::default(), "the copy has the same secret");
        restoration.put_in_place().unwrap();
    }
    let database = Database::open(&file).unwrap();
    assert_eq!(database.roster().await.unwrap(), roster);
    let usage = database.usage(0, i64::MAX).await.unwrap();
    assert_eq!(usage.values().map(|counts| counts.accepted).sum::<u64>(), 7);
    assert!(folder.path().join("upwire.db.before-19700101T000000Z.2").exists(), "twice within a second");
    drop(database);

    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute("DELETE FROM setting WHERE name = 'secret'", []).unwrap();
    drop(connection);
    let restoration = prepare(&backup, &file, START).await;
    let losses = *restoration.losses.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(losses, Losses { secret_of_before: true, ..Losses::default() });
}
