//! The trail beside a core whose part the test plays.

use std::sync::Arc;

use chrono::TimeDelta;
use push::{
    ports::{Kept, Trimmed},
    testing,
};

use super::*;
use crate::{
    delivery::{domains::Trim, fate::Origin},
    stream::stanza::{Answer, Condition},
};

const ALICE: &str = "alice@example.com/phone";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
}

/// Returns a push of one registration, which may wait for a minute.
fn push(number: u32) -> Arc<PushMessage> {
    Arc::new(testing::push(number, &testing::registration(ALICE, at(0)), at(0)))
}

fn tell(trail: &Trail, input: Input, actions: &[Action], second: i64) {
    let told = trail.note_input(&input, at(second));
    trail.note_actions(&told, actions, at(second));
}

fn received(trail: &Trail, push: &Arc<PushMessage>) {
    tell(trail, Input::Received(vec![Arc::clone(push)]), &[], 1);
}

fn answer(push: &PushMessage, error: Option<Condition>) -> Input {
    Input::Stanza(Incoming::Answer(Answer { from: ALICE.parse().unwrap(), id: push.id.to_string(), error }))
}

fn settle(fate: Fate) -> Action {
    Action::Start(Job::Settle(vec![fate]))
}

fn keep(push: &Arc<PushMessage>, asked_at: Option<DateTime<Utc>>) -> Fate {
    let target = push.recipient.clone();
    Fate::Keep { message: Arc::clone(push), target, asked_at, untried: asked_at.is_none() }
}

fn done(push: &Arc<PushMessage>) -> Fate {
    Fate::Done(Held { origin: Origin::Queue, message: Arc::clone(push) })
}

fn waits(push: &Arc<PushMessage>, kept: Kept) -> Note {
    let kept = Some(kept);
    Note::Waits { message: Arc::clone(push), recipient: push.recipient.clone(), untried: false, kept }
}

fn outcome(trail: &Trail, push: &PushMessage) -> (Outcome, i64) {
    let trace = trail.find(push.id).unwrap();
    (trace.outcome, trace.at.timestamp())
}

#[test]
fn a_push_that_is_acknowledged_was_delivered_then() {
    let (trail, one) = (Trail::default(), push(1));
    received(&trail, &one);
    assert_eq!(outcome(&trail, &one), (Outcome::Held, 1));
    let delivered = Action::Count(Measure::Delivered(TimeDelta::seconds(3)));
    tell(&trail, answer(&one, None), &[delivered, settle(done(&one))], 3);
    assert_eq!(outcome(&trail, &one), (Outcome::Delivered, 3));
    // A copy of it that comes later is settled without a word.
    tell(&trail, Input::Received(vec![Arc::clone(&one)]), &[settle(done(&one))], 70);
    assert_eq!(outcome(&trail, &one), (Outcome::Delivered, 3));
}

#[test]
fn an_answer_that_the_core_does_not_count_says_nothing() {
    let (trail, one) = (Trail::default(), push(1));
    received(&trail, &one);
    tell(&trail, answer(&one, None), &[], 3);
    tell(&trail, answer(&one, Some(Condition::Other)), &[], 3);
    let trace = trail.find(one.id).unwrap();
    assert_eq!((trace.outcome, trace.failures), (Outcome::Held, 0));
}

#[test]
fn a_push_that_failed_waits_and_is_delivered_late() {
    let (trail, one) = (Trail::default(), push(1));
    received(&trail, &one);
    let actions = [Action::Count(Measure::Retried), settle(keep(&one, Some(at(2))))];
    tell(&trail, answer(&one, Some(Condition::Other)), &actions, 4);
    assert_eq!(outcome(&trail, &one).0, Outcome::Held, "not durable yet");
    tell(&trail, Input::Settled(vec![waits(&one, Kept::default())]), &[], 5);
    let trace = trail.find(one.id).unwrap();
    assert_eq!((trace.outcome, trace.failures, trace.unanswered_at), (Outcome::Waits, 1, Some(at(2))));
    let late = Note::Late {
        account: one.recipient.to_bare(),
        id: one.id,
        accepted_at: one.accepted_at,
        expired: false,
    };
    tell(&trail, Input::Settled(vec![late]), &[], 9);
    assert_eq!(outcome(&trail, &one), (Outcome::Delivered, 9));
}

#[test]
fn what_is_over_before_it_was_delivered_says_why() {
    let trail = Trail::default();
    let pushes: Vec<_> = (1..=6).map(push).collect();
    pushes.iter().for_each(|push| received(&trail, push));
    let [expired, replaced, dropped, trimmed, ended, last] = &pushes[..] else { panic!("six") };
    tell(&trail, Input::Tick, &[settle(done(expired))], 61);
    let kept = Kept { replaced: vec![replaced.id], dropped: vec![dropped.id] };
    let trim = Trim { account: last.recipient.to_bare(), max: 1 };
    let trimmed_by = Trimmed { dropped: vec![trimmed.id], left: 1 };
    tell(&trail, Input::Settled(vec![waits(last, kept), Note::Trimmed(trim, trimmed_by)]), &[], 7);
    let over = Note::Ended {
        account: ended.recipient.to_bare(),
        registration: ended.registration,
        epoch: ended.epoch,
        waited: 1,
    };
    tell(&trail, Input::Settled(vec![over]), &[], 8);
    let outcomes: Vec<_> = pushes.iter().map(|push| outcome(&trail, push)).collect();
    use Outcome::{Dropped, Ended, Expired, Replaced};
    assert_eq!(
        outcomes,
        [(Expired, 61), (Replaced, 7), (Dropped, 7), (Dropped, 7), (Ended, 8), (Ended, 8)],
        "what waited for the registration ended with it"
    );
    let words: Vec<_> = outcomes.iter().map(|(outcome, _)| outcome.as_str()).collect();
    assert_eq!(words[..4], ["expired", "replaced", "dropped", "dropped"]);
}

#[test]
fn the_oldest_is_forgotten_and_the_last_of_a_registration_comes_first() {
    let trail = Trail::default();
    for number in 0..=TRACES_MAX as u32 {
        received(&trail, &push(number));
    }
    assert!(trail.find(push(0).id).is_none() && trail.find(push(1).id).is_some());
    let last = trail.of_registration(push(0).registration, 2);
    let ids: Vec<_> = last.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [push(TRACES_MAX as u32).id, push(TRACES_MAX as u32 - 1).id]);
    assert_eq!(trail.of_registration(RegistrationId::from_bytes([9; 16]), 2), []);
}
