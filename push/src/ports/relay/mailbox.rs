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
    /// When it last went out without an answer: until the session that it went to has ended, the XMPP server
    /// may still hold it, and deliver it by itself. In milliseconds.
    pub asked_at: Option<DateTime<Utc>>,
}

/// The outcome of [`Mailbox::keep`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The pushes that a later one of the same topic replaced (RFC 8030 §5.4). It may be the push itself, that came late: then
    /// it does not wait.
    pub replaced: Vec<MessageId>,
    /// The oldest ones, dropped because too many waited for the registration or the account: then of the account's
    /// fullest registration. It may be the push itself.
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

/// The pushes that wait for phones that are away: one mailbox for each account, from which pushes are handed out in
/// the order of their ids. Expired pushes may still be found in it.
///
/// A removal settles exactly the pushes that it names. Removing an absent push succeeds.
pub trait Mailbox: Withdrawals {
    /// Puts a push into the mailbox of its account; returns once it is durable. One that waits already is
    /// overwritten. Of one registration, the newest of each topic stays, and no more than the newest in all,
    /// whatever their urgency; of an account, no more than [`MailboxBounds::beyond_account`] leaves. Pushes that had
    /// expired when this one was accepted do not count.
    fn keep(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
    ) -> impl Future<Output = Result<Kept, Unavailable>> + Send;

    /// The same; a store that keeps usage takes the counts of what it drops, and makes them durable in the same step.
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

    /// Pushes that wait for an account behind the place of `after` or from the beginning, in order, at most `max` of
    /// them; of these registrations alone, or of all. Fewer than `max` mean that no more are there. It shows every
    /// write that was durable before.
    fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Waiting>, Unavailable>> + Send;

    /// One push that waits for an account.
    fn find(
        &self,
        account: &BareJid,
        message: MessageId,
    ) -> impl Future<Output = Result<Option<Waiting>, Unavailable>> + Send;

    /// Removes pushes, each from the mailbox of its account; returns once that is durable.
    fn remove(
        &self,
        messages: Vec<(BareJid, MessageId)>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The same; a store that keeps usage takes the counts of these pushes, and makes them durable in the same step: of
    /// each push that was there.
    fn remove_counted(
        &self,
        messages: Vec<(BareJid, MessageId)>,
        counts: &BTreeMap<MessageId, Tally>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send {
        let _ = counts;
        self.remove(messages)
    }

    /// Notes when a push that waits last went out. Nothing happens if it waits no longer.
    fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Removes all that waits for lives of a registration up to this one; returns how many pushes that were.
    fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;

    /// Drops pushes of an account beyond `max`, as [`MailboxBounds::beyond_account`] chooses them. Pushes that have expired
    /// at `now` do not count.
    fn trim(
        &self,
        account: &BareJid,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Trimmed, Unavailable>> + Send;

    /// The same; a store that keeps usage takes the counts of what it drops, and makes them durable in the same step.
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

    /// The registrations that have something waiting, each once and with the number of its pushes, behind `after` or
    /// from the beginning, in an order of the store's own, at least `max` of them unless there are no more; then
    /// `None` instead of where to go on. Pushes of an account come together.
    ///
    /// For sweeps: it may miss what was kept meanwhile.
    fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> impl Future<Output = Result<Page<(Registrant, usize)>, Unavailable>> + Send;
}
