//! Decisions that have to be made durable, and the notes that the core gets once they are.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use push::{
    Epoch, MessageId, PushMessage, RegistrationId,
    ports::{Kept, Seen, Trimmed},
    usage::Counts,
};
use tokio_xmpp::jid::{BareJid, FullJid};

use super::domains::Trim;
use crate::stream::stanza::Condition;

/// The place that holds a push durably while the relay works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Queue,
    /// The mailbox of the push's account.
    Mailbox,
}

/// A push that the relay holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) origin: Origin,
    pub(crate) message: Arc<PushMessage>,
}

/// The meaning of an answer to a push (docs/protocol.md, "Push").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Delivered,
    /// The full JID that answered does not have this registration.
    Refused,
    /// The push goes elsewhere, or waits.
    Failed,
}

impl Verdict {
    pub(crate) const fn of(error: Option<Condition>) -> Self {
        match error {
            None => Self::Delivered,
            Some(Condition::ItemNotFound | Condition::FeatureNotImplemented) => Self::Refused,
            Some(Condition::Other) => Self::Failed,
        }
    }
}

/// A decision that has to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The push was delivered, or has expired: it is removed from its origin.
    Done(Held),
    /// The push leaves the queue and waits in the mailbox.
    Keep {
        message: Arc<PushMessage>,
        /// The full JID that the push would go to now.
        target: FullJid,
        /// The last time at which it went out and was not answered, if it did.
        asked_at: Option<DateTime<Utc>>,
        /// True if no full JID was asked to take it yet.
        untried: bool,
    },
    /// A push in the mailbox went out again, and was not answered.
    Asked { message: Arc<PushMessage>, asked_at: DateTime<Utc> },
    /// The push stays in the queue until this moment.
    Postpone(MessageId, DateTime<Utc>),
    /// The full JID that the registration names has refused the push that was sent at `asked_at`. The registration is
    /// revoked, and the push is removed after that.
    Revoke { push: Held, recipient: FullJid, asked_at: DateTime<Utc> },
    /// A result came for a push that was given up, here or by another process. The push is removed if it waits.
    Late(BareJid, MessageId),
    /// This full JID has refused a push that was given up, here or by another process.
    LateRevoke(FullJid, MessageId),
    /// The registration is over its rate: its senders have to wait until this moment.
    Throttle(RegistrationId, Epoch, DateTime<Utc>),
    /// Another full JID of the account has taken a push. The registration names that one from now on, if it names one of
    /// `from` now.
    Follow { registration: RegistrationId, epoch: Epoch, from: Vec<FullJid>, to: FullJid },
    /// The full JIDs of an account that were seen lately, latest first.
    NoteSeen(BareJid, Vec<Seen>),
    /// The domain of an account has too much waiting: the account's mailbox is trimmed.
    Trim(Trim),
    /// Counts of a tenant. They belong to the fate right before, or to one that is durable already.
    Count(BareJid, MessageId, Counts),
}

impl Fate {
    /// Returns whether the fate deletes a push from the queue, or gives it back.
    pub(crate) fn is_of_the_queue(&self) -> bool {
        match self {
            Self::Done(push) | Self::Revoke { push, .. } => push.origin == Origin::Queue,
            Self::Keep { .. } | Self::Postpone(..) => true,
            _ => false,
        }
    }
}

/// A note to the core about fates that were made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A push waits in the mailbox.
    Waits {
        message: Arc<PushMessage>,
        /// The full JID that its registration names now.
        recipient: FullJid,
        /// True if this recipient was not asked yet.
        untried: bool,
        /// Pushes that were replaced or dropped by the write that put the push there; `None`: it waited there before.
        kept: Option<Kept>,
    },
    /// A registration of this account names another full JID now, as it was decided.
    Moved(BareJid, RegistrationId),
    /// A registration names this full JID now.
    Names(RegistrationId, Epoch, FullJid),
    /// The lives of a registration up to this epoch have ended; `waited` pushes waited for them.
    Ended {
        account: BareJid,
        registration: RegistrationId,
        epoch: Epoch,
        waited: usize,
    },
    /// A push has left the mailbox after a late result. It counts as delivered, unless it had expired.
    Late {
        account: BareJid,
        id: MessageId,
        accepted_at: DateTime<Utc>,
        expired: bool,
    },
    Trimmed(Trim, Trimmed),
    /// The request to a registration's senders to wait could not be stored.
    NotThrottled(RegistrationId),
    /// The full JIDs of an account that were seen lately could not be stored.
    NotSeen(BareJid),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_decides() {
        assert_eq!(Verdict::of(None), Verdict::Delivered);
        assert_eq!(Verdict::of(Some(Condition::ItemNotFound)), Verdict::Refused);
        assert_eq!(Verdict::of(Some(Condition::FeatureNotImplemented)), Verdict::Refused);
        assert_eq!(Verdict::of(Some(Condition::Other)), Verdict::Failed);
    }
}
