//! A model of the thread, with a set of rows as its disk. It compares the answers to senders with the disk.

use std::collections::BTreeSet;

use proptest::prelude::*;
use push::{
    RegistrationId,
    usage::{Counts, Slot},
};

use super::*;
use crate::{queue::tests::message, writer::waiting::PACE};

/// A step of the model.
#[derive(Debug, Clone)]
enum Step {
    /// This many pushes are sent together.
    Send(usize),
    /// The relay receives, and settles the pushes that it holds at these places.
    Settle(Vec<prop::sample::Index>),
    /// A commit begins.
    Begin,
    /// The commit under way succeeds or fails.
    End(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize).prop_map(Step::Send),
        3 => prop::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Step::Settle),
        2 => Just(Step::Begin),
        2 => prop::bool::weighted(0.8).prop_map(Step::End),
    ];
    prop::collection::vec(step, 1..60)
}

/// Returns the slot for one push. The hour is the `seq` of its row.
fn slot(seq: i64) -> Slot {
    Slot { hour: seq, tenant: "example.com".parse().unwrap(), domain: "example.com".into() }
}

/// A sending, and the answer to its sender.
struct Sent {
    rows: Vec<i64>,
    outcome: oneshot::Receiver<Answer>,
    answer: Option<bool>,
}

struct Model {
    desk: Desk,
    disk: BTreeSet<i64>,
    under_way: Option<Batch>,
    sent: Vec<Sent>,
    /// Rows that the relay holds.
    held: Vec<i64>,
    settled: BTreeSet<i64>,
    /// Settled pushes whose usage is on the disk.
    counted: BTreeSet<i64>,
    refused: BTreeSet<i64>,
    next: i64,
}

impl Model {
    fn new() -> Self {
        let known = Arc::new(Known::of([].into(), 0));
        // An earlier process left no rows.
        known.backlog.lock().is_read = true;
        Self {
            desk: Desk::of(known, 1),
            disk: BTreeSet::new(),
            under_way: None,
            sent: Vec::new(),
            held: Vec::new(),
            settled: BTreeSet::new(),
            counted: BTreeSet::new(),
            refused: BTreeSet::new(),
            next: 1,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send(count) => {
                let messages: Vec<_> = (0..count).map(|_| message(1)).collect();
                let ids: Vec<RegistrationId> = messages.iter().map(|push| push.registration).collect();
                self.desk.known.count(self.desk.known.reserve(ids, u64::MAX).unwrap());
                let rows = (self.next..).take(count).collect();
                self.next += count as i64;
                let outcome = self.desk.send(messages, None, DateTime::UNIX_EPOCH);
                self.sent.push(Sent { rows, outcome, answer: None });
            }
            Step::Settle(places) => {
                let fresh: Vec<_> = self.desk.known.backlog.lock().fresh.drain(..).collect();
                self.held.extend(fresh.into_iter().map(|delivery| delivery.receipt));
                let mut seqs = Vec::new();
                for place in places.into_iter().filter(|_| !self.held.is_empty()) {
                    // Some are settled twice.
                    seqs.push(*place.get(&self.held));
                }
                let new = seqs.iter().filter(|seq| self.settled.insert(**seq));
                let usage = new.map(|seq| (slot(*seq), Counts { accepted: 1, ..Counts::default() }));
                let usage = usage.collect();
                self.desk.settle(seqs, usage);
            }
            Step::Begin if self.under_way.is_none() => {
                self.under_way = Some(self.desk.waiting.lock().take());
            }
            Step::End(stands) => {
                if let Some(batch) = self.under_way.take() {
                    self.end(batch, stands);
                }
            }
            Step::Begin => {}
        }
        self.hear();
    }

    fn end(&mut self, batch: Batch, stands: bool) {
        let mut done = Done::default();
        let mut disk = self.disk.clone();
        for sending in &batch.sendings {
            disk.extend(sending.rows().map(|(seq, _)| seq));
            done.sent.push(Ok(()));
        }
        for deletion in &batch.deletions {
            let was_there = disk.remove(deletion);
            done.deleted.push(was_there.then(|| Some(message(1).registration)));
        }
        if stands {
            self.disk = disk;
            for (slot, counts) in &batch.usage {
                assert!(counts.accepted == 1 && self.counted.insert(slot.hour), "{slot:?} counts once");
            }
            let back: Vec<_> = self.counted.intersection(&self.disk).collect();
            assert!(back.is_empty(), "after a crash now, {back:?} would count once more");
        } else {
            self.refused.extend(batch.sendings.iter().flat_map(|sending| sending.rows().map(|(seq, _)| seq)));
        }
        let commit = if stands { Ok(()) } else { Err("the disk is full".to_owned()) };
        self.desk.conclude(batch, done, &commit);
    }

    /// Collects the answers to senders. Checks that each accepted push is on disk or settled.
    fn hear(&mut self) {
        let counted = self.desk.known.depth();
        assert!(
            counted >= self.disk.len() as u64,
            "a crash now would leave more than the {counted} that count"
        );
        for sent in &mut self.sent {
            if let Ok(answer) = sent.outcome.try_recv() {
                sent.answer = Some(answer.is_ok());
                if answer.is_ok() {
                    let lost: Vec<_> = sent
                        .rows
                        .iter()
                        .filter(|seq| !self.disk.contains(seq) && !self.settled.contains(seq))
                        .collect();
                    assert!(lost.is_empty(), "a crash now would lose {lost:?}");
                }
            }
        }
    }

    /// Commits all waiting writes.
    fn flush(&mut self) {
        for step in [Step::End(true), Step::Begin, Step::End(true)] {
            self.take(step);
        }
    }
}

proptest! {
    #[test]
    fn who_is_told_that_a_push_is_taken_has_it_on_disk_or_settled(steps in steps()) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.take(step));
        model.flush();
        prop_assert!(model.sent.iter().all(|sent| sent.answer.is_some()), "each sender is told");
        let all = 1..model.next;
        prop_assert_eq!(&model.counted, &model.settled, "each push that is settled counts");
        let left: BTreeSet<i64> =
            all.filter(|seq| !model.settled.contains(seq) && !model.refused.contains(seq)).collect();
        prop_assert_eq!(&model.disk, &left, "each push that is not settled has its row, and no other has");
        prop_assert_eq!(model.desk.known.depth(), left.len() as u64);
        let room = left.len() as u64 + 1;
        let one = || vec![message(1).registration];
        prop_assert!(model.desk.known.reserve(one(), room).is_some(), "what is gone counts no more");
        prop_assert!(left.is_empty() || model.desk.known.reserve(one(), room - 1).is_none());
    }

    #[test]
    fn nothing_is_written_of_a_push_that_is_settled_before_its_commit_begins(count in 1..5_usize) {
        let mut model = Model::new();
        model.take(Step::Begin);
        model.take(Step::Send(count));
        let fresh: Vec<_> = model.desk.known.backlog.lock().fresh.drain(..).collect();
        model.desk.settle(fresh.into_iter().map(|delivery| delivery.receipt).collect(), Usage::new());
        model.settled.extend(1..model.next);
        model.hear();
        prop_assert_eq!(model.sent[0].answer, Some(true), "the delivery is the answer");
        model.take(Step::End(true));
        let batch = model.desk.waiting.lock().take();
        prop_assert!(batch.sendings.is_empty() && batch.deletions.is_empty());
        prop_assert_eq!(model.desk.known.depth(), 0);
    }
}

#[test]
fn pushes_alone_wait_for_the_pace_while_others_are_settled_and_for_no_settlement() {
    let mut model = Model::new();
    model.take(Step::Send(1));
    let due = |model: &Model| model.desk.waiting.lock().due();
    let begun = |model: &Model| model.desk.waiting.lock().begun;
    assert_eq!(due(&model), Some(begun(&model)), "nobody settles: at once");
    model.take(Step::Settle(vec![]));
    model.desk.settle(vec![1], Usage::new());
    model.settled.insert(1);
    assert_eq!(due(&model), None, "nothing is left to write");
    model.take(Step::Send(1));
    assert_eq!(due(&model), Some(begun(&model) + PACE), "whatever the relay does");
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    model.desk.add(Haste::Now, Write { statements: Box::new(|_| Box::new(|_| ())), _room: permit });
    assert_eq!(due(&model), Some(begun(&model)), "somebody waits for another write");
}
