//! Ends one registration.

use anyhow::bail;
use chrono::{DateTime, Utc};
use push::ports::{Consistency, Mailbox, Registrations, Revocation};
use push::{Epoch, RegistrationId};

/// Most attempts to end a registration while its phone renews or moves it.
const ATTEMPTS_MAX: usize = 16;

/// Ends a registration, or only the life with this epoch, and removes its waiting pushes. Returns the number of those;
/// `None`: it does not live.
pub(super) async fn end<S: Registrations, M: Mailbox>(
    store: &S,
    mailbox: &M,
    id: RegistrationId,
    epoch: Option<Epoch>,
    now: DateTime<Utc>,
) -> anyhow::Result<Option<usize>> {
    for _ in 0..ATTEMPTS_MAX {
        let row = store.find(id, Consistency::Strong).await?;
        let is_meant = |life: Epoch| epoch.is_none_or(|epoch| epoch == life);
        let Some(row) = row.filter(|row| row.lives(now) && is_meant(row.epoch)) else { return Ok(None) };
        // The clock of the relay that has renewed it may be ahead.
        let asked_at = row.renewed_at.max(now);
        match store.revoke(id, row.epoch, &row.target.recipient, asked_at).await? {
            Revocation::GoesOn => {}
            Revocation::OverBefore => return Ok(None),
            Revocation::Revoked => {
                let account = row.target.recipient.to_bare();
                return Ok(Some(mailbox.clear(&account, id, row.epoch).await?));
            }
        }
    }
    bail!("registration {id} is renewed again and again: try it again")
}

/// Returns whether the registration, or the life with this epoch, lives.
pub(super) async fn lives<S: Registrations>(
    store: &S,
    id: RegistrationId,
    epoch: Option<Epoch>,
    now: DateTime<Utc>,
) -> anyhow::Result<bool> {
    let row = store.find(id, Consistency::Strong).await?;
    Ok(row.is_some_and(|row| row.lives(now) && epoch.is_none_or(|epoch| epoch == row.epoch)))
}
