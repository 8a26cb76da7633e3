use super::{
    reading::{FIND, NEXT_OF, NEXT_RECIPIENT, WAITING},
    *,
};
use crate::{database::count_mailbox, queue::tests::message};

fn database(folder: &tempfile::TempDir) -> Database {
    Database::open(&folder.path().join("upwire.db")).unwrap()
}

/// Bounds each registration, and not the account.
fn at_most(of_registration: usize) -> MailboxBounds {
    MailboxBounds { of_registration, of_account: usize::MAX }
}

fn waiting(message: &PushMessage) -> Waiting {
    Waiting { message: message.clone(), asked_at: None }
}

#[tokio::test]
async fn no_statement_searches_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let plan = |statement: &str| {
        database.read(|connection| {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
            let mut steps = plan.raw_query();
            let mut all = String::new();
            while let Some(step) = steps.next()? {
                all += &step.get::<_, String>("detail")?;
                all += "\n";
            }
            Ok(all)
        })
    };
    for (statement, index) in [
        (PURGE, "mailbox_expiry"),
        (IS_THERE, "mailbox_order"),
        (OF_TOPIC, "mailbox_topic"),
        (COUNT_OF_REGISTRATION, "COVERING INDEX mailbox_of_registration"),
        (OF_REGISTRATION, "COVERING INDEX mailbox_of_registration"),
        (COUNT_OF_ACCOUNT, "COVERING INDEX mailbox_of_registration"),
        (OF_ACCOUNT, "COVERING INDEX mailbox_of_registration"),
        (REMOVE, "mailbox_order"),
        (CLEAR, "mailbox_of_registration"),
        (WAITING, "mailbox_order"),
        (FIND, "mailbox_order"),
        (NEXT_OF, "COVERING INDEX mailbox_of_registration"),
        (NEXT_RECIPIENT, "COVERING INDEX mailbox_of_registration"),
    ] {
        let plan = plan(statement).unwrap();
        let indexed = plan.contains(index);
        assert!(indexed && !plan.contains("SCAN mailbox") && !plan.contains("TEMP"), "{statement}\n{plan}");
    }
}

#[tokio::test]
async fn what_expired_long_ago_goes_when_something_comes() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let old: Vec<_> = (0..20).map(message).collect();
    for old in &old {
        database.keep(waiting(old), at_most(100)).await.unwrap();
    }
    let keep_at = async |moment| {
        let mut new = message(20);
        (new.accepted_at, new.expires_at) = (moment, moment);
        database.keep(waiting(&new), at_most(100)).await.unwrap()
    };
    let long_ago = old[0].expires_at + PURGE_AFTER;
    assert_eq!(keep_at(long_ago).await, Kept::default());
    assert_eq!(database.mailbox_depth(), 21, "not yet");
    for left in [5, 1] {
        keep_at(long_ago + TimeDelta::milliseconds(1)).await;
        assert_eq!(database.mailbox_depth(), left);
        assert_eq!(database.read(count_mailbox).unwrap(), left);
    }
}

#[tokio::test]
async fn the_depth_is_that_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let account = message(0).recipient.to_bare();
    let with_topic = |number| {
        let mut message = message(number);
        message.topic = Topic::parse("topic");
        message
    };
    let late = with_topic(1);
    for message in [with_topic(0), with_topic(2), late.clone(), message(3), message(3), message(4)] {
        database.keep(waiting(&message), at_most(2)).await.unwrap();
        assert_eq!(database.mailbox_depth(), database.read(count_mailbox).unwrap());
    }
    assert_eq!(database.mailbox_depth(), 2);
    database.remove(vec![(account.clone(), message(3).id), (account.clone(), late.id)]).await.unwrap();
    assert_eq!(database.mailbox_depth(), 1);
    database.clear(&account, late.registration, late.epoch).await.unwrap();
    assert_eq!(database.mailbox_depth(), 0);
}

#[tokio::test]
async fn a_push_that_has_expired_is_not_withdrawn_and_stays_for_the_relay_to_count() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let message = message(1);
    let (account, expiry) = (message.recipient.to_bare(), message.expires_at);
    database.keep(waiting(&message), at_most(100)).await.unwrap();
    assert!(!database.withdraw(&account, message.id, expiry).await.unwrap());
    assert_eq!(database.waiting(&account, None, None, 1).await.unwrap(), [waiting(&message)]);
    assert_eq!(database.mailbox_depth(), 1);
    assert!(database.withdraw(&account, message.id, expiry - TimeDelta::milliseconds(1)).await.unwrap());
    assert_eq!(database.mailbox_depth(), 0);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_blocks_nothing_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let messages = [0, 1, 2, 3].map(message);
    for message in &messages {
        database.keep(waiting(message), at_most(100)).await.unwrap();
    }
    let [first, second, third, last] = &messages;
    let account = first.recipient.to_bare();
    for (unreadable, entry) in [(first, "{\"v\":2}"), (third, "{")] {
        const SPOIL: &str = "UPDATE mailbox SET entry = CAST(?1 AS BLOB) WHERE id = ?2";
        let id = unreadable.id;
        database.write(move |c| c.execute(SPOIL, params![entry, id.as_bytes()])).await.unwrap();
    }
    let page = async |after, max| database.waiting(&account, None, after, max).await.unwrap();
    assert_eq!(page(None, 2).await, [waiting(second), waiting(last)], "a full page, if more are there");
    assert_eq!(page(Some(second.id), 1).await, [waiting(last)]);
    assert_eq!(Mailbox::find(&database, &account, third.id).await.unwrap(), None);
    assert_eq!(database.recipients(None, 10).await.unwrap().0, [((account.clone(), first.registration), 4)]);
    assert_eq!(database.mailbox_depth(), 4);
    assert!(database.withdraw(&account, third.id, third.accepted_at).await.unwrap());
    assert_eq!(database.clear(&account, first.registration, first.epoch).await.unwrap(), 3);
}

#[tokio::test]
async fn an_account_that_cannot_be_read_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.keep(waiting(&message(1)), at_most(100)).await.unwrap();
    for account in ["@", "z@"] {
        const SPOIL: &str = "INSERT INTO mailbox (account, id, registration, epoch, expires_at, entry)
            SELECT ?1, id, registration, epoch, expires_at, entry FROM mailbox LIMIT 1";
        database.write(move |c| c.execute(SPOIL, [account])).await.unwrap();
    }
    let found = database.recipients(None, 2).await.unwrap();
    assert_eq!(found, (vec![((message(1).recipient.to_bare(), message(1).registration), 1)], None));
}
