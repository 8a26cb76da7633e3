//! Settling on a store whose answers are lost after it has done what was asked, or which has trouble with one account.

use std::slice::from_ref;

use push::{Body, Instance, Registration, Target, testing};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{
    revoking::REVOKED_WITHIN,
    spared::{CHANGED_WITHIN, REST_FACTOR_MIN, REST_MIN, SLOW_FOR, WITHIN, WRITTEN_WITHIN},
    *,
};
use crate::{
    jobs::memory::{Memory, Trouble},
    lease::Fence,
};

/// Returns a store with these rows. A write takes 10 ms, so that writes at the same time can be counted.
fn store(rows: &[Registration]) -> Memory {
    let store = Memory::default();
    let mut inside = store.lock();
    inside.rows = rows.iter().map(|row| (row.target.registration_id(), row.clone())).collect();
    inside.keeping_takes = Duration::from_millis(10);
    drop(inside);
    store
}

fn jobs(store: &Memory, now: DateTime<Utc>) -> Jobs<Memory, Memory, Memory> {
    store.jobs(now, Fence::open())
}

fn registration(user: &str, instance: u8, now: DateTime<Utc>) -> Registration {
    let target = Target {
        instance: Instance::from_bytes([instance; 32]),
        ..testing::target(&format!("{user}@example.com/phone"))
    };
    Registration::renew(None, target, now, testing::WEEK)
}

fn push(now: DateTime<Utc>) -> PushMessage {
    push_for(&registration("alice", 1, now), now)
}

fn push_for(registration: &Registration, now: DateTime<Utc>) -> PushMessage {
    let mut chance = [0; MessageId::CHANCE_BYTES];
    chance.copy_from_slice(&registration.target.registration_id().as_bytes()[..MessageId::CHANCE_BYTES]);
    PushMessage::new(chance, registration, testing::wishes(60), Body::from_bytes(b"x"), now)
}

#[tokio::test(start_paused = true)]
async fn a_late_result_counts_though_the_answers_of_the_store_are_lost() {
    let accepted_at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for (seconds, expired) in [(30, false), (61, true)] {
        let (store, message) = (store(&[]), push(accepted_at));
        let (account, id) = (message.recipient.to_bare(), message.id);
        store.keep_waiting(message);
        store.lock().loses_answers = true;
        let jobs = jobs(&store, accepted_at + TimeDelta::seconds(seconds));
        let notes = jobs.settle(vec![Fate::Late(account.clone(), id)]).await;
        assert_eq!(notes, [Note::Late { account: account.clone(), id, accepted_at, expired }]);
        assert!(store.lock().waiting.is_empty());
        assert_eq!(jobs.settle(vec![Fate::Late(account, id)]).await, [], "it waits no longer");
    }
}

#[tokio::test]
async fn a_move_is_told_as_made_unless_the_store_refuses_it() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let (id, epoch, from) = (row.target.registration_id(), row.epoch, row.target.recipient.clone());
    let elsewhere = |resource| from.to_bare().with_resource_str(resource).unwrap();
    let (to, doubt) = (elsewhere("tablet"), elsewhere("watch"));
    let store = store(&[row]);
    let unmade = Note::Names(id, epoch, from.clone());
    let moved = Note::Moved(to.to_bare(), id);
    let moves = [
        (vec![from.clone()], 1, unmade.clone()),
        (vec![from.clone(), doubt.clone()], 2, unmade.clone()),
        (vec![doubt.clone()], 0, unmade),
        (vec![doubt, from], 0, moved),
    ];
    for (from, failing, told) in moves {
        store.lock().failing = failing;
        let follow = Fate::Follow { registration: id, epoch, from, to: to.clone() };
        assert_eq!(jobs(&store, now).settle(vec![follow]).await, [told]);
    }
}

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_account_with_which_the_store_has_trouble_holds_up_no_other() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for trouble in [Trouble::Refuses, Trouble::Hangs] {
        let [alice, bob] = ["alice", "bob"]
            .map(|user| [1, 2].map(|instance| Arc::new(push_for(&registration(user, instance, now), now))));
        let store = store(&[]);
        alice.iter().chain(&bob).for_each(|push| store.keep_waiting(PushMessage::clone(push)));
        store.lock().trouble = Some((alice[0].recipient.to_bare(), trouble));
        let jobs = jobs(&store, now);
        let fates = |[over, asked]: &[Arc<PushMessage>; 2]| {
            let held = Held { origin: Origin::Mailbox, message: Arc::clone(over) };
            [Fate::Done(held), Fate::Asked { message: Arc::clone(asked), asked_at: now }]
        };
        let left = |of: &[Arc<PushMessage>; 2]| {
            let inside = store.lock();
            let own = inside.waiting.values().filter(|one| one.message.recipient == of[0].recipient);
            own.map(|one| (one.message.id, one.asked_at)).collect::<Vec<_>>()
        };
        let settled =
            timeout(SOON, jobs.settle(fates(&alice).into_iter().chain(fates(&bob)).collect())).await;
        assert_eq!(settled.expect("the batch is not held up"), []);
        assert_eq!(left(&bob), [(bob[1].id, Some(now))]);
        assert_eq!(left(&alice).len(), 2);
        assert_eq!(timeout(SOON, jobs.settle(fates(&alice).into())).await.expect("nor the next"), []);

        // The removal holds, whatever was noted of the push since.
        let asked = Fate::Asked { message: Arc::clone(&alice[0]), asked_at: now };
        jobs.settle(vec![asked]).await;
        store.lock().trouble = None;
        let done = async {
            while left(&alice) != [(alice[1].id, Some(now))] {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(2 * SOON, done).await.expect("what was put off is done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_note_of_the_full_jids_seen_that_hangs_holds_up_no_batch() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let (store, account) = (store(&[]), push(now).recipient.to_bare());
    store.lock().trouble = Some((account.clone(), Trouble::Hangs));
    let seen = Fate::NoteSeen(account.clone(), Vec::new());
    let settled = timeout(SOON, jobs(&store, now).settle(vec![seen])).await;
    assert_eq!(settled.expect("the batch is not held up"), [Note::NotSeen(account)]);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_hangs_holds_up_no_batch_for_long() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let (store, push, recipient) = (store(from_ref(&row)), push_for(&row, now), row.target.recipient.clone());
    store.lock().trouble = Some((recipient.to_bare(), Trouble::Hangs));
    let jobs = jobs(&store, now);
    let revoke = || {
        let push = Held { origin: Origin::Mailbox, message: Arc::new(push.clone()) };
        vec![Fate::Revoke { push, recipient: recipient.clone(), asked_at: now }]
    };
    for time in [2 * WITHIN, Duration::from_millis(10)] {
        let notes = timeout(time, jobs.settle(revoke())).await;
        let notes = notes.expect("the batch goes on, and the next one does not wait");
        assert!(notes.iter().any(|note| matches!(note, Note::Waits { .. })), "{notes:?}");
    }
    let id = row.target.registration_id();
    assert!(jobs.revocations.is_revoking(id) && jobs.revocations.is_ending(&row), "it may be revoked still");
    let renewed = Registration { renewed_at: now + TimeDelta::milliseconds(1), ..row };
    assert!(!jobs.revocations.is_ending(&renewed));
    store.lock().trouble = None;
    sleep(REVOKED_WITHIN).await;
    assert!(!jobs.revocations.is_revoking(id));
    let notes = jobs.settle(revoke()).await;
    assert!(notes.iter().any(|note| matches!(note, Note::Ended { .. })), "{notes:?}");
}

#[tokio::test]
async fn a_push_that_is_kept_and_answered_late_in_one_batch_waits_no_more() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let (store, message) = (store(from_ref(&row)), push_for(&row, now));
    let (account, id, target) = (message.recipient.to_bare(), message.id, message.recipient.clone());
    store.post(message.clone());
    let message = Arc::new(message);
    let keep = Fate::Keep { message, target, asked_at: Some(now), untried: false };
    let notes = jobs(&store, now).settle(vec![Fate::Late(account, id), keep]).await;
    assert!(notes.iter().any(|note| matches!(note, Note::Late { .. })), "{notes:?}");
    assert!(store.lock().waiting.is_empty(), "the late result is for what is kept");
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_changes_are_slow_costs_the_others_a_twentieth_of_their_time() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let [slow, other] = ["alice", "bob"].map(|user| Arc::new(push_for(&registration(user, 1, now), now)));
    let store = store(&[]);
    store.lock().trouble = Some((slow.recipient.to_bare(), Trouble::Hangs));
    let jobs = jobs(&store, now);
    let over =
        |push: &Arc<PushMessage>| Fate::Done(Held { origin: Origin::Mailbox, message: Arc::clone(push) });
    let begun = Instant::now();
    let mut held_up = Duration::ZERO;
    while begun.elapsed() < 10 * SLOW_FOR {
        let batch = Instant::now();
        jobs.settle(vec![over(&slow), over(&other)]).await;
        held_up += batch.elapsed();
        sleep(CHANGED_WITHIN).await;
    }
    assert!(held_up > Duration::ZERO && held_up <= SLOW_FOR / 2, "{held_up:?}");
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_pushes_cannot_be_kept_costs_the_others_a_twentieth_of_their_time() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let rows = ["alice", "bob"].map(|user| registration(user, 1, now));
    let store = store(&rows);
    store.lock().trouble = Some((rows[0].target.recipient.to_bare(), Trouble::Hangs));
    let jobs = jobs(&store, now);
    let (begun, second) = (Instant::now(), Duration::from_secs(1));
    let (mut held_up, mut kept) = (Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(600) {
        let batch = Instant::now();
        let keep = |row: &Registration| Fate::Keep {
            message: Arc::new(push_for(row, now)),
            target: row.target.recipient.clone(),
            asked_at: None,
            untried: false,
        };
        kept += jobs.settle(rows.iter().map(keep).collect()).await.len();
        held_up += batch.elapsed().saturating_sub(Duration::from_millis(10));
        sleep(second).await;
    }
    assert!(held_up > Duration::ZERO && held_up <= begun.elapsed() / 20, "{held_up:?}");
    assert!(kept > 500, "those of the other: {kept}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_longer_than_its_batch_goes_on_and_is_told_of() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let store = store(from_ref(&row));
    let jobs = jobs(&store, now);
    store.lock().keeping_takes = 2 * WITHIN;
    let keep = |number: u8| Fate::Keep {
        message: Arc::new(push_for(&row, now + TimeDelta::milliseconds(number.into()))),
        target: row.target.recipient.clone(),
        asked_at: None,
        untried: false,
    };
    assert_eq!(jobs.settle(vec![keep(1)]).await, [], "its push goes back");
    assert_eq!(jobs.settle(vec![keep(2)]).await, [], "and others of its account");
    sleep(2 * WITHIN).await;
    assert_eq!(store.lock().waiting.len(), 1);
    assert_eq!(jobs.take_kept_late().len(), 1, "it waits after all");
    store.lock().keeping_takes = Duration::ZERO;
    assert_eq!(jobs.settle(vec![keep(2)]).await.len(), 1, "the account has recovered");
}

#[tokio::test]
async fn without_the_lease_nothing_is_kept() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let keep = Fate::Keep {
        message: Arc::new(push_for(&row, now)),
        target: row.target.recipient.clone(),
        asked_at: None,
        untried: false,
    };
    for (fence, kept) in [(Fence::lost_before(), 0), (Fence::open(), 1)] {
        let store = store(from_ref(&row));
        let jobs = store.jobs(now, fence);
        assert_eq!(jobs.settle(vec![keep.clone()]).await.len(), kept);
        assert_eq!(store.lock().waiting.len(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_account_few_pushes_are_written_at_a_time_and_after_a_failure_none_for_a_while() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let rows: Vec<_> = (0..100).map(|instance| registration("alice", instance, now)).collect();
    let fates = || -> Vec<_> {
        let keep = |row: &Registration| Fate::Keep {
            message: Arc::new(push_for(row, now)),
            target: row.target.recipient.clone(),
            asked_at: None,
            untried: false,
        };
        rows.iter().map(keep).collect()
    };
    let store = store(&rows);
    let jobs = jobs(&store, now);
    assert_eq!(jobs.settle(fates()).await.len(), rows.len());
    assert_eq!(store.lock().keeping, (0, 8));

    let hangs = WRITTEN_WITHIN - WITHIN + REST_FACTOR_MIN * WITHIN;
    for (trouble, rest) in [(Trouble::Refuses, REST_MIN), (Trouble::Hangs, hangs)] {
        store.lock().trouble = Some((rows[0].target.recipient.to_bare(), trouble));
        assert_eq!(jobs.settle(fates()).await, []);
        store.lock().trouble = None;
        sleep(rest - Duration::from_millis(10)).await;
        assert_eq!(jobs.settle(fates()).await, [], "it rests");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(jobs.settle(fates()).await.len(), rows.len());
    }
}
