//! Promises of the SQLite file beyond the ports' contract.

use e2e::folder;
use embedded::Database;
use futures::future::join_all;
use push::ports::{Mailbox, QueueReader, QueueWriter, Settlement, Waiting};

use super::{Backend, at, at_most, message, receive};

#[tokio::test]
async fn a_second_process_is_refused_the_file() {
    let database = Database::fresh().await;
    let refused = Database::open(database.path()).err().unwrap().to_string();
    assert!(refused.ends_with("is in use by another upwire process"), "{refused}");
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone_and_depth_is_counted() {
    use std::os::unix::fs::PermissionsExt;

    let database = Database::fresh().await;
    database.send(message(1, at(0))).await.unwrap();
    assert_eq!(database.queue_depth(), 1);
    for file in std::fs::read_dir(database.path().parent().unwrap()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    let database = database.after_a_restart().await;
    assert_eq!(database.queue_depth(), 1);
    let receipt = receive(&database, 1).await[0].receipt;
    database.settle(vec![Settlement::Delete(receipt)]).await.unwrap();
    database.close().await;
    assert_eq!(database.queue_depth(), 0);
}

#[tokio::test]
async fn a_postponed_push_comes_again() {
    let database = Database::fresh().await;
    database.send(message(1, at(0))).await.unwrap();
    let receipt = receive(&database, 1).await[0].receipt;
    database.settle(vec![Settlement::Postpone(receipt, at(0))]).await.unwrap();
    assert!(!receive(&database, 1).await[0].is_first);
}

#[tokio::test]
async fn a_setting_is_made_once() {
    let database = Database::fresh().await;
    assert_eq!(database.setting_or("secret", "first".into()).await.unwrap(), "first");
    assert_eq!(database.setting_or("secret", "second".into()).await.unwrap(), "first");
    let database = database.after_a_restart().await;
    assert_eq!(database.setting("secret").unwrap().as_deref(), Some("first"));
}

#[test]
fn what_is_no_database_or_a_newer_one_is_refused() {
    let path = folder("contract").join("upwire.db");
    std::fs::write(&path, "not a database, but long enough to be read as the header of one".repeat(20))
        .unwrap();
    assert!(Database::open(&path).err().unwrap().to_string().contains("not a database"));
}

#[tokio::test]
async fn of_pushes_with_one_topic_that_are_kept_at_once_the_newest_stays() {
    let database = Database::fresh().await;
    let mut messages: Vec<_> = (0..200).map(|number| message(number, at(number.into()))).collect();
    let (newest, account) = (messages[199].clone(), messages[0].recipient.to_bare());
    messages.rotate_left(100);
    let keeping = messages.into_iter().map(|message| {
        let database = database.clone();
        tokio::spawn(async move {
            database.keep(Waiting { message, asked_at: None }, at_most(100)).await.unwrap()
        })
    });
    let kept = join_all(keeping).await.into_iter().map(Result::unwrap);
    assert_eq!(kept.map(|kept| kept.replaced.len() + kept.dropped.len()).sum::<usize>(), 199);
    let waiting = database.waiting(&account, None, None, 100).await.unwrap();
    assert_eq!(waiting, [Waiting { message: newest, asked_at: None }]);
    assert_eq!(database.mailbox_depth(), 1);
    assert_eq!(database.after_a_restart().await.mailbox_depth(), 1);
}
