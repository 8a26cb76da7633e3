//! Reads a page of a mailbox.

use std::collections::BTreeMap;

use backon::Retryable;
use chrono::TimeDelta;
use push::{
    Registration, RegistrationId,
    ports::{Consistency, Mailbox, QueueReader, RelayRegistrations, Unavailable, Waiting},
    usage::Counts,
};

use super::{Jobs, count_over, is_of_life, settle::spared::Change};
use crate::{
    backoff::{backoff, report},
    delivery::reading::{Cue, PAGE_MAX, Page, ReadRequest},
};

/// Time for which a push that went out unanswered may still arrive by itself. XMPP servers keep a session that may be
/// resumed for less (10 min on Prosody, 5 min on ejabberd).
const RESUMPTION_MAX: TimeDelta = TimeDelta::minutes(15);

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    /// Reads on until there is a push for the reader, or the mailbox ends. Failed calls are repeated until they
    /// succeed: younger pushes wait behind these.
    pub(super) async fn read_page(&self, request: &ReadRequest) -> Page {
        let mut page = Page {
            reader: request.reader.clone(),
            reading: request.reading,
            pushes: Vec::new(),
            upto: request.after,
            left_out: false,
            end: false,
        };
        while !page.end && page.pushes.is_empty() {
            let before = page.clone();
            let read = || self.read_further(request, before.clone());
            match read.retry(backoff()).notify(report).await {
                Ok(read) => page = read,
                Err(_) => return Page { end: true, ..page },
            }
        }
        page
    }

    /// Reads the next page of the store. It may have nothing for this reader.
    async fn read_further(&self, request: &ReadRequest, mut page: Page) -> Result<Page, Unavailable> {
        let account = request.reader.to_bare();
        // The changes are taken before the store is read: one that is made in between shows in what is read.
        let put_off = self.spared.put_off_of(&account);
        let waiting = self.mailbox.waiting(&account, Some(&request.of), page.upto, PAGE_MAX).await?;
        page.end = waiting.len() < PAGE_MAX;
        page.upto = waiting.last().map_or(page.upto, |last| Some(last.message.id));
        if waiting.is_empty() {
            return Ok(page);
        }
        // Before the rows: one that takes long to come may have been renewed meanwhile.
        let clock = self.clock.read();
        let (now, least) = (clock.now, clock.least());
        let rows = self.rows(&waiting).await?;
        let mut over = Vec::new();
        for Waiting { mut message, asked_at } in waiting {
            let asked_at = match put_off.get(&message.id) {
                Some(Change::Remove) => continue,
                Some(Change::Asked(at)) => asked_at.max(Some(*at)),
                None => asked_at,
            };
            let row = rows.get(&message.registration).filter(|row| is_of_life(row, &message, least));
            let queued = || self.receipts.has(message.id);
            // An expired push that the queue has, too, goes to the core. The core ends it behind its settlement there,
            // and counts that once.
            let Some(row) = row.filter(|_| !message.is_expired(least) || queued()) else {
                over.push(message);
                continue;
            };
            // The phone would refuse the push once more. If the revocation fails, the push waits for the next presence.
            if self.revocations.is_ending(row) {
                page.left_out = true;
                continue;
            }
            // The XMPP server may still deliver the push.
            if request.cue == Cue::Guess && asked_at.is_some_and(|asked| now - asked < RESUMPTION_MAX) {
                page.left_out = true;
                continue;
            }
            message.recipient = row.target.recipient.clone();
            page.pushes.push(message);
        }
        if !over.is_empty() {
            let counts = over.iter().map(|message| {
                let expired = u64::from(message.is_expired(least));
                (message.id, self.tally(&account, Counts { expired, ..Counts::default() }))
            });
            let counts: BTreeMap<_, _> = counts.collect();
            let ids = over.iter().map(|message| (account.clone(), message.id)).collect();
            self.mailbox.remove_counted(ids, &counts).await?;
            // The counts are taken over after the removal: if it fails, the page is read again.
            counts.values().for_each(|counts| self.usage.take_over(counts));
            over.iter().for_each(|message| count_over(message, least));
        }
        Ok(page)
    }

    /// Reads the rows of the registrations that have pushes in a page. The reads are strongly consistent, so that a
    /// renewal that led to this reading shows.
    async fn rows(&self, waiting: &[Waiting]) -> Result<BTreeMap<RegistrationId, Registration>, Unavailable> {
        let ids = waiting.iter().map(|waiting| waiting.message.registration).collect();
        let rows = self.registrations.find_all(ids, Consistency::Strong).await?;
        Ok(rows.into_iter().map(|row| (row.target.registration_id(), row)).collect())
    }
}
