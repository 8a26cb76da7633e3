//! The ledger has the pushes that were promised, their outcomes, and the first violation of an invariant.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{MessageId, PushMessage, RegistrationId};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::sends::Sendings;

/// Difference between clocks that the invariants allow for. A plan draws up to 4 s.
pub(crate) const SKEW_MAX: TimeDelta = TimeDelta::seconds(5);

/// Time after which another full JID is asked to take an unanswered push.
const SILENCE: Duration = Duration::from_secs(2);

/// A violation of an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// The moment of the simulated time.
    pub at: Duration,
    /// The violation, in words.
    pub detail: String,
}

/// A push on a phone's screen.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) at: Duration,
    /// Moment at which the relay was told of it, if that was within 1.5 s.
    pub(crate) told: Option<Duration>,
}

/// A push, and what has become of it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) message: PushMessage,
    pub(crate) offered_at: Duration,
    /// Moment at which its sender got the 201.
    pub(crate) promised_at: Option<Duration>,
    pub(crate) shown: Vec<Shown>,
    /// Full JIDs that it was sent to, each with the moment, in order.
    pub(crate) sent: Vec<(Duration, FullJid)>,
    /// Moment at which it left the last of the stores.
    pub(crate) gone_at: Option<Duration>,
}

impl Record {
    /// Returns whether it last went out after a silence, and before the relay was `told` of an answer.
    fn went_out_again(&self, told: Duration) -> bool {
        let [.., (before, _), (last, _)] = self.sent.as_slice() else { return false };
        *last <= told && *last - *before >= SILENCE
    }
}

/// The ledger of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) pushes: BTreeMap<MessageId, Record>,
    /// Accepted pushes that are still owed to a phone.
    pub(crate) open: BTreeSet<MessageId>,
    /// Pushes that are still in a store though the relay was told of their results, each with that moment.
    pub(crate) leaving: BTreeMap<MessageId, Duration>,
    /// Pushes of which the relay has given up a write into the mailbox.
    pub(crate) untold: BTreeSet<MessageId>,
    /// Moments at which a full JID last refused a push of a registration.
    pub(crate) refusals: BTreeMap<(RegistrationId, FullJid), Duration>,
    /// Pushes that a mailbox has dropped because it was full, or that were withdrawn.
    pub(crate) dropped: BTreeSet<MessageId>,
    /// Moments since which all phones that hold a registration are there and answer.
    pub(crate) ready: BTreeMap<RegistrationId, Duration>,
    /// Moments at which something last happened to a phone of a registration. It excuses second copies of pushes shown
    /// before.
    pub(crate) unrest: BTreeMap<RegistrationId, Duration>,
    pub(crate) refused_tokens: BTreeSet<String>,
    /// End of the last trouble that excuses delays and second copies.
    pub(crate) trouble_until: Duration,
    /// End of the time in which slow calls may have held up the work for other accounts.
    held_up_until: Duration,
    /// Accounts of slow calls, each with the end of these calls.
    slow: BTreeMap<BareJid, Duration>,
    /// Moments at which a registration was last stored (`false`), or refused because its account was full (`true`).
    pub(crate) outcomes: BTreeMap<(RegistrationId, bool), Duration>,
    /// Moments at which requests to register came to the server, by full JID and id of the IQ.
    pub(crate) requests: BTreeMap<(FullJid, String), Duration>,
    /// Accounts whose rows could not be read, each with the end of the time in which that excuses delays.
    pub(crate) locked: BTreeMap<BareJid, Duration>,
    pub(crate) sendings: Sendings,
    pub(crate) violation: Option<Violation>,
}

/// The state of the life that a push is for, by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Lives,
    Over,
}

impl Ledger {
    /// Notes a violation. Only the first one is kept.
    pub(crate) fn violate(&mut self, invariant: &'static str, at: Duration, detail: String) {
        self.violation.get_or_insert(Violation { invariant, at, detail });
    }

    pub(crate) fn note_trouble(&mut self, until: Duration) {
        self.trouble_until = self.trouble_until.max(until);
    }

    pub(crate) fn note_held_up(&mut self, until: Duration) {
        self.held_up_until = self.held_up_until.max(until);
    }

    pub(crate) fn note_slow(&mut self, account: BareJid, until: Duration) {
        let noted = self.slow.entry(account).or_default();
        *noted = (*noted).max(until);
    }

    /// Notes a relay that stops. Its end waits for the calls that it has made.
    pub(crate) fn note_stop(&mut self, until: Duration) {
        let slow = self.slow.values().max().copied().unwrap_or_default();
        self.note_trouble(until.max(slow));
    }

    /// Returns the end of the time in which slow calls of an account excuse its delays.
    pub(crate) fn slow_until(&self, account: &BareJid) -> Duration {
        self.slow.get(account).copied().unwrap_or_default()
    }

    /// Returns the end of the last trouble that excuses delays of an account, and second copies.
    pub(crate) fn excused_until(&self, account: &BareJid) -> Duration {
        self.trouble_until.max(self.held_up_until).max(self.slow_until(account))
    }

    /// Notes a push that the ingress is about to queue.
    pub(crate) fn offer(&mut self, message: PushMessage, at: Duration) {
        let id = message.id;
        let record = Record {
            message,
            offered_at: at,
            promised_at: None,
            shown: Vec::new(),
            sent: Vec::new(),
            gone_at: None,
        };
        self.pushes.insert(id, record);
    }

    pub(crate) fn promise(&mut self, id: MessageId, at: Duration) {
        if let Some(push) = self.pushes.get_mut(&id) {
            push.promised_at = Some(at);
            if push.shown.is_empty() && push.gone_at.is_none() {
                self.open.insert(id);
            }
        }
    }

    /// Returns whether a later push of its topic was accepted, or may have been.
    pub(crate) fn is_replaced(&self, message: &PushMessage) -> bool {
        message.topic.is_some()
            && self.pushes.values().any(|other| {
                other.message.registration == message.registration
                    && other.message.topic == message.topic
                    && other.message.id.age() > message.id.age()
            })
    }

    /// Counts the promised pushes that were never shown: those that have expired, were dropped or withdrawn, or were
    /// replaced.
    pub(crate) fn ends(&self, wall: DateTime<Utc>) -> [usize; 3] {
        let mut ends = [0; 3];
        for (id, push) in &self.pushes {
            if push.promised_at.is_some() && push.shown.is_empty() {
                ends[0] += usize::from(push.message.is_expired(wall));
                ends[1] += usize::from(self.dropped.contains(id));
                ends[2] += usize::from(self.is_replaced(&push.message));
            }
        }
        ends
    }

    /// Notes that a push has left the queue and the mailbox, and checks that it had a reason.
    pub(crate) fn leave(&mut self, id: MessageId, life: Life, at: Duration, wall: DateTime<Utc>) {
        let Some(push) = self.pushes.get(&id) else { return };
        let message = push.message.clone();
        let fine = push.promised_at.is_none()
            || !push.shown.is_empty()
            || message.is_immediate()
            || message.is_expired(wall + SKEW_MAX)
            || life == Life::Over
            || self.dropped.contains(&id)
            || self.is_replaced(&message);
        if !fine {
            self.violate(
                "nothing is lost",
                at,
                format!("{id} for {} left the stores undelivered", message.recipient),
            );
        }
        if fine
            && self.open.contains(&id)
            && life == Life::Lives
            && !self.dropped.contains(&id)
            && !self.is_replaced(&message)
        {
            if message.is_immediate() {
                self.check_immediate(id, at);
            } else {
                self.check_expiry(id, at);
            }
        }
        if let Some(push) = self.pushes.get_mut(&id) {
            push.gone_at = Some(at);
        }
        self.open.remove(&id);
        self.leaving.remove(&id);
    }

    /// Checks that this full JID has refused a registration that was revoked for its answer, and that the application
    /// has not registered since. Its last request was at `registered`.
    pub(crate) fn check_revocation(
        &mut self,
        id: RegistrationId,
        by: &FullJid,
        registered: Duration,
        at: Duration,
    ) {
        let refused = self.refusals.get(&(id, by.clone()));
        if refused.is_none_or(|refused| *refused < registered) {
            self.violate("only the application ends its registration", at, format!("{id} by {by}"));
        }
    }

    /// Notes that a phone shows a push, and checks that a second copy has a cause.
    pub(crate) fn show(&mut self, id: MessageId, at: Duration) {
        let Some(account) = self.pushes.get(&id).map(|push| push.message.recipient.to_bare()) else { return };
        let trouble_until = self.excused_until(&account);
        let Some(push) = self.pushes.get_mut(&id) else { return };
        // A relay that was stopped short may not have written that it had sent the push.
        let asked_in_trouble = push.sent.iter().any(|(sent, _)| *sent <= trouble_until);
        let quiet_since = self.unrest.get(&push.message.registration).copied().unwrap_or_default();
        let needless = !asked_in_trouble
            && push.shown.iter().any(|shown| {
                shown.told.is_some_and(|told| {
                    told >= shown.at
                        && !push.went_out_again(told)
                        && shown.at > quiet_since
                        && shown.at > trouble_until
                        && !self.sendings.has_ended(&push.sent, told)
                })
            });
        push.shown.push(Shown { at, told: None });
        self.open.remove(&id);
        if needless {
            self.violate("no second copy without a cause", at, id.to_string());
        }
    }

    pub(crate) fn registration_of(&self, id: MessageId) -> Option<RegistrationId> {
        self.pushes.get(&id).map(|push| push.message.registration)
    }

    /// Notes that the relay was told of the result of a push.
    pub(crate) fn tell(&mut self, id: MessageId, at: Duration) {
        if let Some(push) = self.pushes.get_mut(&id) {
            for shown in &mut push.shown {
                if at - shown.at < Duration::from_millis(1500) {
                    shown.told.get_or_insert(at);
                }
            }
        }
    }
}
