use chrono::DateTime;
use push::testing;

use super::*;

fn push(number: u32) -> PushMessage {
    let registration = testing::registration("hot@example.com/phone", DateTime::UNIX_EPOCH);
    testing::push(number, &registration, DateTime::UNIX_EPOCH)
}

fn id(number: u32) -> MessageId {
    push(number).id
}

fn line(numbers: std::ops::Range<u32>) -> Line {
    let mut line = Line::default();
    numbers.for_each(|number| line.insert(&push(number)));
    line
}

/// Sends all pushes that may go, and returns them.
fn send_all(line: &mut Line, now: Instant) -> Vec<MessageId> {
    let mut sent = Vec::new();
    while line.may_send() {
        sent.extend(line.first());
        line.send_first(now);
    }
    sent
}

#[test]
fn the_window_grows_with_answers_and_silence_leaves_one_place() {
    let (mut line, now) = (line(0..100), Instant::now());
    assert_eq!(send_all(&mut line, now), (0..4).map(id).collect::<Vec<_>>());
    for number in 0..4 {
        let sent = line.land(id(number)).unwrap();
        line.note_answer(sent, now);
    }
    assert_eq!(send_all(&mut line, now).len(), IN_FLIGHT_PER_JID_MAX);
    line.narrow_to_one();
    let sent = line.land(id(5)).unwrap();
    assert!(line.is_window_full(), "the window is taken many times over");
    line.note_answer(sent, now);
    assert_eq!(line.window, IN_FLIGHT_PER_JID_INITIAL, "one answer reopens it");
}

#[test]
fn the_urgent_and_the_older_go_first_and_the_unread_before_all() {
    let (mut line, now) = (line(3..6), Instant::now());
    line.set_gate(Gate::Shut);
    (0..3).for_each(|number| line.insert(&push(number)));
    assert!(line.is_shut() && line.first().is_none());
    line.set_gate(Gate::UpTo(id(1)));
    assert_eq!(line.count_passing(9), 2);
    assert_eq!(send_all(&mut line, now), [id(0), id(1)]);
    let mut at_once = push(9);
    at_once.expires_at = at_once.accepted_at;
    line.insert(&at_once);
    assert_eq!(line.first(), Some(id(9)), "now or never waits for nothing");
    line.send_first(now);
    line.set_gate(Gate::Open);
    assert!(!line.is_shut());
    assert_eq!(send_all(&mut line, now), [id(2)], "the window is full");
}

#[test]
fn a_failure_holds_the_line_until_the_rest_is_answered() {
    let (mut line, now) = (line(0..10), Instant::now());
    send_all(&mut line, now);
    let fail = |line: &mut Line, number| {
        let sent = line.land(id(number)).unwrap();
        line.suspect(id(number), sent, number != 2);
    };
    fail(&mut line, 0);
    assert!(line.is_suspect() && !line.may_send() && line.conclude().is_none());
    let sent = line.land(id(1)).unwrap();
    line.note_answer(sent, now);
    fail(&mut line, 2);
    fail(&mut line, 3);
    let suspicion = line.conclude().unwrap();
    assert!(suspicion.proven, "it answered one of them");
    assert_eq!(suspicion.failed, [id(0), id(2), id(3)]);
    assert_eq!(suspicion.unanswered, [id(2)]);
    assert!(!line.is_suspect());
    assert_eq!(send_all(&mut line, now).len(), 6, "the line goes on");
    (4..10).for_each(|number| fail(&mut line, number));
    assert!(!line.conclude().unwrap().proven);
    assert!(line.is_idle());
}

#[test]
fn turns_come_in_order_and_about_when_there_is_room() {
    let (mut line, mut now) = (line(0..LINE_MAX as u32), Instant::now());
    // One answer each 10 ms: a line of 512 takes five seconds.
    for number in 0..100 {
        send_all(&mut line, now);
        now += Duration::from_millis(10);
        let sent = line.land(id(number)).unwrap();
        line.note_answer(sent, now);
    }
    let delays: Vec<_> = (0..100).map(|_| line.requeue_delay(now)).collect();
    assert!(delays.is_sorted_by(|one, next| one < next));
    assert!(delays[0] > Duration::from_secs(2) && delays[99] < Duration::from_secs(5), "{delays:?}");
    for _ in 0..5000 {
        assert!(line.requeue_delay(now) <= TURN_MAX);
    }
}

#[test]
fn silence_is_counted_from_the_sending() {
    let (mut line, now) = (line(0..10), Instant::now());
    send_all(&mut line, now);
    let later = now + Duration::from_secs(2);
    line.land(id(1));
    assert_eq!(line.silent_for(Duration::from_secs(2), now).count(), 0);
    let silent: Vec<_> = line.silent_for(Duration::from_secs(2), later).collect();
    assert_eq!(silent, [id(0), id(2), id(3)]);
}

#[test]
fn pushes_in_flight_are_no_longer_in_line() {
    let mut one = line(0..1);
    assert!(!one.is_empty());
    one.send_first(Instant::now());
    assert!(one.is_empty() && !one.is_idle());
    let mut full = line(0..LINE_MAX as u32);
    assert!(full.is_line_full());
    full.send_first(Instant::now());
    assert!(!full.is_line_full());
}

#[test]
fn a_pause_of_the_stream_counts_in_no_pace() {
    let (mut line, start) = (line(0..10), Instant::now());
    let (time, moment) = (Duration::from_secs(2), Duration::from_millis(1));
    send_all(&mut line, start);
    let sent = line.land(id(0)).unwrap();
    line.note_answer(sent, start);
    assert!(line.has_answered_within(time, start + time - moment));
    assert!(!line.has_answered_within(time, start + time));
    line.forget_pace();
    assert!(!line.has_answered_within(time, start));
    let sent = line.land(id(1)).unwrap();
    line.note_answer(sent, start + time);
    assert_eq!(line.answer_interval, ANSWER_INTERVAL_INITIAL);
}
