//! A session begins while pushes to the one before are unanswered.

use super::*;

#[test]
fn what_an_earlier_session_left_unanswered_fills_no_window_and_goes_out_in_the_new_one() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let left: Vec<_> = (0..4).map(|_| world.post(app)).collect();
    assert_eq!(world.take_sent().len(), 4, "the window is full");
    world.pass(TICK);
    world.greet(ALICE);
    let next = world.post(app);
    assert_eq!(world.take_sent(), [(next, ALICE.to_owned())]);
    world.answer(next, ALICE, None);
    world.pass(Duration::from_secs(3));
    let again = world.take_sent();
    assert_eq!(again, left.iter().map(|push| (*push, ALICE.to_owned())).collect::<Vec<_>>());
    again.iter().for_each(|(push, to)| world.answer(*push, to, None));
    assert!(world.is_settled());
}

#[test]
fn a_registration_begins_a_session_for_a_phone_that_sends_no_presence() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let left = world.post(app);
    world.take_sent();
    world.pass(TICK);
    world.register(ALICE, 1);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), [(left, ALICE.to_owned())]);
}

#[test]
fn whoever_answers_late_has_time_for_its_other_answers() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes: Vec<_> = (0..4).map(|_| world.post(app)).collect();
    world.take_sent();
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), pushes);
    for push in pushes {
        world.answer(push, ALICE, None);
        world.pass(Duration::from_millis(250));
        assert_eq!(world.take_sent(), []);
    }
    assert_eq!(world.waiting(), []);
}

#[test]
fn what_a_late_answer_is_not_followed_by_goes_out_again() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let (answered, lost) = (world.post(app), world.post(app));
    world.take_sent();
    world.pass(Duration::from_secs(31));
    world.answer(answered, ALICE, None);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), [(lost, ALICE.to_owned())]);
}

#[test]
fn a_presence_reads_what_its_phone_rejected() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let (rejected, taken) = (world.post(app), world.post(app));
    world.take_sent();
    world.answer(rejected, ALICE, OFFLINE);
    world.answer(taken, ALICE, None);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![rejected]));
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(rejected, ALICE.to_owned())]);
}

/// ejabberd tells of the end of an old session after the new one, of the same resource, has sent its presence.
#[test]
fn an_old_session_whose_end_is_told_late_holds_nothing_up() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE);
    world.leave(ALICE);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())], "at once");
    world.answer(push, ALICE, None);
    assert!(world.is_settled());
}

#[test]
fn what_was_sent_to_the_new_session_before_the_late_end_of_the_old_one_is_settled_by_its_result() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE);
    let sent = world.post_some(app, 3);
    assert_eq!(world.take_sent().len(), 3);
    world.leave(ALICE);
    assert_eq!(world.waiting(), sent, "that session may be the one that got them");
    // They come from the new one, in which all of them arrived.
    sent.iter().for_each(|push| world.answer(*push, ALICE, None));
    assert!(world.is_settled(), "{:?}", world.rest());
    let next = world.post(app);
    world.pass(Duration::from_secs(3));
    assert_eq!(
        world.take_sent(),
        [(next, ALICE.to_owned())],
        "nothing comes twice, and what is new goes out"
    );
}

#[test]
fn what_the_old_session_took_along_goes_out_in_the_new_one_after_its_late_end() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE);
    let sent = world.post_some(app, 3);
    world.take_sent();
    world.leave(ALICE);
    let next = world.post(app);
    // No further presence: the new session has sent its own already.
    for _ in 0..12 {
        world.pass(Duration::from_secs(1));
        for (push, to) in world.take_sent() {
            assert!(sent.contains(&push) || push == next);
            world.answer(push, &to, None);
        }
    }
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!(world.delivered.len(), 4);
}

#[test]
fn what_the_server_no_longer_holds_for_one_resource_goes_to_the_next_after_a_restart() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [push], "it went out, and nobody answered");
    world.restart();
    world.pass(TICK);
    assert_eq!(world.take_sent(), [], "the server may hold it still");
    world.answer_probe(ALICE, OFFLINE);
    world.greet(ALICE_AGAIN);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}

#[test]
fn a_probes_error_says_nothing_of_the_session_that_came_after_it() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    world.restart();
    world.take_sent();
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.answer(push, ALICE, None);
    world.answer_probe(ALICE, OFFLINE);
    world.greet(ALICE_AGAIN);
    let next = world.post(app);
    assert_eq!(world.take_sent(), [(next, ALICE.to_owned())]);
}

/// A session that the XMPP server keeps for its phone, which has another one by now, answers no probe.
#[test]
fn what_went_out_before_a_restart_goes_to_the_phones_new_session_though_the_old_one_answers_no_probe() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    world.restart();
    world.take_sent();
    world.pass(Duration::from_secs(60));
    world.greet(ALICE_AGAIN);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    world.answer(push, ALICE_AGAIN, None);
    assert!(world.is_settled() && world.names(app) == ALICE_AGAIN);
}

#[test]
fn a_new_session_has_what_an_old_one_left_when_that_has_not_answered_a_probe_for_a_while() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    world.restart();
    world.take_sent();
    world.greet(ALICE_AGAIN);
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}

/// The relay died before it had written that the session was there.
#[test]
fn a_session_that_answers_after_a_restart_takes_what_waits_for_an_earlier_one_that_is_gone() {
    let mut world = World::online();
    let (here, gone) = (world.register(ALICE_AGAIN, 1), world.register(ALICE, 2));
    world.leave(ALICE);
    world.leave(ALICE_AGAIN);
    let (first, second) = (world.post(here), world.post(gone));
    world.forget_seen();
    world.restart();
    let sent = world.take_sent();
    assert!(sent.contains(&(first, ALICE_AGAIN.to_owned())) && sent.contains(&(second, ALICE.to_owned())));
    world.answer(second, ALICE, OFFLINE);
    world.answer(first, ALICE_AGAIN, None);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), [(second, ALICE_AGAIN.to_owned())]);
    world.answer(second, ALICE_AGAIN, None);
    assert!(world.is_settled() && world.names(gone) == ALICE_AGAIN);
}

#[test]
fn a_result_after_its_time_moves_nothing_though_the_tick_is_late() {
    let (mut world, app, push) = at_another();
    world.stand_still(Duration::from_secs(31));
    world.answer(push, ALICE_AGAIN, None);
    assert!(world.is_settled() && world.names(app) == ALICE);
}

#[test]
fn an_answer_that_came_while_the_process_stood_still_counts() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.pass(TICK);
    world.stand_still(Duration::from_secs(31));
    world.pass(TICK);
    assert!(!world.take_measured().contains(&Measure::Retried));
    world.answer(push, ALICE, None);
    assert!(world.is_settled());
    let next = world.post(app);
    assert_eq!(world.take_sent(), [(next, ALICE.to_owned())]);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [next], "an answer that does not come is not waited for");
}

#[test]
fn a_new_stream_tries_what_a_phone_rejected_on_the_last_one() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let (rejected, taken) = (world.post(app), world.post(app));
    world.take_sent();
    world.answer(rejected, ALICE, OFFLINE);
    world.answer(taken, ALICE, None);
    world.disconnect();
    world.connect();
    world.pass(TICK);
    assert_eq!(world.take_sent(), [(rejected, ALICE.to_owned())]);
}

#[test]
fn a_late_result_settles_what_the_queue_gives_only_then() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.restart_before_the_queue_answers();
    world.greet(ALICE);
    world.answer(push, ALICE, None);
    world.queue_again(push);
    assert_eq!(world.take_sent(), []);
    assert!(world.is_settled());
}

#[test]
fn once_the_silent_phone_answers_nothing_more_is_asked_of_the_other() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let sent = world.post_some(app, 8);
    world.answer(sent[0], ALICE, None);
    assert_eq!(world.take_sent().len(), 8);
    world.greet(ALICE_AGAIN);
    world.pass(Duration::from_secs(2) + TICK);
    let asked = world.take_sent();
    assert!(asked.iter().all(|(_, to)| to == ALICE_AGAIN) && asked.len() == 4, "{asked:?}");
    world.answer(sent[1], ALICE, None);
    world.take_sent();
    world.answer(asked[1].0, ALICE_AGAIN, None);
    world.pass(TICK);
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_presence_tries_what_the_phone_that_a_registration_names_has_rejected() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let (rejected, taken) = (world.post(app), world.post(app));
    world.take_sent();
    world.answer(rejected, ALICE, OFFLINE);
    world.answer(taken, ALICE, None);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![rejected]));
    world.greet(ALICE_AGAIN);
    assert_eq!(world.take_sent(), [(rejected, ALICE.to_owned())]);
    world.answer(rejected, ALICE, OFFLINE);
    assert_eq!(world.take_sent(), [(rejected, ALICE_AGAIN.to_owned())]);
}

#[test]
fn who_was_seen_is_written_again_after_a_failure_and_known_after_a_restart() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.pass(Duration::from_secs(61));
    world.seen_failing = 1;
    world.greet(ALICE_AGAIN);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.seen_failing, 0);
    world.restart();
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}

#[test]
fn a_new_session_has_its_whole_time_to_answer_what_went_out_before_its_presence() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let left = world.post(app);
    world.take_sent();
    world.pass(TICK);
    world.greet(ALICE);
    world.pass(Duration::from_millis(1500));
    world.answer(left, ALICE, None);
    world.leave(ALICE);
    // The new session is bound, and its presence is on its way.
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.pass(TICK);
    world.greet(ALICE);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent(), []);
    world.answer(push, ALICE, None);
    assert!(world.is_settled());
}

/// Two phones of one account: what the other was to take meanwhile, and could not, comes back with the first.
#[test]
fn what_is_in_line_for_a_stand_in_goes_to_the_phone_that_comes_back() {
    let mut world = World::online();
    let (app, others) = (world.register(ALICE, 1), world.register(ALICE_AGAIN, 2));
    let (failed, open, push) = (world.post(others), world.post(others), world.post(app));
    assert_eq!(world.take_sent().len(), 3);
    // The other is suspect: a push to it has failed, and the next is not answered yet.
    world.answer(failed, ALICE_AGAIN, OFFLINE);
    world.take_sent();
    world.leave(ALICE);
    assert_eq!(world.take_sent(), [], "{open} is not answered yet");
    world.greet(ALICE);
    let sent = world.take_sent();
    assert!(sent.contains(&(push, ALICE.to_owned())), "{sent:?}: {:?}", world.rest());
}

#[test]
fn what_a_silent_phone_was_asked_and_another_cannot_take_goes_to_the_one_that_greets() {
    let mut world = World::online();
    let (app, others) = (world.register(ALICE, 1), world.register(TABLET, 2));
    let push = world.post(app);
    world.pass(Duration::from_secs(1));
    world.greet(TABLET);
    world.post_some(others, 4);
    assert_eq!(world.take_sent().len(), 5);
    // The phone is silent, so the tablet is to be asked, too; its window is full.
    world.pass(Duration::from_secs(1) + TICK);
    world.greet(ALICE_AGAIN);
    world.pass(TICK);
    let sent = world.take_sent();
    assert!(sent.contains(&(push, ALICE_AGAIN.to_owned())), "{sent:?}: {:?}", world.rest());
}

#[test]
fn a_registration_that_is_stored_slowly_shows_life_when_it_was_asked_for() {
    let mut world = World::online();
    let app = world.register_slowly(ALICE, 1, |world| {
        world.pass(TICK);
        world.greet(ALICE_AGAIN);
        world.pass(TICK);
    });
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())], "it has come since");
}

#[test]
fn a_session_that_ends_before_its_registration_is_stored_has_ended() {
    let mut world = World::online();
    world.greet(ALICE_AGAIN);
    let app = world.register_slowly(ALICE, 1, |world| world.leave(ALICE));
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}
