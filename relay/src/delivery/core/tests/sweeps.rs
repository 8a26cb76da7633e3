//! Sweeps over the registrations for which something waits.

use push::testing;

use super::*;
use crate::stream::component::StreamNumber;
use world::{WIDE, core};

/// Returns whether a page of a sweep is asked for.
fn sweeps(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Start(Job::Sweep(_))))
}

#[test]
fn the_next_page_of_a_sweep_is_asked_for_once_all_of_the_last_one_were_tried() {
    let (mut core, mut now) = (core(WIDE, None, Room::OF_RELAY), now());
    assert!(sweeps(&handle(&mut core, now, Input::Online(StreamNumber::number(1)))));
    let row = |user| testing::registration(&format!("user{user}@example.com/phone"), now.wall);
    let rows: Vec<_> = (0..26).map(row).collect();
    let last = &rows[25].target;
    let next = Some((last.recipient.to_bare(), last.registration_id()));
    let found = Found { rows, waiting: Vec::new(), next };
    assert!(!sweeps(&handle(&mut core, now, Input::Found(found))));
    let asked = [(); 3].map(|()| {
        now.monotonic += TICK;
        sweeps(&handle(&mut core, now, Input::Tick))
    });
    assert_eq!(asked, [false, true, false], "25 are tried in one tick");
}

#[test]
fn a_sweep_that_begins_while_a_page_is_on_its_way_waits_for_that() {
    let mut core = core(WIDE, None, Room::OF_RELAY);
    assert!(sweeps(&handle(&mut core, now(), Input::Online(StreamNumber::number(1)))));
    let access = AccessList::Everyone(Vec::new());
    assert!(!sweeps(&handle(&mut core, now(), Input::Access(access))));
    assert!(sweeps(&handle(&mut core, now(), Input::Found(Found::default()))));
}

#[test]
fn nothing_is_swept_without_a_stream() {
    let mut core = core(WIDE, None, Room::OF_RELAY);
    let access = AccessList::Everyone(Vec::new());
    assert!(!sweeps(&handle(&mut core, now(), Input::Access(access))));
}

#[test]
fn a_sweep_counts_anew_what_waits_for_each_account_of_a_domain() {
    let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 4 });
    for (jid, count) in [(ALICE, 1), (BOB, 3)] {
        let app = world.register(jid, 1);
        let pushes = world.post_some(app, count);
        pushes.into_iter().for_each(|push| world.answer(push, jid, OFFLINE));
    }
    world.disconnect();
    world.connect();
    assert_eq!((world.waiting().len(), world.dropped.len()), (4, 0));
}
