//! The bookkeeping's rules, each on its own and all of them under random steps.

use chrono::TimeDelta;
use proptest::prelude::*;
use push::{Application, Body, Instance, Registration, Target, Ttl, Urgency, message::Wishes};

use super::{recipient::TURN_MAX, *};

fn push(jid: &str, number: u32) -> Held<u32> {
    let target = Target {
        recipient: FullJid::new(jid).unwrap(),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: None,
        legacy: None,
    };
    let registration = Registration::renew(None, target, DateTime::UNIX_EPOCH, TimeDelta::days(7));
    let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Normal, topic: None };
    let mut chance = [0; MessageId::CHANCE_BYTES];
    chance[..4].copy_from_slice(&number.to_be_bytes());
    let body = Body::from_bytes(b"x");
    let message = PushMessage::new(chance, &registration, wishes, body, DateTime::UNIX_EPOCH);
    Held { origin: Origin::Queue { receipt: number, attempts: 0 }, message }
}

fn receipt(push: &Held<u32>) -> u32 {
    match push.origin {
        Origin::Queue { receipt, .. } => receipt,
        Origin::Mailbox => panic!("it is from the queue"),
    }
}

/// Sends all that may be sent, and returns their receipts.
fn send_all(pending: &mut Pending<u32>, now: Instant) -> Vec<u32> {
    let mut sent = Vec::new();
    while let Some(push) = pending.next() {
        sent.push(receipt(&push));
        pending.sent(push, DateTime::UNIX_EPOCH, now);
    }
    sent
}

fn admit_all(pending: &mut Pending<u32>, jid: &str, numbers: std::ops::Range<u32>, now: Instant) -> usize {
    numbers.filter(|number| pending.admit(push(jid, *number), now).is_ok()).count()
}

fn answer(pending: &mut Pending<u32>, from: &str, number: u32) -> Option<u32> {
    let id = push(HOT, number).message.id;
    let answered = pending.answered(id, &from.parse().unwrap(), true, Instant::now());
    answered.map(|sent| receipt(&sent.push))
}

const HOT: &str = "hot@example.com/phone";
const OTHER: &str = "other@example.com/phone";

#[test]
fn one_jid_has_a_window_that_grows_with_its_answers() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..100, now);
    assert_eq!(send_all(&mut pending, now), [0, 1, 2, 3]);
    let mut answered = 0;
    while pending.in_flight() < IN_FLIGHT_PER_JID_MAX {
        assert_eq!(answer(&mut pending, HOT, answered), Some(answered));
        answered += 1;
        send_all(&mut pending, now);
    }
    assert_eq!(send_all(&mut pending, now), Vec::<u32>::new());
}

#[test]
fn a_full_window_does_not_hold_up_another_jid() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..500, now);
    admit_all(&mut pending, OTHER, 500..502, now);
    assert_eq!(send_all(&mut pending, now), [0, 500, 1, 501, 2, 3], "they take turns");
}

#[test]
fn a_slow_jid_keeps_no_line_and_an_overlong_line_is_refused() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    assert_eq!(admit_all(&mut pending, HOT, 0..600, now), LINE_MAX);
    send_all(&mut pending, now);
    let later = now + SLOW_AFTER;
    assert!(pending.slow(now).is_empty());
    let hot = FullJid::new(HOT).unwrap();
    assert_eq!(pending.slow(later), std::slice::from_ref(&hot));
    assert_eq!(pending.take_line(&hot).len(), LINE_MAX - 4);
    assert!(matches!(pending.admit(push(HOT, 700), later), Err(Refused::Slow(_))));
    assert!(pending.admit(push(OTHER, 701), later).is_ok());
}

#[test]
fn what_finds_a_full_line_comes_back_in_order_and_about_when_there_is_room() {
    let (mut pending, mut now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..LINE_MAX as u32, now);
    send_all(&mut pending, now);
    // One answer each 10 ms: a line of 512 takes five seconds.
    for number in 0..100 {
        now += Duration::from_millis(10);
        let id = push(HOT, number).message.id;
        assert!(pending.answered(id, &HOT.parse().unwrap(), true, now).is_some());
        admit_all(&mut pending, HOT, 1000 + number..1001 + number, now);
        send_all(&mut pending, now);
    }
    let mut numbers = 2000..;
    let mut turn = || loop {
        match pending.admit(push(HOT, numbers.next().unwrap()), now) {
            Ok(()) => {}
            Err(Refused::LineFull(_, turn)) => return turn,
            Err(Refused::Slow(_)) => panic!("it answers"),
        }
    };
    let turns: Vec<_> = (0..100).map(|_| turn()).collect();
    assert!(turns.is_sorted_by(|one, next| one < next));
    assert!(turns[0] > Duration::from_secs(2) && turns[99] < Duration::from_secs(5), "{turns:?}");
}

#[test]
fn only_who_was_asked_can_answer_and_only_once() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..1, now);
    assert_eq!(answer(&mut pending, HOT, 0), None, "not sent yet");
    send_all(&mut pending, now);
    for other in [OTHER, "hot@example.com", "hot@example.com/tablet"] {
        assert_eq!(answer(&mut pending, other, 0), None, "{other}");
    }
    assert_eq!(answer(&mut pending, HOT, 0), Some(0));
    assert_eq!(answer(&mut pending, HOT, 0), None);
    assert!(pending.recipients.is_empty() && pending.ready.is_empty());
}

#[test]
fn what_is_overdue_is_taken_once_and_halves_the_window() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..10, now);
    send_all(&mut pending, now);
    answer(&mut pending, HOT, 1);
    let later = now + Duration::from_secs(30);
    assert_eq!(pending.overdue(now - Duration::from_secs(1), later).len(), 0);
    let overdue: Vec<_> = pending.overdue(now, later).into_iter().map(|sent| receipt(&sent.push)).collect();
    assert_eq!(overdue, [0, 2, 3]);
    assert_eq!(send_all(&mut pending, later), [4]);
}

#[test]
fn dead_jids_give_up_their_places_when_all_are_taken() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    for number in 0..IN_FLIGHT_MAX as u32 {
        admit_all(&mut pending, &format!("dead{number}@example.com/phone"), number..number + 1, now);
    }
    assert_eq!(send_all(&mut pending, now).len(), IN_FLIGHT_MAX);
    admit_all(&mut pending, OTHER, 5000..5001, now);
    assert_eq!(send_all(&mut pending, now), Vec::<u32>::new());
    let later = now + SLOW_AFTER;
    assert_eq!(pending.overdue(now - Duration::from_secs(1), later).len(), 1);
    assert_eq!(send_all(&mut pending, later), [5000]);
}

#[test]
fn the_end_of_a_session_takes_all_of_it_and_nothing_else() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..10, now);
    admit_all(&mut pending, OTHER, 10..11, now);
    send_all(&mut pending, now);
    let hot = FullJid::new(HOT).unwrap();
    let (in_flight, line) = (pending.session_ended(&hot), pending.take_line(&hot));
    assert_eq!((in_flight.len(), line.len(), pending.in_flight()), (4, 6, 1));
}

#[test]
fn the_end_of_the_stream_puts_all_back_in_order() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..6, now);
    send_all(&mut pending, now);
    answer(&mut pending, HOT, 1);
    send_all(&mut pending, now);
    pending.stream_ended();
    assert_eq!(pending.in_flight(), 0);
    let lines: Vec<_> = pending.lines().into_iter().map(|push| receipt(&push)).collect();
    assert_eq!(lines, [0, 2, 3, 4, 5]);
}

#[test]
fn what_is_more_urgent_or_older_goes_first_and_what_is_not_read_yet_before_all() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    let hot = FullJid::new(HOT).unwrap();
    pending.set_gate(&hot, Gate::Shut, now);
    admit_all(&mut pending, HOT, 3..6, now);
    admit_all(&mut pending, HOT, 0..3, now);
    assert_eq!(send_all(&mut pending, now), Vec::<u32>::new());
    pending.set_gate(&hot, Gate::UpTo(push(HOT, 1).message.id), now);
    assert_eq!(pending.in_line_that_pass(&hot, 9), 2);
    assert_eq!(send_all(&mut pending, now), [0, 1]);
    let mut at_once = push(HOT, 9);
    at_once.message.expires_at = at_once.message.accepted_at;
    assert!(pending.admit(at_once, now).is_ok());
    assert_eq!(send_all(&mut pending, now), [9], "now or never: it waits for nothing");
    pending.set_gate(&hot, Gate::Open, now);
    answer(&mut pending, HOT, 0);
    assert_eq!(send_all(&mut pending, now), [2, 3, 4, 5]);
}

#[test]
fn a_failure_holds_the_line_until_it_is_known_who_is_there() {
    let (mut pending, now) = (Pending::new(), Instant::now());
    let hot = FullJid::new(HOT).unwrap();
    let fail = |pending: &mut Pending<u32>, number| {
        let id = push(HOT, number).message.id;
        let failed = pending.answered(id, &HOT.parse().unwrap(), false, now).unwrap();
        pending.doubt(&failed, now);
        id
    };
    admit_all(&mut pending, HOT, 0..10, now);
    assert_eq!(send_all(&mut pending, now), [0, 1, 2, 3]);
    let first = fail(&mut pending, 0);
    assert_eq!((send_all(&mut pending, now), pending.conclude(&hot)), (Vec::new(), None));
    answer(&mut pending, HOT, 1);
    let (third, fourth) = (fail(&mut pending, 2), fail(&mut pending, 3));
    let doubt = pending.conclude(&hot).unwrap();
    assert!(doubt.proven, "it answered one of them");
    assert_eq!(doubt.failed, [first, third, fourth]);

    assert_eq!(send_all(&mut pending, now).len(), 6, "the line goes on");
    for number in 4..10 {
        fail(&mut pending, number);
    }
    assert!(!pending.conclude(&hot).unwrap().proven);
    assert!(pending.recipients.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u8),
    Send,
    Answer(u8, u32),
    Overdue,
    SessionEnded(u8),
    StreamEnded,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4).prop_map(Step::Admit),
        4 => Just(Step::Send),
        4 => ((0u8..4), (0u32..200)).prop_map(|(jid, number)| Step::Answer(jid, number)),
        1 => Just(Step::Overdue),
        1 => (0u8..4).prop_map(Step::SessionEnded),
        1 => Just(Step::StreamEnded),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_or_held_twice(steps in prop::collection::vec(step(), 1..200)) {
        let (mut pending, mut now) = (Pending::new(), Instant::now());
        let (mut offered, mut admitted, mut taken) = (0, 0, 0);
        let jid = |number: u8| format!("user{number}@example.com/phone");
        for step in steps {
            now += Duration::from_millis(100);
            match step {
                Step::Admit(number) => {
                    admitted += u32::from(pending.admit(push(&jid(number), offered), now).is_ok());
                    offered += 1;
                }
                Step::Send => {
                    send_all(&mut pending, now);
                }
                Step::Answer(number, message) => {
                    taken += usize::from(answer(&mut pending, &jid(number), message).is_some());
                }
                Step::Overdue => taken += pending.overdue(now, now).len(),
                Step::SessionEnded(number) => {
                    let jid = FullJid::new(&jid(number)).unwrap();
                    taken += pending.session_ended(&jid).len() + pending.take_line(&jid).len();
                }
                Step::StreamEnded => pending.stream_ended(),
            }
            let windows = pending.recipients.values().map(|recipient| recipient.in_flight.len());
            prop_assert_eq!(windows.clone().sum::<usize>(), pending.in_flight());
            prop_assert!(windows.max().unwrap_or(0) <= IN_FLIGHT_PER_JID_MAX);
        }
        // Whatever is held can still go out, each exactly once.
        let mut rest: Vec<u32> = Vec::new();
        pending.stream_ended();
        loop {
            let sent = send_all(&mut pending, now);
            if sent.is_empty() {
                break;
            }
            rest.extend(&sent);
            pending.overdue(now, now);
        }
        prop_assert_eq!(rest.len() + taken, admitted as usize);
        rest.sort_unstable();
        rest.dedup();
        prop_assert_eq!(rest.len() + taken, admitted as usize);
    }
}

#[test]
fn an_outage_does_not_put_pushes_off_for_long() {
    let (mut pending, mut now) = (Pending::new(), Instant::now());
    admit_all(&mut pending, HOT, 0..LINE_MAX as u32, now);
    for number in 0..10 {
        send_all(&mut pending, now);
        let id = push(HOT, number).message.id;
        assert!(pending.answered(id, &HOT.parse().unwrap(), true, now).is_some());
        now += Duration::from_secs(60);
        if number == 5 {
            pending.stream_ended();
        }
    }
    for number in 1000..5000 {
        if let Err(Refused::LineFull(_, turn)) = pending.admit(push(HOT, number), now) {
            assert!(turn <= TURN_MAX, "{turn:?}");
        }
    }
}
