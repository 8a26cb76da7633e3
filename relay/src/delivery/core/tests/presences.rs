//! Presences of full JIDs that others, or nobody, know.

use super::*;

const STRANGER: &str = "eve@example.org/phone";

#[test]
fn a_presence_off_the_access_list_or_during_a_stop_is_not_noted() {
    for reason in ["the list", "a stop"] {
        let mut world = World::online();
        if reason == "the list" {
            world.admit("example.com");
        } else {
            world.stop();
        }
        world.greet(STRANGER);
        assert!(world.core().accounts.is_empty(), "by {reason}");
    }
}

#[test]
fn the_end_of_a_session_of_which_nothing_is_known_is_not_noted() {
    let mut world = World::online();
    world.leave(STRANGER);
    assert!(world.core().accounts.is_empty());
    // Its mailbox was read, and was empty.
    world.register(ALICE, 1);
    world.forget("alice@example.com");
    world.leave(ALICE);
    assert!(world.core().accounts.is_empty());
}

#[test]
fn a_full_jid_whose_session_has_ended_is_not_tried_at_once_for_a_new_push_though_only_its_mailbox_is_known() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.restart();
    let waits = world.post_untried(app);
    world.leave(ALICE);
    let next = world.post(app);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![waits, next]));
}

#[test]
fn a_presence_takes_nothing_out_of_the_line_of_another_full_jid_that_is_there() {
    let mut world = World::online();
    let app = world.register(TABLET, 1);
    world.post_some(app, 6);
    assert_eq!(world.take_sent().len(), 4, "the window is full");
    world.greet(ALICE);
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_new_session_for_which_nothing_waits_reads_no_mailbox() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let left = world.post(app);
    world.take_sent();
    world.pass(TICK);
    let pages = world.pages;
    world.greet(ALICE);
    assert_eq!(world.pages, pages, "at once");
    world.pass(Duration::from_secs(3));
    assert_eq!((world.take_sent(), world.pages), (vec![(left, ALICE.to_owned())], pages));
}

#[test]
fn a_presence_reads_the_mailbox_of_another_full_jid_only_if_something_waits_for_it() {
    let mut world = World::online();
    let [_, app] = [(ALICE, 1), (TABLET, 2)].map(|(jid, application)| world.register(jid, application));
    let waits = world.post_untried(app);
    let pages = world.pages;
    world.greet(ALICE_AGAIN);
    assert_eq!((world.take_sent(), world.pages), (vec![(waits, TABLET.to_owned())], pages + 1));
}

#[test]
fn a_renewal_that_moves_no_registration_is_no_reason_to_read_the_mailbox_of_another_full_jid() {
    let mut world = World::online();
    for (jid, application) in [(ALICE, 1), (TABLET, 2)] {
        world.register(jid, application);
    }
    let pages = world.pages;
    world.reads_late = true;
    world.register(ALICE, 1);
    world.greet(TABLET);
    for _ in 0..3 {
        world.read_what_is_late();
    }
    assert_eq!(world.pages, pages + 1, "its own is read");
}

#[test]
fn an_account_is_forgotten_among_many_if_nothing_is_under_way_for_it() {
    const CAROL: &str = "carol@example.com/phone";
    let mut world = World::online();
    let [app, _] = [ALICE, BOB].map(|jid| world.register(jid, 1));
    for _ in 0..21 {
        world.register(CAROL, 1);
    }
    world.pass(TICK);
    // Alice has a push in flight. Bob was seen, which is written once a minute. A cue of Carol's was put off.
    world.post(app);
    world.greet(BOB);
    world.fill_accounts();
    world.greet("dave@example.com/phone");
    world.pass(TICK);
    let accounts = &world.core().accounts;
    for busy in ["alice", "bob", "carol"] {
        assert!(accounts.contains_key(&BareJid::new(&format!("{busy}@example.com")).unwrap()), "{busy}");
    }
    assert!(accounts.len() < 16_384, "{} are left", accounts.len());
}

#[test]
fn a_push_that_two_full_jids_were_asked_for_goes_out_to_one_of_them_on_the_next_stream() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent().len(), 2);
    world.disconnect();
    world.connect();
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}
