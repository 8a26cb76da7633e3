//! The registrations' store, and the lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Epoch, PushMessage, Registration, RegistrationId, Target,
    ports::{
        Account, Accounts, Consistency, Holder, Lease, Page, Registered, Registrant, Registrations,
        RelayRegistrations, Renewal, Revocation, SEEN_MAX, Seen, Tenure, Unavailable,
    },
};
use tokio::time::Instant;
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    calls::{Port, Shared, State},
    ledger::Life,
    places::{Place, Wish},
};

/// Time for which an eventually consistent read may miss a write.
const STALE_MAX: Duration = Duration::from_millis(900);

/// A row as it is now, and as it was before its last change.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) now: Registration,
    before: Option<Registration>,
    changed_at: Instant,
    /// Moment at which its application last registered.
    registered_at: Instant,
}

/// The content of the registrations' store.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<RegistrationId, Row>,
    seen: BTreeMap<BareJid, Vec<Seen>>,
    pub(crate) tenure: Option<Tenure>,
    /// Counts of each account's registrations, on DynamoDB.
    pub(crate) places: BTreeMap<BareJid, Place>,
    /// Number of registrations of each account that the count may miss: they were written long after their places were
    /// taken.
    pub(crate) uncounted: BTreeMap<BareJid, usize>,
}

impl Rows {
    pub(crate) fn row(&self, id: RegistrationId) -> Option<&Registration> {
        self.rows.get(&id).map(|row| &row.now)
    }

    /// Returns the row of a registration, if it was not written since this moment.
    pub(crate) fn unchanged_since(
        &self,
        id: RegistrationId,
        since: Duration,
        shared: &Shared,
    ) -> Option<&Registration> {
        let unchanged = |row: &&Row| row.changed_at.duration_since(shared.start) < since;
        self.rows.get(&id).filter(unchanged).map(|row| &row.now)
    }

    /// Returns the state of the life that a push is for. A life that ends within 5 s is over: clocks may differ by as
    /// much.
    pub(crate) fn life_of(&self, message: &PushMessage, wall: DateTime<Utc>) -> Life {
        let lives = self
            .row(message.registration)
            .is_some_and(|row| row.epoch == message.epoch && row.lives(wall + TimeDelta::seconds(5)));
        if lives { Life::Lives } else { Life::Over }
    }

    pub(crate) fn note_registered(&mut self, id: RegistrationId) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.registered_at = Instant::now();
        }
    }

    pub(crate) fn write(&mut self, row: Registration) {
        let id = row.target.registration_id();
        let before = self.rows.remove(&id);
        let registered_at = before.as_ref().map_or_else(Instant::now, |before| before.registered_at);
        let before = before.map(|before| before.now);
        self.rows.insert(id, Row { now: row, before, changed_at: Instant::now(), registered_at });
    }

    pub(crate) fn read(&self, id: RegistrationId, stale: bool) -> Option<Registration> {
        let row = self.rows.get(&id)?;
        let old = stale && row.changed_at.elapsed() < STALE_MAX;
        if old { row.before.clone() } else { Some(row.now.clone()) }
    }

    /// Returns the account of a registration that has a row.
    fn account_of(&self, id: RegistrationId) -> Option<BareJid> {
        self.row(id).map(|row| row.target.recipient.to_bare())
    }

    pub(crate) fn of_account(&self, account: &BareJid) -> impl Iterator<Item = &Registration> {
        self.rows.values().map(|row| &row.now).filter(move |row| row.target.recipient.to_bare() == *account)
    }
}

impl State {
    /// Fails if the row of a registration is locked.
    fn check_unlocked(&self, id: RegistrationId) -> Result<(), Unavailable> {
        let locked = self.locked.as_ref().filter(|(until, _)| Instant::now() < *until);
        let of_it = |row: &Registration| {
            locked.is_some_and(|(_, account)| row.target.recipient.to_bare() == *account)
        };
        if self.rows.row(id).is_some_and(of_it) {
            return Err(Unavailable::new("the simulated row is locked"));
        }
        Ok(())
    }
}

pub(crate) fn is_stale(state: &mut State, shared: &Shared, consistency: Consistency) -> bool {
    consistency == Consistency::Eventual && shared.is_cloud() && state.chance.percent(50)
}

impl Registrations for Port {
    async fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        self.call_store(
            "find",
            |state| state.rows.account_of(id).into_iter().collect(),
            move |state, shared| {
                let stale = is_stale(state, shared, consistency);
                state.check_unlocked(id)?;
                Ok(state.rows.read(id, stale))
            },
        )
        .await?
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        let first = ids.first().copied();
        self.call_store(
            "find_all",
            |state| first.and_then(|id| state.rows.account_of(id)).into_iter().collect(),
            move |state, shared| {
                let stale = is_stale(state, shared, consistency);
                ids.iter().try_for_each(|id| state.check_unlocked(*id))?;
                Ok(ids.into_iter().filter_map(|id| state.rows.read(id, stale)).collect())
            },
        )
        .await?
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> Result<Registered, Unavailable> {
        self.register_within(Wish { target, now, lifetime, renewal, account_max }).await
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        let (account, recipient) = (recipient.to_bare(), recipient.clone());
        self.call_store(
            "revoke",
            |_| vec![account],
            move |state, shared| {
                let Some(row) = state.rows.row(id) else { return Revocation::OverBefore };
                if row.epoch > epoch || row.epoch == epoch && row.revoked {
                    return Revocation::OverBefore;
                }
                if row.epoch != epoch || row.renewed_at > asked_at || row.target.recipient != recipient {
                    return Revocation::GoesOn;
                }
                let revoked = Registration { revoked: true, ..row.clone() };
                let registered = state.rows.rows[&id].registered_at.duration_since(shared.start);
                state.rows.write(revoked);
                state.ledger.check_revocation(id, &recipient, registered, shared.now());
                Revocation::Revoked
            },
        )
        .await
    }
}

impl RelayRegistrations for Port {
    async fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> Result<bool, Unavailable> {
        let (life, from, to) = (self.life, from.clone(), to.clone());
        self.call_store(
            "follow",
            |state| state.rows.account_of(id).into_iter().collect(),
            move |state, shared| {
                let row = state
                    .rows
                    .row(id)
                    .filter(|row| row.epoch == epoch && !row.revoked && row.target.recipient == from);
                let Some(mut row) = row.cloned() else { return false };
                state.ledger.check_follow((id, epoch), &to, life, shared.now());
                row.target.recipient = to;
                state.rows.write(row);
                true
            },
        )
        .await
    }

    async fn throttle(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        until: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        self.call_store(
            "throttle",
            |state| state.rows.account_of(id).into_iter().collect(),
            move |state, _| {
                if let Some(row) = state.rows.row(id).filter(|row| row.epoch == epoch) {
                    let row = Registration { throttled_until: Some(until), ..row.clone() };
                    state.rows.write(row);
                }
            },
        )
        .await
    }
}

impl Accounts for Port {
    async fn account(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Account, Unavailable> {
        let name = account.clone();
        self.call_store(
            "account",
            |_| vec![account.clone()],
            move |state, shared| {
                let stale = is_stale(state, shared, Consistency::Eventual);
                let ids: Vec<RegistrationId> =
                    state.rows.of_account(&name).map(|row| row.target.registration_id()).collect();
                let rows = ids.into_iter().filter_map(|id| state.rows.read(id, stale));
                Account {
                    registrations: rows.filter(|row| row.lives(now)).collect(),
                    seen: state.rows.seen.get(&name).cloned().unwrap_or_default(),
                }
            },
        )
        .await
    }

    async fn note_seen(
        &self,
        account: &BareJid,
        mut seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let name = account.clone();
        self.call_store(
            "note_seen",
            |_| vec![account.clone()],
            move |state, _| {
                if state.rows.of_account(&name).any(|row| row.lives(now)) {
                    seen.truncate(SEEN_MAX);
                    state.rows.seen.insert(name, seen);
                }
            },
        )
        .await
    }

    async fn living(
        &self,
        after: Option<Registrant>,
        max: usize,
        now: DateTime<Utc>,
    ) -> Result<Page<Registration>, Unavailable> {
        self.call_store(
            "living",
            |_| Vec::new(),
            move |state, _| {
                let name =
                    |row: &Registration| (row.target.recipient.to_bare(), row.target.registration_id());
                let living = state.rows.rows.values().map(|row| &row.now).filter(|row| row.lives(now));
                let all: BTreeMap<Registrant, &Registration> = living.map(|row| (name(row), row)).collect();
                let behind =
                    all.into_iter().filter(|(one, _)| after.as_ref().is_none_or(|after| one > after));
                let found: Vec<Registration> = behind.take(max).map(|(_, row)| row.clone()).collect();
                let next = found.last().filter(|_| found.len() >= max).map(name);
                (found, next)
            },
        )
        .await
    }
}

impl Lease for Port {
    async fn look(&self) -> Result<Option<Tenure>, Unavailable> {
        self.call("look", |state, _| state.rows.tenure).await
    }

    async fn take(&self, holder: Holder, seen: Option<Tenure>) -> Result<Option<Tenure>, Unavailable> {
        self.call("take", move |state, shared| {
            if state.rows.tenure != seen {
                return None;
            }
            if seen.and_then(|seen| seen.holder) != Some(holder) {
                state.ledger.note_trouble(shared.now());
            }
            let count = seen.map_or(0, |seen| seen.count) + 1;
            state.rows.tenure = Some(Tenure { holder: Some(holder), count });
            state.rows.tenure
        })
        .await
    }

    async fn release(&self, holder: Holder) -> Result<(), Unavailable> {
        self.call("release", move |state, _| {
            if let Some(tenure) = &mut state.rows.tenure
                && tenure.holder == Some(holder)
            {
                *tenure = Tenure { holder: None, count: tenure.count + 1 };
            }
        })
        .await
    }
}
