//! Begins registrations within the bound of their account, and renews them, as the stores do. Checks the bound, and the
//! answers to phones.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Registration, RegistrationId, Target,
    bounds::registrations_counted,
    ports::{Consistency, Registered, Renewal, Unavailable},
};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    calls::{Port, Shared, State},
    ledger::{Ledger, SKEW_MAX},
    store::is_stale,
};

/// Most attempts while others write the same row.
const ATTEMPTS_MAX: usize = 8;
/// Shortest time between a change of the count and a new count (aws/src/registrations/accounts.rs).
const COUNT_INTERVAL: TimeDelta = TimeDelta::seconds(10);

/// The count of an account's registrations, as DynamoDB has it. It is raised before the row is written, and not lowered
/// when a registration ends. At the bound it is made anew from the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    count: usize,
    changed_at: DateTime<Utc>,
}

/// A request to register.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) target: Target,
    pub(crate) now: DateTime<Utc>,
    pub(crate) lifetime: TimeDelta,
    pub(crate) renewal: Renewal,
    pub(crate) account_max: usize,
}

/// The outcome of the first step of a request.
enum Step {
    Done(Registered),
    /// The registration begins, in place of this row.
    Begins(Option<Registration>),
}

/// The outcome of a request to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Stored,
    Full,
}

impl Port {
    /// Registers as the stores do: SQLite in one transaction, DynamoDB by taking a place and then writing the row.
    pub(crate) async fn register_within(&self, wish: Wish) -> Result<Registered, Unavailable> {
        let account = wish.target.recipient.to_bare();
        let accounts = |_: &State| vec![account.clone()];
        for _ in 0..ATTEMPTS_MAX {
            let (step, since) = (wish.clone(), self.shared.wall());
            let look = move |state: &mut State, shared: &Shared| state.look_at(step, shared);
            let current = match self.call_store("register", accounts, look).await? {
                Step::Done(registered) => return Ok(registered),
                Step::Begins(current) => current,
            };
            let step = wish.clone();
            let begin = move |state: &mut State, shared: &Shared| {
                let id = step.target.registration_id();
                let unchanged = state.rows.row(id) == current.as_ref();
                unchanged.then(|| {
                    // A count that was made meanwhile may miss it.
                    if shared.wall() - since > COUNT_INTERVAL - SKEW_MAX {
                        *state.rows.uncounted.entry(step.target.recipient.to_bare()).or_default() += 1;
                    }
                    state.begin(&step, shared)
                })
            };
            if let Some(begun) = self.call_store("begin", accounts, begin).await? {
                return Ok(begun);
            }
        }
        Err(Unavailable::new("others keep changing this registration"))
    }
}

impl State {
    /// Renews a registration that lives, or lets one begin if its account has room.
    fn look_at(&mut self, wish: Wish, shared: &Shared) -> Step {
        let Wish { ref target, now, lifetime, renewal, account_max: max } = wish;
        let (id, account) = (target.registration_id(), target.recipient.to_bare());
        self.rows.note_registered(id);
        let current = self.rows.row(id).cloned();
        if let Some(row) = current.as_ref().filter(|row| row.lives(now)) {
            // Of two renewals, the later stands.
            let stands = row.target.vapid == target.vapid && row.renewed_at > now
                || renewal == Renewal::WhereNeeded && !row.needs_renewal(target, now, lifetime);
            let next = if stands {
                row.clone()
            } else {
                Registration::renew(Some(row), target.clone(), now, lifetime)
            };
            if !stands {
                self.rows.write(next.clone());
            }
            self.note_outcome(id, Asked::Stored, shared);
            return Step::Done(Registered::Stored(next));
        }
        let has_room = if shared.is_cloud() {
            self.take_place(&account, now, max, shared)
        } else {
            self.counted(&account, now, max) < max
        };
        if !has_room {
            self.check_full(id, &account, now, shared);
            self.note_outcome(id, Asked::Full, shared);
            return Step::Done(Registered::AccountFull);
        }
        if shared.is_cloud() { Step::Begins(current) } else { Step::Done(self.begin(&wish, shared)) }
    }

    fn begin(&mut self, wish: &Wish, shared: &Shared) -> Registered {
        let Wish { target, now, lifetime, .. } = wish;
        let id = target.registration_id();
        let next = Registration::renew(self.rows.row(id), target.clone(), *now, *lifetime);
        self.rows.write(next.clone());
        self.rows.note_registered(id);
        self.note_outcome(id, Asked::Stored, shared);
        self.check_registrations(&target.recipient.to_bare(), shared);
        Registered::Begun(next)
    }

    fn counted(&self, account: &BareJid, moment: DateTime<Utc>, max: usize) -> usize {
        let living = self.rows.of_account(account).filter(|row| row.lives(moment)).count();
        registrations_counted(living, self.rows.of_account(account).count(), max)
    }

    /// Raises the count of an account. `false`: by the count, the account has as many registrations as it may.
    fn take_place(&mut self, account: &BareJid, now: DateTime<Utc>, max: usize, shared: &Shared) -> bool {
        let place = self.rows.places.get_mut(account);
        if let Some(place) = place {
            if place.count < max {
                (place.count, place.changed_at) = (place.count + 1, now);
                return true;
            }
            if (now - place.changed_at).abs() < COUNT_INTERVAL {
                return false;
            }
        }
        let stale = is_stale(self, shared, Consistency::Eventual);
        let ids: Vec<RegistrationId> =
            self.rows.of_account(account).map(|row| row.target.registration_id()).collect();
        let rows: Vec<Registration> = ids.into_iter().filter_map(|id| self.rows.read(id, stale)).collect();
        let living = rows.iter().filter(|row| row.lives(now)).count();
        let count = registrations_counted(living, rows.len(), max);
        let has_room = count < max;
        let place = Place { count: count + usize::from(has_room), changed_at: now };
        self.rows.places.insert(account.clone(), place);
        has_room
    }

    fn note_outcome(&mut self, id: RegistrationId, asked: Asked, shared: &Shared) {
        self.ledger.outcomes.insert((id, asked == Asked::Full), shared.now());
    }

    /// Checks that the account of a refused registration was full, by the count or by a clock that may be wrong.
    fn check_full(&mut self, id: RegistrationId, account: &BareJid, now: DateTime<Utc>, shared: &Shared) {
        let max = shared.plan.registrations_max;
        let moment = now.min(shared.wall()) - SKEW_MAX;
        let place = self.rows.places.get(account).filter(|_| shared.is_cloud());
        let full = self.counted(account, moment, max) >= max || place.is_some_and(|place| place.count >= max);
        if !full {
            let detail = format!("{id} of {account}, which has room");
            self.ledger.violate("only a full account is refused a registration", shared.now(), detail);
        }
    }

    /// Checks that an account has no more registrations than it may. Those that live by every clock count.
    fn check_registrations(&mut self, account: &BareJid, shared: &Shared) {
        let moment = shared.wall() + SKEW_MAX;
        let living = self.rows.of_account(account).filter(|row| row.lives(moment)).count();
        let uncounted = self.rows.uncounted.get(account).copied().unwrap_or_default();
        if living > shared.plan.registrations_max + uncounted {
            let detail = format!("{account} has {living}");
            self.ledger.violate("no account has more registrations than it may", shared.now(), detail);
        }
    }
}

impl Ledger {
    /// Notes that a phone's request to register has come to the server.
    pub(crate) fn note_request(&mut self, from: FullJid, id: String, at: Duration) {
        self.requests.insert((from, id), at);
    }

    /// Checks an answer that comes to a phone: since the request, the store has stored or refused the registration.
    pub(crate) fn check_answer(
        &mut self,
        (from, request): (FullJid, &str),
        id: RegistrationId,
        asked: Asked,
        at: Duration,
    ) {
        let Some(since) = self.requests.get(&(from, request.to_owned())) else { return };
        let answered = self.outcomes.get(&(id, asked == Asked::Full)).is_some_and(|told| told >= since);
        if !answered {
            let detail = format!("{id} is told {asked:?}");
            self.violate("a registration is answered as it was stored", at, detail);
        }
    }
}
