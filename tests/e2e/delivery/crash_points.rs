//! Crashes between any two durable steps, and the work of the next process.
//!
//! Each test writes what a crash at that point leaves in the file, by the ports that would have written it, and starts
//! an upwire on the file.

use std::fs::File;

use aws::MailboxTable;
use chrono::TimeDelta;
use e2e::{
    Answer, Emulator, Phone, SOON, Upwire, User, XmppServer, eventually, eventually_some, hashed, http,
};
use embedded::Database;
use push::ports::{
    Consistency::Strong, Mailbox, QueueWriter, Registrations, RelayRegistrations, Renewal::WhereNeeded,
    Waiting,
};
use push::{Body, MailboxBounds, PushMessage, Registration, Secrets, Target, Topic, testing};
use serde_json::{Value, json};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::mailbox::{NEVER_SECONDS, bodies, everything_is_read, nothing_is_left, post, post_some, restart};

use crate::ports::Register;

const BOUNDS: MailboxBounds = MailboxBounds { of_registration: 100, of_account: 100 };

/// Starts an upwire, and a phone that sends no presence. Returns both, and the endpoint of the phone's one
/// registration.
async fn scene(server: &XmppServer, user: &User) -> (Upwire, Phone, String) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    (upwire, phone, endpoint)
}

/// Kills the upwire, takes the steps on its file that it would have taken next, and starts it again.
async fn dies_after(upwire: &mut Upwire, steps: impl AsyncFnOnce(&Database)) {
    upwire.kill();
    let path = upwire.database();
    let database = Database::open(&path).unwrap();
    steps(&database).await;
    drop(database);
    // The writer thread releases the file once it sees that nobody uses the database.
    let lock = File::open(format!("{}.lock", path.display())).unwrap();
    eventually_some(SOON, "the file is free", async || lock.try_lock().ok()).await;
    drop(lock);
    upwire.start_again();
    upwire.ready().await;
}

/// Returns the target that a phone has registered.
fn target(phone: &Phone, application: &str) -> Target {
    let [application, instance] = [application, "1"].map(hashed);
    let recipient = phone.jid().clone();
    let (application, instance) = (application.parse().unwrap(), instance.parse().unwrap());
    Target { recipient, application, instance, vapid: None, legacy: None }
}

async fn row(database: &Database, target: &Target) -> Registration {
    Registrations::find(database, target.registration_id(), Strong).await.unwrap().unwrap()
}

/// Returns a push with one letter as its body, accepted at the moment of its registration.
async fn push(database: &Database, phone: &Phone, letter: u8) -> PushMessage {
    let row = row(database, &target(phone, "app")).await;
    let (chance, wishes) = (testing::chance(letter.into()), testing::wishes(3600));
    PushMessage::new(chance, &row, wishes, Body::from_bytes(&[letter]), row.renewed_at)
}

async fn keep(database: &Database, message: &PushMessage) {
    let waiting = Waiting { message: message.clone(), asked_at: None };
    database.keep(waiting, BOUNDS).await.unwrap();
}

async fn what_was_accepted_and_no_more_is_delivered(server: &XmppServer) {
    let (mut upwire, phone, _) = scene(server, &server.user().await).await;
    dies_after(&mut upwire, async |database| {
        for letter in [b'a', b'b'] {
            database.send(push(database, &phone, letter).await).await.unwrap();
        }
    })
    .await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["a", "b"]).await;
}

async fn what_was_sent_and_not_answered_comes_again_under_its_id(server: &XmppServer) {
    let (mut upwire, phone, endpoint) = scene(server, &server.user().await).await;
    phone.set_answer(Answer::Silent);
    post(&endpoint, &[], "sent").await;
    let first = phone.next_push(SOON).await;
    phone.set_answer(Answer::Result);
    restart(&mut upwire).await;
    nothing_is_left(&upwire).await;
    assert_eq!(phone.wait_for_pushes(2, SOON).await, [first.clone(), first]);
}

async fn what_was_answered_and_not_deleted_from_the_queue_comes_again_under_its_id(server: &XmppServer) {
    let (mut upwire, phone, _) = scene(server, &server.user().await).await;
    for _ in 0..2 {
        dies_after(&mut upwire, async |database| {
            database.send(push(database, &phone, b'a').await).await.unwrap();
        })
        .await;
        nothing_is_left(&upwire).await;
    }
    let pushes = phone.has_got(&["a", "a"]).await;
    assert_eq!(pushes[0], pushes[1]);
}

async fn what_was_kept_and_not_deleted_from_the_queue_comes_once(server: &XmppServer) {
    let (mut upwire, phone, _) = scene(server, &server.user().await).await;
    // The push was kept because no phone was there, or because none had answered.
    for (letter, unanswered) in [(b'a', false), (b'b', true)] {
        dies_after(&mut upwire, async |database| {
            let message = push(database, &phone, letter).await;
            let asked_at = unanswered.then_some(message.accepted_at);
            database.keep(Waiting { message: message.clone(), asked_at }, BOUNDS).await.unwrap();
            database.send(message).await.unwrap();
        })
        .await;
        nothing_is_left(&upwire).await;
    }
    everything_is_read(&phone, &upwire.component.jid).await;
    phone.has_got(&["a", "b"]).await;
}

async fn what_was_answered_and_not_removed_from_the_mailbox_comes_again_under_its_id(server: &XmppServer) {
    let (mut upwire, phone, _) = scene(server, &server.user().await).await;
    for _ in 0..2 {
        dies_after(&mut upwire, async |database| keep(database, &push(database, &phone, b'a').await).await)
            .await;
        nothing_is_left(&upwire).await;
    }
    let pushes = phone.has_got(&["a", "a"]).await;
    assert_eq!(pushes[0], pushes[1]);
}

async fn what_waits_for_a_revoked_registration_goes_and_its_refused_push_is_refused_again(
    server: &XmppServer,
) {
    let (mut upwire, phone, endpoint) = scene(server, &server.user().await).await;
    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    dies_after(&mut upwire, async |database| {
        let refused = push(database, &phone, b'a').await;
        for letter in [b'b', b'c'] {
            keep(database, &push(database, &phone, letter).await).await;
        }
        let PushMessage { registration, epoch, recipient, accepted_at, .. } = &refused;
        database.revoke(*registration, *epoch, recipient, *accepted_at).await.unwrap();
        database.send(refused).await.unwrap();
    })
    .await;
    nothing_is_left(&upwire).await;
    everything_is_read(&phone, &upwire.component.jid).await;
    let mut expected = bodies(&phone.pushes());
    assert!(expected.len() <= 1 && expected.iter().all(|body| body == "a"), "{expected:?}");
    assert_eq!(http::post(&endpoint, "anyone?").await.status, 410);

    phone.set_answer(Answer::Result);
    let anew = phone.endpoint(&upwire.component.jid, "app").await;
    assert_ne!(anew, endpoint);
    expected.extend(post_some(&anew, "new", 1).await);
    nothing_is_left(&upwire).await;
    phone.has_got(&expected).await;
}

async fn a_registration_that_was_stored_and_not_answered_is_answered_by_the_same_endpoint(
    server: &XmppServer,
) {
    let (mut upwire, phone, _) = scene(server, &server.user().await).await;
    let mut token = String::new();
    dies_after(&mut upwire, async |database| {
        let target = target(&phone, "another app");
        let now = row(database, &self::target(&phone, "app")).await.renewed_at;
        let row = database.register_one(target, now, TimeDelta::days(7), WhereNeeded).await.unwrap();
        let secrets = Secrets::parse(&database.setting("secret").unwrap().unwrap()).unwrap();
        token = secrets.sign(row.target.registration_id(), row.epoch).as_str().to_owned();
    })
    .await;
    let endpoint = phone.endpoint(&upwire.component.jid, "another app").await;
    assert_eq!(endpoint, format!("{}/push/{token}", upwire.public_url));
    let posted = post_some(&endpoint, "push", 1).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn a_registration_that_moved_and_what_waits_was_not_sent_takes_it_along(server: &XmppServer) {
    let user = server.user().await;
    let (mut upwire, phone, _) = scene(server, &user).await;
    let moved = Phone::connect_as(server, &user, "another", "phone").await;
    phone.cut();
    dies_after(&mut upwire, async |database| {
        keep(database, &push(database, &phone, b'a').await).await;
        let now = row(database, &target(&phone, "app")).await.renewed_at;
        database.register_one(target(&moved, "app"), now, TimeDelta::days(7), WhereNeeded).await.unwrap();
    })
    .await;
    nothing_is_left(&upwire).await;
    moved.has_got(&["a"]).await;
}

async fn what_came_over_the_rate_and_was_not_delivered_is_delivered_and_its_senders_are_judged_anew(
    server: &XmppServer,
) {
    let (mut upwire, phone, endpoint) = scene(server, &server.user().await).await;
    dies_after(&mut upwire, async |database| {
        let message = push(database, &phone, b'a').await;
        let until = message.accepted_at + TimeDelta::hours(1);
        database.throttle(message.registration, message.epoch, until).await.unwrap();
        database.send(message).await.unwrap();
    })
    .await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["a"]).await;
    let taken = async || http::post(&endpoint, "one more").await.status == 201;
    eventually(SOON, "the mark of the process that died is taken away", taken).await;
}

async fn what_expired_while_nobody_ran_goes_from_wherever_it_is(server: &XmppServer) {
    let (mut upwire, phone, endpoint) = scene(server, &server.user().await).await;
    dies_after(&mut upwire, async |database| {
        let mut messages = [push(database, &phone, b'a').await, push(database, &phone, b'b').await];
        for message in &mut messages {
            message.accepted_at -= TimeDelta::days(2);
            message.expires_at = message.accepted_at + TimeDelta::days(1);
        }
        let [kept, queued] = messages;
        keep(database, &kept).await;
        database.send(queued).await.unwrap();
    })
    .await;
    nothing_is_left(&upwire).await;
    let posted = post_some(&endpoint, "in time", 1).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

on_each_server!(
    what_was_accepted_and_no_more_is_delivered,
    what_was_sent_and_not_answered_comes_again_under_its_id,
    what_was_answered_and_not_deleted_from_the_queue_comes_again_under_its_id,
    what_was_kept_and_not_deleted_from_the_queue_comes_once,
    what_was_answered_and_not_removed_from_the_mailbox_comes_again_under_its_id,
    what_waits_for_a_revoked_registration_goes_and_its_refused_push_is_refused_again,
    a_registration_that_was_stored_and_not_answered_is_answered_by_the_same_endpoint,
    a_registration_that_moved_and_what_waits_was_not_sent_takes_it_along,
    what_came_over_the_rate_and_was_not_delivered_is_delivered_and_its_senders_are_judged_anew,
    what_expired_while_nobody_ran_goes_from_wherever_it_is,
);

/// This crash is possible on AWS alone. On SQLite, one commit has both steps.
#[tokio::test]
async fn a_topic_that_was_stored_and_what_it_replaces_not_removed_leaves_one_when_it_is_kept_again() {
    let emulator = Emulator::shared().await;
    let table = emulator.mailbox_table().await;
    let mailbox = MailboxTable::new(&emulator.config(), &table);
    let items = async || -> Vec<Value> {
        let pushes = json!({"TableName": table, "FilterExpression": "attribute_exists(place)"});
        let scan = emulator.call("DynamoDB_20120810.Scan", pushes).await;
        scan["Items"].as_array().unwrap().clone()
    };
    let registered_at = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let registration = testing::registration("juliet@example.com/phone", registered_at);
    let of_topic = |second: u8| {
        let topic = Topic::parse("news");
        let now = registered_at + TimeDelta::seconds(second.into());
        let mut message = testing::push(second.into(), &registration, now);
        message.topic = topic;
        Waiting { message, asked_at: None }
    };
    let (old, new) = (of_topic(1), of_topic(2));
    mailbox.keep(old.clone(), BOUNDS).await.unwrap();
    let stored = items().await;
    mailbox.keep(new.clone(), BOUNDS).await.unwrap();
    let not_removed = json!({"TableName": table, "Item": stored[0]});
    emulator.call("DynamoDB_20120810.PutItem", not_removed).await;
    let account = new.message.recipient.to_bare();
    assert_eq!(
        mailbox.waiting(&account, None, None, 10).await.unwrap(),
        [old.clone(), new.clone()],
        "the crash"
    );

    // The push is still in the queue.
    let kept = mailbox.keep(new.clone(), BOUNDS).await.unwrap();
    assert_eq!((kept.replaced, kept.dropped), (vec![old.message.id], Vec::new()));
    assert_eq!(mailbox.waiting(&account, None, None, 10).await.unwrap(), [new]);
}
