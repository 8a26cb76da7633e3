//! Pages of mailboxes, sweeps and registrations, on ports in memory.

use std::collections::BTreeSet;

use push::{Application, Epoch, Target, ports::Renewal, testing};
use tokio::time::{sleep, timeout};
use tokio_xmpp::jid::FullJid;

use super::{
    memory::{Memory, Trouble},
    *,
};
use crate::{
    delivery::{
        core::{Found, Outcome, Registered, Registering},
        fate::{Fate, Held, Origin},
        reading::{Cue, PAGE_MAX, ReadRequest},
    },
    stream::stanza::{Query, Request},
};

const ALICE: &str = "alice@example.com/phone";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn row(jid: &str, application: u8, at: DateTime<Utc>) -> Registration {
    let application = Application::from_bytes([application; 32]);
    Registration::renew(None, Target { application, ..testing::target(jid) }, at, testing::WEEK)
}

/// Returns a store in which this registration lives.
fn store_with(row: &Registration) -> Memory {
    let store = Memory::default();
    store.lock().rows.insert(row.target.registration_id(), row.clone());
    store
}

fn request(row: &Registration, cue: Cue) -> ReadRequest {
    let of = Arc::new(BTreeSet::from([row.target.registration_id()]));
    ReadRequest { reader: row.target.recipient.clone(), reading: 7, cue, of, after: None }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_read_though_the_store_is_away_at_first() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let push = testing::push(1, &row, now());
    store.keep_waiting(push.clone());
    store.lock().failing = 5;
    let page = store.jobs(now(), Fence::open()).read_page(&request(&row, Cue::There)).await;
    assert_eq!((page.pushes, page.upto, page.end), (vec![push.clone()], Some(push.id), true));
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_is_read_a_page_at_a_time() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let pushes: Vec<_> = (0..=PAGE_MAX as u32).map(|number| testing::push(number, &row, now())).collect();
    pushes.iter().for_each(|push| store.keep_waiting(push.clone()));
    let jobs = store.jobs(now(), Fence::open());
    let first = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((&first.pushes[..], first.end, first.reading), (&pushes[..PAGE_MAX], false, 7));
    let rest = jobs.read_page(&ReadRequest { after: first.upto, ..request(&row, Cue::There) }).await;
    assert_eq!((&rest.pushes[..], rest.end), (&pushes[PAGE_MAX..], true));
}

#[tokio::test(start_paused = true)]
async fn a_page_of_pushes_that_are_over_is_removed_and_the_next_is_read() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    for number in 0..PAGE_MAX as u32 {
        store.keep_waiting(testing::push(number, &row, now() - TimeDelta::seconds(61)));
    }
    let mut of_another_life = testing::push(1, &row, now());
    of_another_life.epoch = Epoch::MAX;
    store.keep_waiting(of_another_life);
    let lives = testing::push(2, &row, now());
    store.keep_waiting(lives.clone());
    let page = store.jobs(now(), Fence::open()).read_page(&request(&row, Cue::There)).await;
    assert_eq!((page.pushes, page.end), (vec![lives.clone()], true));
    assert_eq!(store.lock().waiting.keys().collect::<Vec<_>>(), [&lives.id]);
}

/// If the push were counted as it is removed, a process that finds it in the queue would count it again.
#[tokio::test(start_paused = true)]
async fn a_push_that_has_expired_is_not_removed_before_it_has_left_the_queue() {
    let row = row(ALICE, 1, now());
    let (store, push) = (store_with(&row), testing::push(1, &row, now() - TimeDelta::seconds(61)));
    store.post(push.clone());
    store.keep_waiting(push.clone());
    let jobs = store.jobs(now(), Fence::open());
    let received = jobs.receive(1).await;
    let page = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((page.pushes, store.lock().waiting.len()), (vec![push], 1));

    // The queue fails once; the mailbox is read before its settlement is tried again.
    store.lock().failing = 1;
    let done = Fate::Done(Held { origin: Origin::Queue, message: Arc::clone(&received[0]) });
    let request = request(&row, Cue::There);
    let (_, page) = tokio::join!(jobs.settle(vec![done]), jobs.read_page(&request));
    assert_eq!((page.pushes.len(), store.lock().waiting.len()), (1, 1));
    let page = jobs.read_page(&request).await;
    assert_eq!((page.pushes, store.lock().waiting.len()), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn a_guess_leaves_out_what_the_xmpp_server_may_still_deliver() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let [lately, long_ago] = [1, 2].map(|number| {
        let mut push = testing::push(number, &row, now());
        push.expires_at = now() + TimeDelta::hours(1);
        push
    });
    for (push, minutes) in [(&lately, 14), (&long_ago, 15)] {
        let asked_at = Some(now() - TimeDelta::minutes(minutes));
        store.lock().waiting.insert(push.id, push::ports::Waiting { message: push.clone(), asked_at });
    }
    let jobs = store.jobs(now(), Fence::open());
    let guess = jobs.read_page(&request(&row, Cue::Guess)).await;
    assert_eq!((guess.pushes, guess.left_out), (vec![long_ago.clone()], true));
    let there = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((there.pushes, there.left_out), (vec![lately, long_ago], false));
}

#[tokio::test(start_paused = true)]
async fn a_page_leaves_out_pushes_of_a_life_that_is_being_ended() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let [refused, other] = [1, 2].map(|number| testing::push(number, &row, now()));
    [&refused, &other].into_iter().for_each(|push| store.keep_waiting(push.clone()));
    store.lock().trouble = Some((row.target.recipient.to_bare(), Trouble::Hangs));
    let jobs = store.jobs(now(), Fence::open());
    let push = Held { origin: Origin::Mailbox, message: Arc::new(refused.clone()) };
    jobs.settle(vec![Fate::Revoke { push, recipient: row.target.recipient.clone(), asked_at: now() }]).await;
    let page = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((page.pushes, page.left_out), (vec![], true), "they wait for the next presence");
    store.lock().trouble = None;
    sleep(Duration::from_secs(60)).await;
    let page = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((page.pushes, page.left_out), (vec![refused, other], false), "the revocation was given up");
}

#[tokio::test(start_paused = true)]
async fn a_page_shows_changes_that_the_store_does_not_have_yet() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let [over, asked, untouched] = [1, 2, 3].map(|number| testing::push(number, &row, now()));
    [&over, &asked, &untouched].into_iter().for_each(|push| store.keep_waiting(push.clone()));
    let jobs = store.jobs(now(), Fence::open());
    store.lock().failing = 2;
    let done = Fate::Done(Held { origin: Origin::Mailbox, message: Arc::new(over) });
    jobs.settle(vec![done, Fate::Asked { message: Arc::new(asked.clone()), asked_at: now() }]).await;
    assert_eq!(store.lock().waiting.len(), 3, "both changes are put off");
    let guess = jobs.read_page(&request(&row, Cue::Guess)).await;
    assert_eq!((guess.pushes, guess.left_out), (vec![untouched.clone()], true));
    let there = jobs.read_page(&request(&row, Cue::There)).await;
    assert_eq!((there.pushes, there.left_out), (vec![asked, untouched], false));
}

#[tokio::test(start_paused = true)]
async fn a_page_goes_to_the_full_jid_that_the_registration_names_now() {
    let before = row(ALICE, 1, now());
    let push = testing::push(1, &before, now());
    let mut moved = before;
    moved.target.recipient = "alice@example.com/tablet".parse().unwrap();
    let store = store_with(&moved);
    store.keep_waiting(push);
    let page = store.jobs(now(), Fence::open()).read_page(&request(&moved, Cue::There)).await;
    assert_eq!(page.pushes[0].recipient, moved.target.recipient);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_finds_who_has_pushes_waiting_and_clears_those_of_ended_registrations() {
    let [one, other] = [1, 2].map(|application| row(ALICE, application, now()));
    let mut ended = row("bob@example.com/phone", 1, now());
    ended.revoked = true;
    let store = store_with(&one);
    for row in [&other, &ended] {
        store.lock().rows.insert(row.target.registration_id(), row.clone());
    }
    let absent = row("carol@example.com/phone", 1, now());
    for (number, row) in (0..).zip([&one, &other, &ended, &absent]) {
        store.keep_waiting(testing::push(number, row, now()));
    }
    let Found { rows, waiting, next } = store.jobs(now(), Fence::open()).sweep(None).await;
    let jids: Vec<&FullJid> = rows.iter().map(|row| &row.target.recipient).collect();
    assert_eq!((jids, next), (vec![&one.target.recipient], None), "each full JID is told of once");
    let expected = [("alice", 2), ("bob", 0), ("carol", 0)];
    let expected = expected.map(|(user, pushes)| (format!("{user}@example.com").parse().unwrap(), pushes));
    assert_eq!(waiting, expected);
    let left: BTreeSet<_> = store.lock().waiting.values().map(|one| one.message.registration).collect();
    assert_eq!(left, [&one, &other].map(|row| row.target.registration_id()).into());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_without_a_row_that_cannot_be_read_or_takes_long() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    store.keep_waiting(testing::push(1, &row, now()));
    let jobs = store.jobs(now(), Fence::open());
    for (are_broken, take) in [(true, Duration::ZERO), (false, Duration::from_secs(3600))] {
        store.lock().rows_are_broken = are_broken;
        store.lock().rows_take = take;
        let found = timeout(Duration::from_secs(60), jobs.sweep(None)).await.expect("the sweep goes on");
        assert_eq!((found.rows.len(), found.waiting), (0, vec![(row.target.recipient.to_bare(), 1)]));
        assert_eq!(store.lock().waiting.len(), 1, "nothing is cleared");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_to_a_row_that_is_read_slowly_and_renewed_meanwhile() {
    let (takes, begun) = (Duration::from_secs(1), tokio::time::Instant::now());
    let row = Registration { expires_at: now() + TimeDelta::milliseconds(500), ..row(ALICE, 1, now()) };
    let store = store_with(&row);
    let (waits, queued) = (testing::push(1, &row, now()), testing::push(2, &row, now()));
    store.keep_waiting(waits.clone());
    store.post(queued.clone());
    store.lock().rows_take = takes;
    let passed = move || TimeDelta::from_std(begun.elapsed()).unwrap();
    let jobs = Jobs { clock: Clock::new(move || now() + passed()), ..store.jobs(now(), Fence::open()) };
    // Each reads the row while it lives, and has it when that has lapsed by its own clock.
    let keep = Fate::Keep {
        message: jobs.receive(1).await.remove(0),
        target: row.target.recipient.clone(),
        asked_at: None,
        untried: false,
    };
    let request = request(&row, Cue::There);
    let (page, found, notes) =
        tokio::join!(jobs.read_page(&request), jobs.sweep(None), jobs.settle(vec![keep]));
    assert_eq!((page.pushes.len(), found.rows.len(), notes.len()), (1, 1, 1));
    assert_eq!(store.lock().waiting.keys().collect::<Vec<_>>(), [&waits.id, &queued.id]);
}

fn registering(jid: &str, application: u8, domain_full: Option<usize>) -> Registering {
    let target = row(jid, application, now()).target;
    let request = Request::new(jid.parse().unwrap(), "r".into(), Query::Register(Ok(Box::new(target))));
    Registering { request, renewal: Renewal::WhereNeeded, domain_full }
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_stored_and_answered_with_its_endpoint() {
    let store = Memory::default();
    let jobs = store.jobs(now(), Fence::open());
    let all = (1..=3).map(|application| registering(ALICE, application, None)).collect();
    let registered = jobs.register_all(all).await;
    let outcomes: Vec<_> = registered.iter().map(|one| &one.outcome).collect();
    assert!(matches!(outcomes[..], [Outcome::Begun(_), Outcome::Begun(_), Outcome::Refused]), "{outcomes:?}");
    let reply = |at: usize| String::from(&registered[at].reply);
    assert!(reply(0).contains("https://push.example.com/push/"), "{}", reply(0));
    assert!(reply(2).contains("your account may have no more than 2 registrations"), "{}", reply(2));
    assert_eq!((store.lock().rows.len(), jobs.moves()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_has_lost_its_lease_stores_no_registration() {
    let store = Memory::default();
    let registering = vec![registering(ALICE, 1, None)];
    let registered = store.jobs(now(), Fence::lost_before()).register_all(registering).await;
    assert!(matches!(registered[0].outcome, Outcome::Refused), "{:?}", registered[0].outcome);
    assert!(String::from(&registered[0].reply).contains("another instance"), "{:?}", registered[0].reply);
    assert!(store.lock().rows.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_domain_begins_no_registration_and_renews_those_that_live() {
    let row = row(ALICE, 1, now());
    let jobs = store_with(&row).jobs(now(), Fence::open());
    let all = (1..=2).map(|application| registering(ALICE, application, Some(500))).collect();
    let registered = jobs.register_all(all).await;
    let [
        Registered { outcome: Outcome::Stored(_), .. },
        Registered { outcome: Outcome::DomainFull, reply, .. },
    ] = &registered[..]
    else {
        panic!("{registered:?}");
    };
    assert!(String::from(reply).contains("your domain may have no more than 500 registrations"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_refuses_a_registration_for_now() {
    let store = Memory::default();
    store.lock().failing = 1;
    let registered = store.jobs(now(), Fence::open()).register_all(vec![registering(ALICE, 1, None)]).await;
    let reply = String::from(&registered[0].reply);
    assert!(reply.contains("type='wait'") || reply.contains("type=\"wait\""), "{reply}");
    assert!(matches!(registered[0].outcome, Outcome::Refused));
}

#[tokio::test(start_paused = true)]
async fn an_account_is_looked_up_again_and_in_the_end_given_up() {
    let row = row(ALICE, 1, now());
    let store = store_with(&row);
    let jobs = store.jobs(now(), Fence::open());
    for (failing, known) in [(LOOK_RETRIES_MAX, true), (LOOK_RETRIES_MAX + 1, false)] {
        store.lock().failing = failing;
        let Input::Looked(_, account) = jobs.run(Job::Look(row.target.recipient.to_bare())).await else {
            panic!("a look is answered by what was found");
        };
        assert_eq!(account.is_some_and(|account| account.registrations == [row.clone()]), known);
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_comes_twice_is_settled_by_both_receipts() {
    let receipts = Receipts::<u8>::default();
    let push = testing::push(1, &row(ALICE, 1, now()), now());
    let deliver = |receipt| Delivery { receipt, is_first: receipt == 1, message: Arc::new(push.clone()) };
    receipts.note(vec![deliver(1)]);
    receipts.note(vec![deliver(2)]);
    assert_eq!(receipts.take(push.id), [1, 2]);
    assert!(receipts.take(push.id).is_empty());
}
