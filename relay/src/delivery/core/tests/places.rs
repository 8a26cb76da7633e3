//! The places in flight are shared out, and silent phones give theirs back.

use super::*;

#[test]
fn silent_phones_leave_places_to_those_that_answer() {
    let mut world = World::narrow();
    let bobs = world.register(BOB, 1);
    let proof = world.post(bobs);
    world.take_sent();
    world.answer(proof, BOB, None);
    // They take all places that one domain may have, then have more pushes than the relay holds.
    let mut silent = Vec::new();
    for number in 0..NARROW.in_flight / 4 {
        let app = world.register(&format!("mallory@example.com/{number}"), 1);
        world.post_some(app, 4);
        silent.push(app);
    }
    for app in silent {
        world.post_some(app, 20);
    }
    let taken = world.take_sent().len();
    assert!(
        (NARROW.in_flight / 16..NARROW.in_flight).contains(&taken),
        "{taken} go to one account, while nobody else wants"
    );
    let push = world.post(bobs);
    assert_eq!(world.take_sent(), [(push, BOB.to_owned())]);
}

#[test]
fn when_places_run_short_the_fullest_account_gives_silent_pushes_back_in_one_step() {
    let mut world = World::narrow();
    let mut apps = Vec::new();
    for number in 0..12 {
        apps.push(world.register(&format!("mallory@example.org/{number}"), number));
        // The cues of one account are bounded.
        world.pass(Duration::from_secs(1));
    }
    apps.extend((0..15).map(|number| world.register(&format!("user{number}@example.org/phone"), 1)));
    apps.into_iter().for_each(|app| drop(world.post_some(app, 4)));
    let asked: BTreeSet<MessageId> = world.take_sent().into_iter().map(|(push, _)| push).collect();
    let before = world.core().in_flight;
    assert_eq!(before, NARROW.in_flight / 16 * 13, "the domain has no further place");
    world.pass(Duration::from_secs(2) - TICK);
    assert_eq!(world.waiting().len(), 0);
    world.pass(TICK);
    let kept: Vec<_> = world.mailbox.values().cloned().collect();
    assert_eq!(kept.len(), before - NARROW.in_flight / 16 * 11);
    for (push, asked_at) in &kept {
        assert_eq!(push.recipient.to_bare().as_str(), "mallory@example.org", "the fullest account");
        assert!(asked.contains(&push.id) && asked_at.is_some(), "{push:?}");
    }
    world.pass(Duration::from_secs(20));
    let kept: BTreeSet<MessageId> = kept.iter().map(|(push, _)| push.id).collect();
    let again = world.take_sent().into_iter().filter(|(push, _)| kept.contains(push)).count();
    assert_eq!(again, 0, "they are asked of nobody else");
}

#[test]
fn a_phone_that_greets_and_answers_nothing_gets_one_push_for_each_presence() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 6);
    assert_eq!(world.take_sent().len(), 4);
    world.pass(Duration::from_secs(31));
    assert_eq!((world.take_sent(), world.waiting().len()), (vec![], 6));
    for _ in 0..3 {
        world.greet(ALICE);
        assert_eq!(world.take_sent().len(), 1);
        world.pass(Duration::from_secs(31));
        assert_eq!(world.take_sent(), []);
    }
    world.greet(ALICE);
    let mut arrived = BTreeSet::new();
    while !world.is_settled() {
        let sent = world.take_sent();
        assert!(!sent.is_empty(), "a result reopens the window: {:?}", world.rest());
        for (push, to) in sent {
            arrived.insert(push);
            world.answer(push, &to, None);
        }
    }
    assert_eq!(arrived, pushes.into_iter().collect());
}

#[test]
fn silent_phones_keep_their_places_while_nobody_waits_for_one() {
    let mut world = World::narrow();
    let of_a_domain = NARROW.in_flight / 16 * 13;
    for number in 0..of_a_domain / 4 {
        let app = world.register(&format!("user{number}@example.org/phone"), 1);
        world.post_some(app, 4);
    }
    assert_eq!(world.take_sent().len(), of_a_domain);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.waiting(), []);
}

/// Registrations of several phones of one account that have answered.
fn of_one_account(world: &mut World, phones: u8) -> Vec<RegistrationId> {
    let register = |number| world.register(&format!("bob@example.com/{number}"), number);
    let apps: Vec<_> = (0..phones).map(register).collect();
    for app in &apps {
        let proof = world.post(*app);
        let phone = world.names(*app);
        world.answer(proof, &phone, None);
    }
    world.take_sent();
    apps
}

#[test]
fn phones_that_answer_and_phones_that_never_did_take_turns() {
    let mut world = World::online();
    let answers = of_one_account(&mut world, 1)[0];
    let never_did = world.register(ALICE, 1);
    world.leased = false;
    world.post_some(answers, 4);
    world.post_some(never_did, 4);
    world.leased = true;
    world.pass(TICK);
    let sent: Vec<_> = world.take_sent().into_iter().map(|(_, to)| to).collect();
    assert!(sent.len() == 8 && sent.windows(2).all(|pair| pair[0] != pair[1]), "{sent:?}");
}

#[test]
fn an_account_takes_more_than_its_share_of_places_only_while_there_are_many() {
    let share = NARROW.in_flight / 16;
    for (crowd, expected) in [(0, 3 * share / 2), (NARROW.in_flight / 8 * 7, share)] {
        let mut world = World::narrow();
        let apps = of_one_account(&mut world, 3);
        for user in 0..crowd / 4 {
            // A domain may not have all of these places.
            let domain = user % 2;
            let app = world.register(&format!("user{user}@domain{domain}.example/phone"), 1);
            world.post_some(app, 4);
        }
        assert_eq!(world.take_sent().len(), crowd);
        apps.into_iter().for_each(|app| drop(world.post_some(app, 4)));
        assert_eq!(world.take_sent().len(), expected, "beside {crowd} others");
    }
}

#[test]
fn silent_pushes_are_taken_back_however_short_places_run() {
    let mut world = World::narrow();
    let of_a_domain = NARROW.in_flight / 16 * 13;
    for user in 0..of_a_domain / 4 + 1 {
        let app = world.register(&format!("user{user}@example.org/phone"), 1);
        world.post_some(app, 4);
    }
    let app = world.register(BOB, 1);
    world.post(app);
    assert_eq!(world.take_sent().len(), of_a_domain + 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.waiting().len(), of_a_domain + 1 - NARROW.in_flight / 16 * 11);
}

#[test]
fn a_silent_push_that_is_taken_back_goes_into_the_mailbox_though_another_full_jid_is_there() {
    let mut world = World::narrow();
    let register = |user| world.register(&format!("user{user}@example.org/phone"), 1);
    let apps: Vec<_> = (0..NARROW.in_flight / 16 * 13 / 4 + 1).map(register).collect();
    world.greet("user0@example.org/tablet");
    let pushes: Vec<_> = apps.into_iter().flat_map(|app| world.post_some(app, 4)).collect();
    world.pass(Duration::from_secs(2));
    assert!(world.waiting().contains(&pushes[0]), "{:?}", world.waiting());
}

#[test]
fn the_list_of_sent_pushes_loses_those_that_were_answered_when_it_is_four_times_as_long_as_there_are_places()
{
    let mut world = World::narrow();
    let (silent, answers) = (world.register(ALICE, 1), of_one_account(&mut world, 1)[0]);
    world.post(silent);
    let length = world.core().sent.len();
    for _ in length..4 * NARROW.in_flight {
        let push = world.post(answers);
        world.answer(push, "bob@example.com/0", None);
    }
    assert_eq!(world.core().sent.len(), 4 * NARROW.in_flight);
    world.post(answers);
    assert_eq!(world.core().sent.len(), 2);
}
