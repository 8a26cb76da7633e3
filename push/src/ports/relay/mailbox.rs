//! The mailboxes: pushes that wait for phones that are away.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use chrono::{DateTime, Utc};
use jid::BareJid;

use crate::ports::{Page, Registrant, Unavailable, Withdrawals};
use crate::{
    bounds::MailboxBounds,
    message::{MessageId, PushMessage},
    registration::{Epoch, RegistrationId},
    usage::{Drops, Tally},
};

/// A push that waits in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The push. Its `recipient` is the full JID that its registration named when it was accepted.
    pub message: PushMessage,
    /// The moment at which the push last went out unanswered, to the millisecond. Until the session that it went to has
    /// ended, the XMPP server may still hold the push, and deliver it by itself.
    pub asked_at: Option<DateTime<Utc>>,
}

/// The outcome of [`Mailbox::keep`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The pushes that a later one of the same topic replaced (RFC 8030 §5.4). The kept push itself is among them if it
    /// came late: then it does not wait.
    pub replaced: Vec<MessageId>,
    /// The oldest pushes, dropped because too many waited for the registration or the account. An account that is over
    /// its bound drops those of its fullest registration. The kept push itself may be among them.
    pub dropped: Vec<MessageId>,
}

/// The outcome of [`Mailbox::trim`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The pushes that were dropped.
    pub dropped: Vec<MessageId>,
    /// Number of pushes of the account that are left.
    pub left: usize,
}

/// The pushes that wait for phones that are away. Each account has one mailbox, which hands out pushes in the order of
/// their ids. Reads may return expired pushes.
///
/// A removal settles exactly the pushes that it names. Removing an absent push succeeds.
pub trait Mailbox: Withdrawals {
    /// Puts a push into the mailbox of its account. Returns once the push is durable. A push that waits already is
    /// overwritten. A registration keeps the newest push of each topic, and in all the newest ones up to its bound,
    /// whatever their urgency. An account keeps what [`MailboxBounds::beyond_account`] leaves. Pushes that had expired
    /// when this one was accepted do not count.
    fn keep(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
    ) -> impl Future<Output = Result<Kept, Unavailable>> + Send;

    /// Keeps likewise. A store that keeps usage takes the counts of what it drops, and makes them durable in the same
    /// step.
    fn keep_counted(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
        drops: &Drops,
    ) -> impl Future<Output = Result<Kept, Unavailable>> + Send {
        async move {
            let kept = self.keep(waiting, bounds).await?;
            drops.note(&kept.dropped);
            Ok(kept)
        }
    }

    /// Reads at most `max` pushes that wait for an account, in order, behind the place of `after` or from the
    /// beginning; those of the registrations `of`, or of all. Fewer than `max` mean that no more wait. The read shows
    /// every write that was durable before.
    fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Waiting>, Unavailable>> + Send;

    /// Reads one push that waits for an account.
    fn find(
        &self,
        account: &BareJid,
        message: MessageId,
    ) -> impl Future<Output = Result<Option<Waiting>, Unavailable>> + Send;

    /// Removes pushes, each from the mailbox of its account. Returns once the removal is durable.
    fn remove(
        &self,
        messages: Vec<(BareJid, MessageId)>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Removes likewise. A store that keeps usage takes the counts of each push that was there, and makes them durable
    /// in the same step.
    fn remove_counted(
        &self,
        messages: Vec<(BareJid, MessageId)>,
        counts: &BTreeMap<MessageId, Tally>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send {
        let _ = counts;
        self.remove(messages)
    }

    /// Notes when a waiting push last went out. Does nothing if the push no longer waits.
    fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Removes all pushes that wait for the lives of a registration up to this one. Returns their number.
    fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;

    /// Drops the pushes of an account beyond `max`, as [`MailboxBounds::beyond_account`] chooses them. Pushes that have
    /// expired at `now` do not count.
    fn trim(
        &self,
        account: &BareJid,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Trimmed, Unavailable>> + Send;

    /// Trims likewise. A store that keeps usage takes the counts of what it drops, and makes them durable in the same
    /// step.
    fn trim_counted(
        &self,
        account: &BareJid,
        max: usize,
        now: DateTime<Utc>,
        drops: &Drops,
    ) -> impl Future<Output = Result<Trimmed, Unavailable>> + Send {
        async move {
            let trimmed = self.trim(account, max, now).await?;
            drops.note(&trimmed.dropped);
            Ok(trimmed)
        }
    }

    /// Reads a page of the registrations that have pushes waiting, each once, with the number of its pushes: behind
    /// `after`, or from the beginning, in an order of the store's own. Registrations of an account come together. A
    /// page has at least `max` registrations, but for the last one, which says `None` instead of where to go on.
    ///
    /// For sweeps: pushes that are kept meanwhile may be missing.
    fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> impl Future<Output = Result<Page<(Registrant, usize)>, Unavailable>> + Send;
}
