//! Finds the registrations for which something waits, and counts all that live.

use backon::Retryable;
use metrics::counter;
use push::{
    Epoch, Registration, RegistrationId,
    ports::{Consistency, Mailbox, Page, QueueReader, Registrant, RelayRegistrations, Unavailable},
};
use tokio_xmpp::jid::{BareJid, FullJid};

use super::{
    Jobs,
    settle::spared::{WITHIN, within},
};
use crate::{
    backoff::{backoff, report},
    delivery::core::Found,
    measures::REVOKED,
    mutants::{Mutant, mutant},
};

/// Most repeated readings of a row before the sweep goes on without it. Further rows of its account are read once, so
/// that one account holds up no other.
const ROW_RETRIES_MAX: usize = 3;
/// Most registrations in one step of a sweep.
const PAGE_MAX: usize = 256;
/// Most registrations in one step of a count, and most repeated readings before the count is left for later.
const COUNTED_MAX: usize = 1024;
const COUNT_RETRIES_MAX: usize = 5;

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    /// Reads the next registrations for which something waits.
    pub(super) async fn sweep(&self, after: Option<Registrant>) -> Found {
        let page = || self.mailbox.recipients(after.clone(), PAGE_MAX);
        let (recipients, next) = page.retry(backoff()).notify(report).await.unwrap_or_default();
        let mut found = Found { next, ..Found::default() };
        let mut told: Vec<FullJid> = Vec::new();
        let mut in_trouble = None;
        for ((account, registration), pushes) in recipients {
            let living = || self.living(&account, registration);
            let retries = if in_trouble.as_ref() == Some(&account) { 0 } else { ROW_RETRIES_MAX };
            let living = living.retry(backoff().with_max_times(retries)).notify(report).await;
            if living.is_err() {
                in_trouble = Some(account.clone());
            }
            if living.is_err() && mutant(Mutant::SweepEndsAtError) {
                return Found { next: None, ..found };
            }
            let pushes = if let Ok(None) = living { 0 } else { pushes };
            // Registrations of one account come one after the other.
            match found.waiting.last_mut() {
                Some((last, waiting)) if *last == account => *waiting += pushes,
                _ => {
                    found.waiting.push((account, pushes));
                    told.clear();
                }
            }
            if let Ok(Some(row)) = living
                && !told.contains(&row.target.recipient)
            {
                told.push(row.target.recipient.clone());
                found.rows.push(row);
            }
        }
        found
    }

    /// Reads the next registrations that live, and where to go on; `None`: the store does not answer.
    pub(super) async fn count_living(&self, after: Option<Registrant>) -> Option<Page<Registration>> {
        let page = || self.registrations.living(after.clone(), COUNTED_MAX, self.clock.now());
        page.retry(backoff().with_max_times(COUNT_RETRIES_MAX)).notify(report).await.ok()
    }

    /// Reads the row of a registration for which something waits. If its life is over, what waits is removed.
    async fn living(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Option<Registration>, Unavailable> {
        // Before the row: one that takes long to come may have been renewed meanwhile.
        let now = self.clock.read().least();
        let row = within(WITHIN, self.registrations.find(registration, Consistency::Strong)).await?;
        // A row that is absent was kept for longer than any push may wait.
        let over = match &row {
            Some(row) if row.lives(now) => return Ok(Some(row.clone())),
            Some(row) => row.epoch,
            None => Epoch::MAX,
        };
        let removed = self.mailbox.clear(account, registration, over).await?;
        counter!(REVOKED).increment(removed as u64);
        Ok(None)
    }
}
