//! The readings of mailboxes, a page at a time.

use super::*;

/// Pushes that wait for a full JID which was not tried: the access list did not admit it when they came.
fn wait(world: &mut World, registration: RegistrationId, count: usize) -> Vec<MessageId> {
    world.admit("example.org");
    let pushes = world.post_some(registration, count);
    world.admit("example.com");
    pushes
}

#[test]
fn no_more_than_128_pages_are_on_their_way_at_a_time() {
    let mut world = World::online();
    let phone = |user: usize| format!("user{user}@example.com/phone");
    world.reads_late = true;
    for user in 0..130 {
        world.register(&phone(user), 1);
    }
    let readings = |world: &World| (world.core().readings, world.core().stale, world.core().cued.len());
    assert_eq!(readings(&world), (128, 0, 2));
    world.leave(&phone(0));
    assert_eq!(readings(&world), (127, 1, 2), "its page is on its way still");
    world.read_what_is_late();
    assert_eq!(readings(&world), (2, 0, 0));
    world.read_what_is_late();
    assert_eq!(readings(&world), (0, 0, 0));
}

#[test]
fn of_one_account_no_more_than_8_mailboxes_are_read_at_a_time_and_the_others_after_them() {
    let mut world = World::online();
    world.reads_late = true;
    let phones: Vec<_> = (0..10).map(|number| format!("alice@example.com/{number}")).collect();
    let apps: Vec<_> = (0..).zip(&phones).map(|(number, phone)| world.register(phone, number)).collect();
    assert_eq!(world.core().readings, 8);
    world.reads_late = false;
    world.read_what_is_late();
    for (app, phone) in apps.into_iter().zip(phones) {
        let push = world.post(app);
        assert_eq!(world.take_sent(), [(push, phone)]);
    }
}

#[test]
fn beyond_the_bound_of_accounts_that_are_looked_up_none_is_asked_about() {
    let mut world = World::online();
    world.fill_looks();
    world.register(ALICE, 1);
    assert_eq!(world.core().looks.len(), 1);
}

#[test]
fn the_next_page_is_read_when_a_quarter_of_one_is_left_in_line() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.admit("example.org");
    // These expire, so that the first page has 13 pushes.
    for _ in 0..3 {
        world.post_for(app, 5);
    }
    wait(&mut world, app, 20);
    world.stand_still(Duration::from_secs(10));
    let pages = world.pages;
    world.greet(ALICE);
    for (sent, read, left) in [(4, 1, 9), (5, 1, 4), (9, 2, 2)] {
        let pushes = world.take_sent();
        let in_line = world.core().phone(&ALICE.parse().unwrap()).unwrap().line.ids().count();
        assert_eq!((pushes.len(), world.pages - pages, in_line), (sent, read, left));
        world.answer(pushes[0].0, ALICE, None);
    }
}

#[test]
fn a_full_jid_that_began_another_session_while_it_waited_for_its_page_is_read_a_page_at_a_time() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    wait(&mut world, app, 30);
    world.reads_late = true;
    world.register(TABLET, 2);
    // It waits for the page of the other full JID of its account.
    world.greet(ALICE);
    world.greet(ALICE);
    let pages = world.pages;
    for _ in 0..3 {
        world.read_what_is_late();
    }
    assert_eq!((world.pages - pages, world.take_sent().len()), (2, 4));
}

#[test]
fn a_push_that_waits_goes_to_its_full_jid_though_a_stand_in_was_to_read_it_before() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.take_sent();
    world.reads_late = true;
    world.greet(TABLET);
    // The retry of the full JID that is named finds the other in its place.
    world.pass(Duration::from_secs(2));
    world.leave(TABLET);
    world.reads_late = false;
    world.read_what_is_late();
    assert_eq!(world.take_sent(), []);
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn a_push_that_a_stand_in_was_to_read_is_read_when_its_full_jid_answers_another() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|application| world.register(ALICE, application));
    let refused = world.post(app);
    world.answer(refused, ALICE, OFFLINE);
    world.greet(TABLET);
    world.answer(refused, TABLET, GONE);
    world.take_sent();
    world.pass(Duration::from_secs(2) - TICK);
    let waits = wait(&mut world, other, 1)[0];
    world.reads_late = true;
    world.pass(TICK);
    world.leave(TABLET);
    for _ in 0..2 {
        world.read_what_is_late();
    }
    assert_eq!(world.take_sent(), [(refused, ALICE.to_owned())]);
    world.reads_late = false;
    world.answer(refused, ALICE, None);
    assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())], "{:?}", world.rest());
}

#[test]
fn a_push_whose_silence_is_being_written_goes_out_again_in_a_new_session_alone() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.stalls = true;
    let pages = world.pages;
    world.pass(Duration::from_secs(33));
    assert!(world.pages > pages, "its mailbox is read on a guess");
    assert_eq!(world.take_sent(), [], "the server may deliver it still");
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn a_mailbox_that_was_read_to_its_end_is_not_read_again() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    let pages = world.pages;
    world.answer(push, ALICE, None);
    assert_eq!(world.pages, pages);
    // This push is in flight already when it is read.
    let push = world.waits_and_is_sent(app);
    world.register(ALICE, 1);
    let pages = world.pages;
    world.answer(push, ALICE, None);
    assert_eq!((world.pages, world.take_sent()), (pages, vec![]));
}

#[test]
fn a_push_that_leaves_the_mailbox_while_its_page_is_on_its_way_is_not_sent() {
    let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 2 });
    let (alices, bobs) = (world.register(ALICE, 1), world.register(BOB, 1));
    let first = world.post(alices);
    world.answer(first, ALICE, OFFLINE);
    let second = world.post(alices);
    assert_eq!(world.waiting(), [first, second]);
    world.reads_late = true;
    world.greet(ALICE);
    let pages = world.read_early();
    let of_bob = world.post(bobs);
    world.answer(of_bob, BOB, OFFLINE);
    assert_eq!(world.waiting(), [second, of_bob]);
    world.take_sent();
    world.bring(pages);
    assert_eq!(world.take_sent(), [(second, ALICE.to_owned())]);
}

#[test]
fn a_push_that_is_read_for_a_full_jid_that_is_suspect_by_then_goes_to_a_stand_in() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|application| world.register(ALICE, application));
    world.register(TABLET, 3);
    let expires = world.post_for(other, 1);
    let unanswered = world.post(other);
    let waits = wait(&mut world, app, 1)[0];
    world.reads_late = true;
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [expires, unanswered].map(|push| (push, ALICE.to_owned())));
    world.stand_still(Duration::from_secs(1));
    world.answer(expires, ALICE, OFFLINE);
    for _ in 0..2 {
        world.read_what_is_late();
    }
    assert_eq!(world.take_sent(), [(waits, TABLET.to_owned())]);
}

#[test]
fn a_push_in_the_line_of_a_stand_in_goes_to_the_full_jid_that_answers_and_reads_it() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|application| world.register(ALICE, application));
    let of_stand_in = world.register(TABLET, 3);
    let unanswered = world.post(app);
    let waits = wait(&mut world, other, 1)[0];
    world.pass(Duration::from_secs(2) - TICK);
    world.post_some(of_stand_in, 4);
    world.take_sent();
    world.pass(TICK);
    assert_eq!(world.take_sent(), [], "the window of the stand-in is full");
    world.answer(unanswered, ALICE, None);
    assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())], "{:?}", world.rest());
}

#[test]
fn nobody_is_asked_for_a_sign_of_life_by_a_page_that_comes_without_the_lease() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [push]);
    world.restart();
    world.take_sent();
    world.reads_late = true;
    world.pass(TICK);
    world.leased = false;
    world.read_what_is_late();
    assert!(world.core().probed.is_empty());
    world.leased = true;
    world.pass(TICK);
    world.read_what_is_late();
    assert_eq!(world.core().probed.len(), 1);
}

#[test]
fn the_line_of_a_full_jid_waits_for_the_next_stream_though_its_mailbox_is_to_be_read_first() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let first = world.waits_and_is_sent(app);
    let more = world.post_some(app, 3);
    world.disconnect();
    assert_eq!((world.waiting(), world.queued()), (vec![first], 3));
    world.connect();
    world.pass(TICK);
    let sent: Vec<_> = world.take_sent().into_iter().map(|(push, _)| push).collect();
    assert_eq!(sent, [vec![first], more].concat());
}
