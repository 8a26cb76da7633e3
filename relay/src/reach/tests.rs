//! What is known of recipients: each rule on its own.

use push::Urgency;

use super::*;

fn jid(number: usize) -> FullJid {
    format!("user{number}@example.com/phone").parse().unwrap()
}

fn id(number: u8) -> MessageId {
    MessageId::new(Urgency::Normal, chrono::DateTime::UNIX_EPOCH, [number; MessageId::CHANCE_BYTES])
}

/// The page that is asked for has come, and ends with this push.
fn read(reach: &mut Reach, request: &ReadRequest, upto: Option<MessageId>) -> bool {
    let progress = Progress { upto, ..request.progress.clone() };
    reach.page_read(&request.recipient, request.reading, progress)
}

/// Reads a mailbox that is empty from here on.
fn read_to_the_end(reach: &mut Reach, request: &ReadRequest) -> Option<Knowledge> {
    assert!(read(reach, request, None));
    reach.finish_reading(&request.recipient)
}

#[test]
fn what_was_read_to_its_end_is_known_to_be_empty() {
    let mut reach = Reach::new();
    assert_eq!(reach.known(&jid(1)), None);
    assert!(reach.cue(&jid(1), Cue::Guess));
    let first = reach.begin().unwrap();
    assert_eq!((&first.recipient, first.cue, first.progress.upto), (&jid(1), Cue::Guess, None));
    assert!(read(&mut reach, &first, Some(id(7))));
    let second = reach.read_on(&jid(1)).unwrap();
    assert_eq!(second.progress.upto, Some(id(7)));
    assert_eq!(reach.read_on(&jid(1)), None, "one page at a time");
    assert_eq!(read_to_the_end(&mut reach, &second), Some(Knowledge::Nothing));
    assert_eq!(reach.known(&jid(1)), Some(Knowledge::Nothing));
    assert!(!reach.has_answered(&jid(1)), "there is nothing to read");
}

#[test]
fn a_page_of_a_reading_that_was_given_up_counts_for_no_other() {
    let mut reach = Reach::new();
    reach.cue(&jid(1), Cue::Guess);
    let given_up = reach.begin().unwrap();
    reach.is_away(&jid(1), Instant::now());
    reach.cue(&jid(1), Cue::There);
    let current = reach.begin().unwrap();
    assert!(!read(&mut reach, &given_up, Some(id(9))));
    assert_eq!(current.progress.upto, None);
    assert!(read(&mut reach, &current, Some(id(1))));
}

#[test]
fn what_is_kept_while_it_is_read_has_it_read_once_more() {
    let mut reach = Reach::new();
    reach.cue(&jid(1), Cue::Guess);
    let first = reach.begin().unwrap();
    reach.cue(&jid(1), Cue::Guess);
    assert_eq!(reach.begin(), None, "first to its end");
    assert_eq!(read_to_the_end(&mut reach, &first), None);
    assert!(reach.is_reading(&jid(1)));
    let again = reach.begin().unwrap();
    assert_eq!(read_to_the_end(&mut reach, &again), Some(Knowledge::Nothing));
}

#[test]
fn who_says_that_it_is_there_has_its_mailbox_read_from_the_beginning_at_once() {
    let mut reach = Reach::new();
    reach.cue(&jid(1), Cue::Guess);
    let guessed = reach.begin().unwrap();
    assert!(read(&mut reach, &guessed, Some(id(7))));
    let guessed = reach.read_on(&jid(1)).unwrap();
    reach.cue(&jid(1), Cue::There);
    let anew = reach.begin().unwrap();
    assert_eq!((anew.cue, &anew.progress), (Cue::There, &Progress::default()));
    assert!(!read(&mut reach, &guessed, Some(id(8))), "what it passed over comes first");
    assert_eq!(read_to_the_end(&mut reach, &anew), Some(Knowledge::Nothing));
}

#[test]
fn pages_that_are_wanted_no_more_take_the_place_of_readings_until_they_come() {
    let mut reach = Reach::new();
    let abandoned: Vec<ReadRequest> = (0..READING_MAX)
        .map(|number| {
            reach.cue(&jid(number), Cue::Guess);
            let request = reach.begin().unwrap();
            reach.stop_reading(&jid(number));
            request
        })
        .collect();
    reach.cue(&jid(0), Cue::There);
    assert_eq!(reach.begin(), None);
    assert!(!read(&mut reach, &abandoned[0], None));
    assert!(reach.begin().is_some());
}

#[test]
fn what_is_left_out_leaves_its_recipient_away() {
    let mut reach = Reach::new();
    reach.cue(&jid(1), Cue::Guess);
    let request = reach.begin().unwrap();
    let progress = Progress { left_out: Knowledge::Away, ..Progress::default() };
    assert!(reach.page_read(&jid(1), request.reading, progress));
    assert_eq!(reach.finish_reading(&jid(1)), Some(Knowledge::Away));
    reach.something_waits(&jid(1));
    assert_eq!(reach.known(&jid(1)), Some(Knowledge::Away));
    assert!(reach.has_answered(&jid(1)));
}

#[test]
fn only_so_many_mailboxes_are_read_at_a_time_and_cued() {
    let mut reach = Reach::new();
    for number in 0..CUED_MAX {
        assert!(reach.cue(&jid(number), Cue::Guess));
    }
    assert!(!reach.cue(&jid(CUED_MAX), Cue::There), "a sweep finds it");
    assert!(reach.cue(&jid(0), Cue::There), "it is cued already");
    let begun: Vec<ReadRequest> = std::iter::from_fn(|| reach.begin()).collect();
    assert_eq!(begun.len(), READING_MAX);
    read_to_the_end(&mut reach, &begun[0]);
    assert!(reach.begin().is_some() && reach.begin().is_none());
}

#[test]
fn who_is_away_is_tried_ever_later() {
    let (mut reach, mut now) = (Reach::new(), Instant::now());
    reach.is_away(&jid(1), now);
    let mut delays = Vec::new();
    let mut waited = 0;
    while delays.len() < 9 {
        now += Duration::from_secs(1);
        waited += 1;
        if reach.due(now) == [jid(1)] {
            delays.push(waited);
            waited = 0;
            assert!(!reach.is_put_off(&jid(1), now));
            // All that waits is read and sent before it fails again.
            reach.cue(&jid(1), Cue::Guess);
            let request = reach.begin().unwrap();
            read_to_the_end(&mut reach, &request);
            reach.is_away(&jid(1), now);
            assert!(reach.is_put_off(&jid(1), now));
        }
    }
    assert_eq!(delays, [2, 4, 8, 16, 32, 64, 128, 600, 600]);
    reach.retry_soon(&jid(1));
    assert_eq!(reach.due(now + RETRY_DELAY_MIN), [jid(1)], "for something new");
    assert!(reach.due(now + FAILURES_APART_MAX).is_empty());
    assert!(reach.retries.is_empty(), "forgotten");
}

#[test]
fn what_it_refuses_is_put_off_while_it_answers_others() {
    let (mut reach, now) = (Reach::new(), Instant::now());
    reach.refuses(&jid(1), &[id(1), id(2)], now);
    reach.has_answered(&jid(1));
    assert!(reach.is_refused(&jid(1), id(1)) && !reach.is_refused(&jid(1), id(3)));
    assert_eq!(reach.due(now + RETRY_DELAY_MIN), [jid(1)]);
    assert!(!reach.is_refused(&jid(1), id(1)), "its time has come");
    assert_eq!(reach.known(&jid(1)), Some(Knowledge::Something), "and it is read");
    reach.has_answered(&jid(1));
    reach.refuses(&jid(1), &[id(1)], now + RETRY_DELAY_MIN);
    assert!(reach.due(now + 2 * RETRY_DELAY_MIN).is_empty(), "then for longer");

    reach.refuses(&jid(1), &[id(1)], now);
    reach.is_back(&jid(1));
    assert!(!reach.is_refused(&jid(1), id(1)), "another session, another answer");
}

#[test]
fn what_is_known_is_bounded_and_the_older_half_is_forgotten_first() {
    let mut reach = Reach::new();
    for number in 0..2 * KNOWN_MAX {
        reach.learn(&jid(number), Knowledge::Nothing);
    }
    reach.learn(&jid(usize::MAX), Knowledge::Nothing);
    assert_eq!(reach.known(&jid(0)), None);
    assert_eq!(reach.known(&jid(2 * KNOWN_MAX - 1)), Some(Knowledge::Nothing));
    assert!(reach.known.iter().map(HashMap::len).sum::<usize>() <= 2 * KNOWN_MAX);
}

#[test]
fn ids_of_late_are_bounded() {
    let mut lately = Lately::new(2);
    assert_eq!([1, 1, 2, 3].map(|id| lately.note(id)), [true, false, true, true]);
    assert!(!lately.contains(&1) && lately.contains(&2) && lately.contains(&3));
}
