//! Pushes whose rows are not written yet.
//!
//! A push is handed to the relay while its row waits for the commit before to end. If it is settled before its own
//! commit begins, the row is never written, and the settlement answers the sender. Once its commit has begun, the
//! commit answers, and a later commit deletes the row.
//!
//! **A sender is told that its push is taken once the push is settled or its row is on disk.** No row waits for a
//! settlement: a commit takes all rows that are here when it begins.

use std::{collections::VecDeque, sync::Arc};

use push::{PushMessage, RegistrationId, ports::Unavailable};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The answer to the sender of pushes.
pub(crate) type Answer = Result<(), Unavailable>;

/// A row to be written.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) message: Arc<PushMessage>,
    /// True if the relay has the push already, and may settle it.
    pub(crate) is_handed_on: bool,
}

/// Pushes that were sent together. Their rows are written all or none.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The `seq` of the first row; the others follow.
    first: i64,
    /// The rows; `None`: the push was settled.
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

    /// Returns the rows to be written, each with its `seq`.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (i64, &Row)> {
        (self.first..).zip(&self.rows).filter_map(|(seq, row)| Some((seq, row.as_ref()?)))
    }

    /// Answers the sender, which may have given up.
    pub(crate) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }

    fn is_settled(&self) -> bool {
        self.rows.iter().all(Option::is_none)
    }
}

/// Pushes whose rows wait for a commit to begin.
#[derive(Default)]
pub(crate) struct Unwritten {
    /// In the order of `seq`.
    sendings: VecDeque<Sending>,
}

impl Unwritten {
    /// Adds pushes at the end.
    pub(crate) fn add(&mut self, sending: Sending) {
        self.sendings.push_back(sending);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sendings.is_empty()
    }

    /// Drops the row of a settled push, and returns its registration. Answers the sender when all pushes of its sending
    /// are settled. `None`: the push is not here; its commit may have begun.
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

    /// Takes all rows, for a commit that begins now.
    pub(crate) fn take(&mut self) -> Vec<Sending> {
        std::mem::take(&mut self.sendings).into()
    }
}
