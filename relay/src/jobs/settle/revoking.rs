//! Revocations, which may take longer than their batch.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{Registration, RegistrationId, ports::Unavailable};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_xmpp::jid::FullJid;

use super::spared::{WITHIN, go_on, lock, within};

/// Longest time for which a revocation may be under way. The calls of a store end sooner by themselves.
pub(super) const REVOKED_WITHIN: Duration = Duration::from_secs(60);
/// Most registrations whose revocations are under way.
const REVOKING_MAX: usize = 1024;

/// The revocations of one registration that are under way.
#[derive(Debug)]
struct Revoking {
    /// The full JID that refused a push last.
    by: FullJid,
    asked_at: DateTime<Utc>,
    count: usize,
    /// True if one of them goes on after its batch.
    is_late: bool,
}

/// Revocations that are under way, each in a task of its own.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    of_registrations: Arc<Mutex<BTreeMap<RegistrationId, Revoking>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Revocations {
    /// Has a registration revoked, and what waits for it removed, within the time that a batch has. A revocation that
    /// takes longer goes on after it, and its push comes again; the others of its account are not waited for meanwhile.
    pub(super) async fn revoke<T: Send + 'static>(
        &self,
        registration: RegistrationId,
        by: &FullJid,
        asked_at: DateTime<Utc>,
        revoke: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let account = by.to_bare();
        let is_late = {
            let mut revoking = lock(&self.of_registrations);
            if revoking.len() >= REVOKING_MAX {
                return Err(Unavailable::new("too many revocations are under way"));
            }
            let new = Revoking { by: by.clone(), asked_at, count: 0, is_late: false };
            let own = revoking.entry(registration).or_insert(new);
            (own.by, own.asked_at) = (by.clone(), asked_at);
            own.count += 1;
            revoking.values().any(|one| one.is_late && one.by.to_bare() == account)
        };
        let (told, outcome) = oneshot::channel();
        let revoking = Arc::clone(&self.of_registrations);
        go_on(&self.tasks, async move {
            let outcome = within(REVOKED_WITHIN, revoke).await;
            let mut revoking = lock(&revoking);
            if let Some(own) = revoking.get_mut(&registration) {
                own.count -= 1;
            }
            revoking.retain(|_, own| own.count > 0);
            let _ = told.send(outcome);
        });
        let patience = if is_late { Duration::ZERO } else { WITHIN };
        match timeout(patience, outcome).await {
            Ok(outcome) => outcome.map_err(Unavailable::new)?,
            Err(late) => {
                if let Some(own) = lock(&self.of_registrations).get_mut(&registration) {
                    own.is_late = true;
                }
                Err(Unavailable::new(late))
            }
        }
    }

    /// Returns whether a revocation of this registration is under way: only a renewal that is written outlives it.
    pub(in super::super) fn is_revoking(&self, registration: RegistrationId) -> bool {
        lock(&self.of_registrations).contains_key(&registration)
    }

    /// Returns whether a revocation that is under way ends the life of this row.
    pub(in super::super) fn is_ending(&self, row: &Registration) -> bool {
        lock(&self.of_registrations)
            .get(&row.target.registration_id())
            .is_some_and(|own| own.by == row.target.recipient && row.renewed_at <= own.asked_at)
    }
}
