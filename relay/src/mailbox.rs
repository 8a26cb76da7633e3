//! The relay's side of the mailboxes: reads what waits for whoever may be there, and sweeps over all who have
//! something waiting.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use backon::Retryable;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, stream};
use metrics::counter;
use push::{
    MessageId, PushMessage, Registration, RegistrationId,
    ports::{Consistency, Mailbox, Recipient, Registrations, Unavailable, Waiting},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    clock,
    consume::{backoff, report},
    measures::{EXPIRED, REVOKED},
    reach::{Cue, Knowledge, Progress, ReadRequest},
};

/// Most pushes that are read at once for one recipient.
pub(crate) const PAGE_MAX: usize = 16;
/// Most mailboxes that are read at the same moment.
const READERS_MAX: usize = 32;
/// Longer than XMPP servers keep a session that may be resumed (10 min on Prosody, 5 on ejabberd): until then, what
/// went out unanswered may still arrive by itself.
const RESUMPTION_MAX: TimeDelta = TimeDelta::minutes(15);
/// How often all who have something waiting are tried: those who send no presence are found by this alone.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Recipients tried by a sweep: one each 10 ms.
const SWEEP_PACE: Duration = Duration::from_millis(10);
/// How often a sweep tries once more to read a row.
const ROW_RETRIES_MAX: usize = 3;
/// Recipients that a sweep looks up at once.
const SWEEP_PAGE_MAX: usize = 256;

/// What was read of a mailbox for one recipient.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) recipient: FullJid,
    /// Of which reading it is a part.
    pub(crate) reading: u64,
    /// They name this recipient.
    pub(crate) pushes: Vec<PushMessage>,
    pub(crate) progress: Progress,
    /// Nothing more waits behind it.
    pub(crate) end: bool,
}

/// The mailboxes, and who the registrations say that their pushes are for.
#[derive(Clone)]
pub(crate) struct Postbox<R, M> {
    pub(crate) registrations: R,
    pub(crate) mailbox: M,
}

impl<R: Registrations, M: Mailbox> Postbox<R, M> {
    /// Reads what is asked for, until nobody asks any more.
    pub(crate) async fn read_all(self, requests: mpsc::Receiver<ReadRequest>, pages: mpsc::Sender<Page>) {
        let requests =
            stream::unfold(requests, async |mut requests| Some((requests.recv().await?, requests)));
        let reading = requests.for_each_concurrent(READERS_MAX, |request| {
            let (postbox, pages) = (self.clone(), pages.clone());
            async move {
                let read = || postbox.read(&request);
                // Retried until it succeeds: what came since waits behind it.
                if let Ok(page) = read.retry(backoff()).notify(report).await {
                    // Nobody waits for it when the relay stops.
                    let _ = pages.send(page).await;
                }
            }
        });
        tokio::select! {
            () = reading => {}
            () = pages.closed() => {}
        }
    }

    /// The next page that has something for the recipient, or the end.
    async fn read(&self, request: &ReadRequest) -> Result<Page, Unavailable> {
        let account = request.recipient.to_bare();
        let mut rows = HashMap::new();
        let (mut pushes, mut progress, mut end) = (Vec::new(), request.progress.clone(), false);
        while !end && pushes.is_empty() {
            let waiting = self.mailbox.waiting(&account, None, progress.upto, PAGE_MAX).await?;
            end = waiting.len() < PAGE_MAX;
            progress.upto = waiting.last().map_or(progress.upto, |last| Some(last.message.id));
            let now = clock::now();
            let mut over = Vec::new();
            for Waiting { mut message, asked_at } in waiting {
                let row = self.row(&mut rows, message.registration).await?;
                let Some(row) = row.filter(|row| waits_for(row, &message, now)) else {
                    count_over(&message, now);
                    over.push((account.clone(), message.id));
                    continue;
                };
                if row.target.recipient != request.recipient {
                    progress.passed_over.insert(message.registration);
                }
                if progress.passed_over.contains(&message.registration) {
                    continue;
                }
                // The XMPP server may still deliver it.
                if request.cue == Cue::Guess && asked_at.is_some_and(|asked| now - asked < RESUMPTION_MAX) {
                    progress.left_out = Knowledge::Away;
                    continue;
                }
                message.recipient = row.target.recipient.clone();
                pushes.push(message);
            }
            self.remove(over).await?;
        }
        Ok(Page { recipient: request.recipient.clone(), reading: request.reading, pushes, progress, end })
    }

    /// The row of a registration, read once for each page. A renewal that brought us here shows.
    async fn row<'a>(
        &self,
        rows: &'a mut HashMap<RegistrationId, Option<Registration>>,
        id: RegistrationId,
    ) -> Result<Option<&'a Registration>, Unavailable> {
        let row = match rows.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.registrations.find(id, Consistency::Strong).await?),
        };
        Ok(row.as_ref())
    }

    /// Removes what has expired, and what waits for a life that is over.
    async fn remove(&self, over: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        if over.is_empty() {
            return Ok(());
        }
        self.mailbox.remove(over).await
    }

    /// Sweeps whenever a stream comes up, and every now and then; each recipient found is a guess.
    pub(crate) async fn sweep_all(
        self,
        mut online: watch::Receiver<u64>,
        guesses: mpsc::Sender<FullJid>,
        stop: CancellationToken,
    ) {
        let sweeping = async {
            loop {
                let stream = *online.borrow_and_update();
                if stream > 0 {
                    tokio::select! {
                        () = self.sweep(&guesses) => {}
                        // The next stream begins anew.
                        _ = online.changed() => continue,
                    }
                }
                if let Ok(Err(_)) = timeout(SWEEP_INTERVAL, online.changed()).await {
                    return;
                }
            }
        };
        stop.run_until_cancelled(sweeping).await;
    }

    async fn sweep(&self, guesses: &mpsc::Sender<FullJid>) {
        let mut pace = interval(SWEEP_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after: Option<Recipient> = None;
        let mut told: (Option<BareJid>, Vec<FullJid>) = (None, Vec::new());
        loop {
            let page = || self.mailbox.recipients(after.clone(), SWEEP_PAGE_MAX);
            let Ok((found, next)) = page.retry(backoff()).notify(report).await else { return };
            for (account, registration) in found {
                let living = || self.living(&account, registration);
                let living = living.retry(backoff().with_max_times(ROW_RETRIES_MAX)).notify(report).await;
                // A row that cannot be read holds up no other.
                let Ok(Some(row)) = living else { continue };
                // Those of one account come together; each of its full JIDs is tried once.
                if told.0.as_ref() != Some(&account) {
                    told = (Some(account), Vec::new());
                }
                let recipient = row.target.recipient;
                if !told.1.contains(&recipient) {
                    told.1.push(recipient.clone());
                    pace.tick().await;
                    if guesses.send(recipient).await.is_err() {
                        return;
                    }
                }
            }
            let Some(next) = next else { return };
            after = Some(next);
        }
    }

    /// The row of a registration for which something waits; if that is over, what waits is removed.
    async fn living(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Option<Registration>, Unavailable> {
        let row = self.registrations.find(registration, Consistency::Strong).await?;
        let Some(row) = row else {
            // Its row is kept for longer than anything may wait.
            let removed = self.mailbox.clear(account, registration, push::Epoch::MAX).await?;
            counter!(REVOKED).increment(removed as u64);
            return Ok(None);
        };
        if row.lives(clock::now()) {
            return Ok(Some(row));
        }
        let removed = self.mailbox.clear(account, registration, row.epoch).await?;
        counter!(REVOKED).increment(removed as u64);
        Ok(None)
    }
}

/// Counts a push that ends undelivered: by its own time, or with the life of its registration.
pub(crate) fn count_over(message: &PushMessage, now: DateTime<Utc>) {
    counter!(if message.is_expired(now) { EXPIRED } else { REVOKED }).increment(1);
}

/// Whether a push may still be delivered under this row.
pub(crate) fn waits_for(row: &Registration, message: &PushMessage, now: DateTime<Utc>) -> bool {
    row.epoch == message.epoch && row.lives(now) && !message.is_expired(now)
}
