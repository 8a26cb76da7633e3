//! Pushes whose rows are not written yet.
//!
//! A push is handed to the relay while its row waits for the commit before. Where it is settled before the commit of
//! its own row begins, the row is never written: the settlement stands for it, and the sender gets its answer by
//! that. Once the commit has begun, the commit answers, and the settlement deletes the row in a later one.
//!
//! **A push is answered well because it was settled or because its row is on disk.** Nothing here waits for a
//! settlement: when a commit begins, every row that is here goes with it.

use std::{collections::VecDeque, sync::Arc};

use push::{PushMessage, RegistrationId, ports::Unavailable};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The answer to the sender of pushes.
pub(crate) type Answer = Result<(), Unavailable>;

/// A row that is to be written.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) message: Arc<PushMessage>,
    /// The relay has the push already, and may settle it.
    pub(crate) is_handed_on: bool,
}

/// Pushes that were sent together: their rows are written all or none.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The number of the first row; the others follow.
    first: i64,
    /// `None`: it was settled.
    rows: Vec<Option<Row>>,
    answer: oneshot::Sender<Answer>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Sending {
    pub(crate) fn new(
        first: i64,
        rows: Vec<Row>,
        answer: oneshot::Sender<Answer>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { first, rows: rows.into_iter().map(Some).collect(), answer, _room: room }
    }

    /// The rows that are to be written, and what they are called.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (i64, &Row)> {
        (self.first..).zip(&self.rows).filter_map(|(seq, row)| Some((seq, row.as_ref()?)))
    }

    /// Tells the sender. It may have run out of time; what was done stands all the same.
    pub(crate) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }

    fn is_settled(&self) -> bool {
        self.rows.iter().all(Option::is_none)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Unwritten {
    /// In the order of their rows' names.
    sendings: VecDeque<Sending>,
}

impl Unwritten {
    /// Adds pushes behind all others.
    pub(crate) fn add(&mut self, sending: Sending) {
        self.sendings.push_back(sending);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sendings.is_empty()
    }

    /// Drops the row of a push that is settled, and answers its sender when no other of its rows is left; whose push
    /// it was. `None`: its commit has begun, or it is none of these.
    pub(crate) fn settle(&mut self, seq: i64) -> Option<RegistrationId> {
        let behind = self.sendings.partition_point(|sending| sending.first <= seq);
        let place = behind.checked_sub(1)?;
        let sending = &mut self.sendings[place];
        let row = usize::try_from(seq - sending.first).ok()?;
        let row = sending.rows.get_mut(row)?.take()?;
        if sending.is_settled()
            && let Some(sending) = self.sendings.remove(place)
        {
            sending.answer(Ok(()));
        }
        Some(row.message.registration)
    }

    /// All that is left, for a commit that begins now.
    pub(crate) fn take(&mut self) -> Vec<Sending> {
        std::mem::take(&mut self.sendings).into()
    }
}
