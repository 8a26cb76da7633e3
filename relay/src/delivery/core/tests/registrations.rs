//! Registrations on their way to the store.

use push::ports::Renewal;

use super::*;
use crate::stream::{component::StreamNumber, stanza::Query};
use world::{WIDE, core, users::registration};

/// Returns the renewal that the store is asked for when a full JID registers.
fn renewal(world: &mut World, jid: &str, application: u8) -> Renewal {
    world.register(jid, application);
    world.renewals.pop().unwrap()
}

#[test]
fn a_renewal_is_written_while_a_push_of_its_registration_may_be_refused() {
    let mut world = World::online();
    let (app, other) = (world.register(ALICE, 1), world.register(ALICE, 2));
    world.post_some(other, 5);
    assert_eq!(world.take_sent().len(), 4, "the window is full");
    world.post(app);
    assert_eq!(renewal(&mut world, ALICE, 1), Renewal::WhereNeeded, "its push is in line");
    assert_eq!(renewal(&mut world, ALICE, 2), Renewal::Always, "its pushes are in flight");
    assert_eq!(renewal(&mut world, BOB, 1), Renewal::WhereNeeded);
}

#[test]
fn a_renewal_is_written_while_its_registration_is_being_revoked() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.stalls = true;
    world.answer(push, ALICE, GONE);
    assert_eq!(renewal(&mut world, ALICE, 1), Renewal::Always);
    assert_eq!(renewal(&mut world, ALICE, 2), Renewal::WhereNeeded);
}

#[test]
fn a_renewal_is_written_while_a_late_refusal_may_revoke_its_registration() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [push]);
    world.stalls = true;
    world.answer(push, ALICE, GONE);
    assert_eq!(renewal(&mut world, ALICE, 1), Renewal::Always);
}

/// Returns the number of registrations in each job that an input starts.
fn jobs(core: &mut Core, input: Input) -> Vec<usize> {
    let of_job = |action| match action {
        Action::Start(Job::Register(batch)) => Some(batch.len()),
        _ => None,
    };
    handle(core, now(), input).into_iter().filter_map(of_job).collect()
}

fn asks(jid: &str, application: u8) -> Input {
    Input::Stanza(Incoming::Request(registration(jid, application).1))
}

fn registers(user: usize) -> Input {
    asks(&format!("user{user}@example.com/phone"), 1)
}

#[test]
fn registrations_go_to_the_store_in_8_jobs_at_a_time_of_16_at_most() {
    let mut core = core(WIDE, None, Room::OF_RELAY);
    handle(&mut core, now(), Input::Online(StreamNumber::number(1)));
    let begun: Vec<_> = (0..25).map(|user| jobs(&mut core, registers(user))).collect();
    assert_eq!(begun.concat(), [1; 8]);
    let done = |core: &mut Core| jobs(core, Input::Registered(Vec::new()));
    assert_eq!([done(&mut core), done(&mut core), done(&mut core)], [vec![16], vec![1], vec![]]);
}

/// Two phones of an account have the same applications if one was set up from a backup of the other.
#[test]
fn of_two_phones_that_ask_for_one_registration_the_later_waits_for_the_earlier_to_be_stored() {
    let mut core = core(WIDE, None, Room::OF_RELAY);
    assert_eq!(jobs(&mut core, asks("juliet@example.com/phone", 1)), [1]);
    assert!(jobs(&mut core, asks("juliet@example.com/tablet", 1)).is_empty());
    assert!(jobs(&mut core, asks("juliet@example.com/tablet", 2)).is_empty());
    assert_eq!(jobs(&mut core, asks("romeo@example.com/phone", 1)), [1]);
    let stored = Registered {
        registration: Some(registration("juliet@example.com/phone", 1).0),
        reply: crate::stream::discovery::items(),
        outcome: Outcome::Refused,
    };
    assert_eq!(jobs(&mut core, Input::Registered(vec![stored])), [2]);
}

#[test]
fn a_stop_waits_for_registrations_that_are_being_stored() {
    let mut core = core(WIDE, None, Room::OF_RELAY);
    assert_eq!(jobs(&mut core, registers(0)), [1]);
    let finishes = |actions: Vec<Action>| actions.iter().any(|action| matches!(action, Action::Finish));
    assert!(!finishes(handle(&mut core, now(), Input::Stop)));
    assert!(finishes(handle(&mut core, now(), Input::Registered(Vec::new()))));
}

#[test]
fn a_registration_off_the_access_list_is_counted_and_no_other_request() {
    let ping = |jid: &str| Request::new(jid.parse().unwrap(), "p".into(), Query::Ping);
    for (list, request, expected) in [
        ("example.com", registration(ALICE, 1).1, 0),
        ("example.org", ping(ALICE), 0),
        ("example.org", registration(ALICE, 1).1, 1),
    ] {
        let mut core = core(WIDE, None, Room::OF_RELAY);
        handle(&mut core, now(), Input::Access(list.parse().unwrap()));
        let actions = handle(&mut core, now(), Input::Stanza(Incoming::Request(request)));
        let counted =
            actions.iter().filter(|action| matches!(action, Action::Count(Measure::NotAdmitted))).count();
        assert_eq!(counted, expected, "{list}");
    }
}
