//! Settlements: batches of fates, and the notes of their outcome.

use super::*;

#[test]
fn settling_is_behind_once_as_many_decisions_as_a_quarter_of_the_pushes_that_may_be_held_wait() {
    let mut world = World::narrow();
    world.fall_behind();
    assert_eq!(world.core().fates.len(), NARROW.held / 4);
}

#[test]
fn a_move_that_is_settled_is_under_way_no_longer() {
    let (mut world, app, push) = at_another();
    world.stalls = true;
    world.answer(push, ALICE_AGAIN, None);
    assert!(world.core().following.contains_key(&app));
    world.go_on_settling();
    assert!(world.core().following.is_empty());
}

#[test]
fn late_refusals_are_under_way_until_they_are_settled() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 3);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), pushes);
    world.stalls = true;
    pushes.into_iter().for_each(|push| world.answer(push, ALICE, GONE));
    for under_way in [3, 2] {
        assert_eq!(world.core().late_revocations, under_way);
        world.settle_one_batch();
    }
    assert_eq!(world.core().late_revocations, 0);
}

#[test]
fn a_push_that_went_out_unanswered_again_is_left_out_by_a_guess_before_that_is_written() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.stalls = true;
    let pages = world.pages;
    world.pass(Duration::from_secs(31 + 3));
    assert!(world.pages > pages, "{push} is read");
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_push_that_went_out_unanswered_again_is_sent_once_more_after_15_minutes() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.pass(Duration::from_secs(15 * 60));
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(15 * 60));
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

/// An earlier process put it into the mailbox, and did not come to delete it from the queue.
#[test]
fn a_push_of_the_queue_that_is_delivered_while_its_copy_in_the_mailbox_is_read_leaves_that_too() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.reads_late = true;
    world.restart();
    world.queue_again(push);
    world.answer(push, ALICE, None);
    assert_eq!((world.queued(), world.waiting()), (0, vec![push]));
    world.read_what_is_late();
    assert_eq!(world.waiting(), []);
}

#[test]
fn a_line_that_waits_for_a_push_on_its_way_into_the_mailbox_goes_on_though_that_push_is_over() {
    let mut world = World::online();
    let [app, ends] = [1, 2].map(|application| world.register(ALICE, application));
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.take_sent();
    world.stalls = true;
    world.post(ends);
    world.end_registration(ends);
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [], "what is on its way may be older");
    world.go_on_settling();
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn a_refusal_for_a_registration_that_was_renewed_meanwhile_reads_no_mailbox_if_nothing_waits() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.take_sent();
    world.register(ALICE, 1);
    let pages = world.pages;
    world.answer(push, ALICE, GONE);
    assert!(world.lives(app));
    assert_eq!((world.take_sent(), world.pages), (vec![(push, ALICE.to_owned())], pages));
}

#[test]
fn a_refusal_for_a_registration_that_was_renewed_meanwhile_reads_what_was_passed_over() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    let waits = world.post_untried(app);
    world.stalls = true;
    // Another batch is being settled when the push is refused.
    let other = world.register(BOB, 1);
    let taken = world.post(other);
    world.answer(taken, BOB, None);
    world.answer(push, ALICE, GONE);
    world.register(ALICE, 1);
    world.take_sent();
    world.settle_one_batch();
    assert_eq!(world.take_sent(), [], "the refusal is being settled");
    world.settle_one_batch();
    assert_eq!(world.take_sent(), [waits, push].map(|push| (push, ALICE.to_owned())));
}

#[test]
fn what_waits_is_read_for_the_full_jid_that_a_registration_is_found_to_name_after_a_refusal() {
    let mut world = World::online();
    let [app, _] = [(ALICE, 1), (ALICE_AGAIN, 2)].map(|(jid, application)| world.register(jid, application));
    let push = world.post(app);
    let waits = world.post_untried(app);
    world.take_sent();
    world.register_unheard(ALICE_AGAIN, 1);
    world.answer(push, ALICE, GONE);
    let mut sent = world.take_sent();
    sent.sort();
    assert_eq!(sent, [push, waits].map(|push| (push, ALICE_AGAIN.to_owned())));
}

#[test]
fn a_registration_that_is_stored_before_the_core_is_told_of_a_refusal_is_newer() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.stalls = true;
    world.answer(push, ALICE, GONE);
    world.register(ALICE, 1);
    world.take_sent();
    world.register_before_settled(ALICE_AGAIN, 1);
    let immediate = world.post_for(app, 0);
    assert_eq!(world.take_sent(), [(immediate, ALICE_AGAIN.to_owned())]);
}

#[test]
fn a_life_that_began_unheard_at_the_full_jid_of_a_move_is_no_reason_to_read_its_mailbox() {
    let (mut world, app, push) = at_another();
    world.end_registration(app);
    world.register_unheard(ALICE_AGAIN, 1);
    let pages = world.pages;
    world.answer(push, ALICE_AGAIN, None);
    assert_eq!((world.take_sent(), world.pages), (vec![], pages));
}

#[test]
fn a_push_that_is_read_tells_whom_a_life_names_that_began_unheard() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.end_registration(app);
    world.register_unheard(ALICE_AGAIN, 1);
    world.stalls = true;
    world.admit("example.org");
    let push = world.post(app);
    world.admit("example.com");
    world.keep_late(push);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}
