//! The queue behaves as SQLite, or as SQS, which may deliver a push twice and in any order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use push::{
    MessageId, PushMessage,
    ports::{Delivery, NotQueued, QueueReader, QueueWriter, Settlement, Unavailable},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    calls::{Port, Shared, State},
    pipe::Life,
};

/// Most time that a receive waits for a push.
const POLL: Duration = Duration::from_secs(20);
/// Most time, in milliseconds, for which an entry stays hidden on SQS if its process has ended or lost the lease, or if
/// the answer of the receive was lost.
const HIDDEN_MAX_MILLIS: u64 = 60_000;

#[derive(Debug)]
struct Entry {
    message: PushMessage,
    visible_at: Instant,
    /// The life of a process that has taken the entry.
    held_by: Option<Life>,
    /// True if a receive has returned the entry to that process.
    returned: bool,
    /// Number of receives that took the entry.
    receives: u32,
}

/// The content of the queue.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    entries: BTreeMap<u64, Entry>,
    last: u64,
}

impl Entries {
    pub(crate) fn holds(&self, id: MessageId) -> bool {
        self.entries.values().any(|entry| entry.message.id == id)
    }

    pub(crate) fn is_held_by(&self, id: MessageId, life: Life) -> bool {
        self.entries.values().any(|entry| entry.message.id == id && entry.held_by == Some(life))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.entries.values().map(|entry| entry.message.id)
    }

    fn add(&mut self, message: PushMessage, visible_at: Instant) {
        self.last += 1;
        self.entries
            .insert(self.last, Entry { message, visible_at, held_by: None, returned: false, receives: 0 });
    }

    fn next_at(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| entry.held_by.is_none()).map(|entry| entry.visible_at).min()
    }
}

impl State {
    fn send(&mut self, shared: &Shared, message: PushMessage) {
        let now = Instant::now();
        if shared.is_cloud() && self.chance.percent(2) {
            let later = self.chance.millis(0, 60_000);
            self.ledger.note_trouble(shared.now() + later + Duration::from_secs(60));
            self.entries.add(message.clone(), now + later);
        }
        let late = if shared.is_cloud() { self.chance.millis(0, 50) } else { Duration::ZERO };
        self.entries.add(message, now + late);
        shared.queued.notify_waiters();
    }

    fn take_entries(&mut self, life: Life, max: usize, cloud: bool) -> Vec<u64> {
        let now = Instant::now();
        let due = self
            .entries
            .entries
            .iter()
            .filter(|(_, entry)| entry.held_by.is_none() && entry.visible_at <= now);
        let mut due: Vec<u64> = due.map(|(key, _)| *key).collect();
        if cloud {
            for at in (1..due.len()).rev() {
                due.swap(at, self.chance.below(at + 1));
            }
        }
        due.truncate(max);
        for key in &due {
            if let Some(entry) = self.entries.entries.get_mut(key) {
                (entry.held_by, entry.returned) = (Some(life), false);
                entry.receives += 1;
            }
        }
        due
    }

    /// Gives back the pushes that a life of a process has taken: `all` of them, or those that no receive has returned.
    pub(crate) fn give_back(&mut self, life: Life, all: bool, shared: &Shared) {
        let now = Instant::now();
        let cloud = shared.is_cloud();
        for entry in self.entries.entries.values_mut() {
            if entry.held_by == Some(life) && (all || !entry.returned) {
                let hidden =
                    if all && cloud { self.chance.millis(0, HIDDEN_MAX_MILLIS) } else { Duration::ZERO };
                (entry.held_by, entry.visible_at) = (None, now + hidden);
                self.ledger.note_trouble(shared.now() + hidden);
            }
        }
        shared.queued.notify_waiters();
    }

    fn settle_entry(&mut self, settlement: &Settlement<u64>, shared: &Shared, life: Life) {
        match settlement {
            Settlement::Delete(key) => {
                if let Some(entry) = self.entries.entries.remove(key) {
                    self.note_left(&entry.message, shared);
                }
            }
            Settlement::Postpone(key, at) => {
                let wait = (*at - shared.wall_of(life.process)).to_std().unwrap_or_default();
                if let Some(entry) = self.entries.entries.get_mut(key) {
                    (entry.held_by, entry.visible_at) = (None, Instant::now() + wait);
                }
            }
        }
    }

    /// Notes that a push has left the queue or the mailbox. If neither has it now, it has left the stores.
    pub(crate) fn note_left(&mut self, message: &PushMessage, shared: &Shared) {
        let id = message.id;
        if !self.entries.holds(id) && !self.mailboxes.holds(&message.recipient.to_bare(), id) {
            let wall = shared.wall();
            let life = self.rows.life_of(message, wall);
            self.ledger.leave(id, life, shared.now(), wall);
        }
    }
}

impl QueueWriter for Port {
    async fn send(&self, message: PushMessage) -> Result<(), NotQueued> {
        Ok(self.call("send", move |state, shared| state.send(shared, message)).await?)
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), NotQueued> {
        self.call("send_all", move |state, shared| {
            messages.into_iter().for_each(|message| state.send(shared, message));
        })
        .await?;
        Ok(())
    }
}

impl QueueReader for Port {
    type Receipt = u64;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<u64>>, Unavailable> {
        let until = Instant::now() + POLL;
        loop {
            let queued = self.shared.queued.notified();
            let next = {
                let state = self.shared.lock();
                state.entries.next_at()
            };
            if next.is_some_and(|next| next <= Instant::now()) || Instant::now() >= until {
                break;
            }
            tokio::select! {
                biased;
                () = queued => {}
                () = sleep_until(next.map_or(until, |next| next.min(until))) => {}
            }
        }
        if self.shared.is_cloud() {
            let late = self.shared.lock().chance.millis(1, 30);
            sleep(late).await;
        }
        let life = self.life;
        let taken =
            self.call("receive", move |state, shared| state.take_entries(life, max, shared.is_cloud())).await;
        let mut state = self.shared.lock();
        let Ok(taken) = taken else {
            // The queue may have given out pushes though the answer is lost.
            state.give_back_lost(life, &self.shared);
            return Err(Unavailable::new("the simulated queue does not answer"));
        };
        let mut deliveries = Vec::new();
        for key in taken {
            if let Some(entry) =
                state.entries.entries.get_mut(&key).filter(|entry| entry.held_by == Some(life))
            {
                entry.returned = true;
                deliveries.push(Delivery {
                    receipt: key,
                    is_first: entry.receives == 1,
                    message: Arc::new(entry.message.clone()),
                });
            }
        }
        Ok(deliveries)
    }

    async fn settle(&self, settlements: Vec<Settlement<u64>>) -> Result<(), Unavailable> {
        let life = self.life;
        self.call("settle", move |state, shared| {
            settlements.iter().for_each(|settlement| state.settle_entry(settlement, shared, life));
            shared.queued.notify_waiters();
        })
        .await
    }

    async fn close(&self) {
        let mut state = self.shared.lock();
        state.give_back(self.life, false, &self.shared);
    }
}

impl State {
    fn give_back_lost(&mut self, life: Life, shared: &Shared) {
        let now = Instant::now();
        for entry in self.entries.entries.values_mut() {
            if entry.held_by == Some(life) && !entry.returned {
                let hidden =
                    if shared.is_cloud() { self.chance.millis(0, HIDDEN_MAX_MILLIS) } else { Duration::ZERO };
                (entry.held_by, entry.visible_at) = (None, now + hidden);
                self.ledger.note_trouble(shared.now() + hidden);
            }
        }
    }
}
