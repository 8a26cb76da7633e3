//! The ledger: promises, their outcomes, and the violations of invariants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{MessageId, PushMessage, RegistrationId};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::sends::Sendings;

/// Largest difference between clocks.
pub(crate) const SKEW_MAX: TimeDelta = TimeDelta::seconds(5);

/// Another full JID is asked for a push that is unanswered for so long.
const SILENCE: Duration = Duration::from_secs(2);

/// Something that may not be has happened.
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
    /// When the relay got to know of it, if it did in good time.
    pub(crate) told: Option<Duration>,
}

/// One push.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) message: PushMessage,
    pub(crate) offered_at: Duration,
    /// When its sender got the 201.
    pub(crate) promised_at: Option<Duration>,
    pub(crate) shown: Vec<Shown>,
    /// To whom it was sent, and when.
    pub(crate) sent: Vec<(Duration, FullJid)>,
    /// It left the last place that is durable.
    pub(crate) gone_at: Option<Duration>,
}

impl Record {
    /// Returns whether it went out last because nobody had answered for a while, before the relay was `told` of an answer.
    fn was_asked_of_another(&self, told: Duration) -> bool {
        let [.., (before, _), (last, _)] = self.sent.as_slice() else { return false };
        *last <= told && *last - *before >= SILENCE
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) pushes: BTreeMap<MessageId, Record>,
    /// Those that are owed to somebody still.
    pub(crate) open: BTreeSet<MessageId>,
    /// Pushes that are in a store though their results were told, and when they were.
    pub(crate) leaving: BTreeMap<MessageId, Duration>,
    /// Pushes of which a write into the mailbox was given up.
    pub(crate) untold: BTreeSet<MessageId>,
    /// Which full JID refused which registration last, and when.
    pub(crate) refusals: BTreeMap<(RegistrationId, FullJid), Duration>,
    /// Pushes that a mailbox has dropped because it was full.
    pub(crate) dropped: BTreeSet<MessageId>,
    /// Since when all phones that hold a registration are there and answer.
    pub(crate) ready: BTreeMap<RegistrationId, Duration>,
    /// When something last happened to a phone that excuses second copies.
    pub(crate) unrest: BTreeMap<RegistrationId, Duration>,
    pub(crate) refused_tokens: BTreeSet<String>,
    /// Until when something was wrong that excuses delays and second copies.
    pub(crate) trouble_until: Duration,
    /// Until when a slow call may have held up what was done for other accounts.
    held_up_until: Duration,
    /// Accounts of slow calls, and until when those took.
    slow: BTreeMap<BareJid, Duration>,
    /// When a registration was last stored, and when it was last refused because its account was full.
    pub(crate) outcomes: BTreeMap<(RegistrationId, bool), Duration>,
    /// When the relay was told of requests to register.
    pub(crate) requests: BTreeMap<(FullJid, String), Duration>,
    /// Accounts whose rows could not be read, and until when that excuses delays.
    pub(crate) locked: BTreeMap<BareJid, Duration>,
    pub(crate) sendings: Sendings,
    pub(crate) violation: Option<Violation>,
}

/// The life of a push's registration, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Lives,
    Over,
}

impl Ledger {
    /// Notes a violation; the first one counts.
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

    /// Until when slow calls of an account excuse what is late for it.
    pub(crate) fn slow_until(&self, account: &BareJid) -> Duration {
        self.slow.get(account).copied().unwrap_or_default()
    }

    /// Until when something was wrong that excuses delays of an account, and second copies.
    pub(crate) fn excused_until(&self, account: &BareJid) -> Duration {
        self.trouble_until.max(self.held_up_until).max(self.slow_until(account))
    }

    /// An ingress is about to queue it.
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

    /// A later push of its topic was accepted, or may have been.
    pub(crate) fn is_replaced(&self, message: &PushMessage) -> bool {
        message.topic.is_some()
            && self.pushes.values().any(|other| {
                other.message.registration == message.registration
                    && other.message.topic == message.topic
                    && other.message.id.age() > message.id.age()
            })
    }

    /// Counts the promised pushes that were never shown, because they expired, were dropped, or were replaced.
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

    /// The push has left the queue and the mailbox.
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

    /// A registration, for which its application asked last at `registered`, was revoked because of what this full JID
    /// answered.
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

    /// A phone shows it.
    pub(crate) fn show(&mut self, id: MessageId, at: Duration) {
        let Some(account) = self.pushes.get(&id).map(|push| push.message.recipient.to_bare()) else { return };
        let trouble_until = self.excused_until(&account);
        let Some(push) = self.pushes.get_mut(&id) else { return };
        // A relay that was stopped short did not write whom it had asked.
        let asked_in_trouble = push.sent.iter().any(|(sent, _)| *sent <= trouble_until);
        let quiet_since = self.unrest.get(&push.message.registration).copied().unwrap_or_default();
        let needless = !asked_in_trouble
            && push.shown.iter().any(|shown| {
                shown.told.is_some_and(|told| {
                    told >= shown.at
                        && !push.was_asked_of_another(told)
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

    /// The server passed the result of it on to the relay.
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
