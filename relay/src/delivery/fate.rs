//! Decisions that are to be made durable, and the notes that the core gets once they are.

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

/// Where a push that the relay holds is kept durably, until its fate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Queue,
    /// The mailbox of its account.
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
    /// The full JID that answers does not hold this registration.
    Refused,
    /// The push waits.
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
    /// The push was delivered, or has expired: it is removed from where it is.
    Done(Held),
    /// The push leaves the queue and waits in the mailbox.
    Keep {
        message: Arc<PushMessage>,
        /// Whom it would go to.
        target: FullJid,
        /// When it went out without an answer.
        asked_at: Option<DateTime<Utc>>,
        /// Nobody was asked to take it yet.
        untried: bool,
    },
    /// A push that waits went out again without an answer.
    Asked { message: Arc<PushMessage>, asked_at: DateTime<Utc> },
    /// The push stays in the queue until this moment.
    Postpone(MessageId, DateTime<Utc>),
    /// The full JID that the registration names has refused the push sent at `asked_at`: the registration is
    /// revoked, and only then is the push removed.
    Revoke { push: Held, recipient: FullJid, asked_at: DateTime<Utc> },
    /// A result came after the push was given up, here or by another process: if it waits, it is removed.
    Late(BareJid, MessageId),
    /// A refusal came as late, from this full JID.
    LateRevoke(FullJid, MessageId),
    /// The senders of a registration are over their rate until this moment.
    Throttle(RegistrationId, Epoch, DateTime<Utc>),
    /// Another full JID of the account has taken a push: the registration names it from now on.
    Follow { registration: RegistrationId, epoch: Epoch, from: FullJid, to: FullJid },
    /// The full JIDs of an account that were seen lately, latest first.
    NoteSeen(BareJid, Vec<Seen>),
    /// An account has too much waiting: of its domain, too much does.
    Trim(Trim),
    /// Counts of a tenant, for the fate right before this one, or for one that is durable.
    Count(BareJid, MessageId, Counts),
}

impl Fate {
    /// Returns whether it ends, or gives back, a push that was received from the queue.
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
        /// This recipient was not asked yet.
        untried: bool,
        kept: Kept,
    },
    /// A registration names this full JID now.
    Names(RegistrationId, Epoch, FullJid),
    /// Lives of a registration up to this one have ended, and so many pushes waited for them.
    Ended {
        account: BareJid,
        registration: RegistrationId,
        epoch: Epoch,
        waited: usize,
    },
    /// A push has left the mailbox after a late result: delivered, unless it had expired.
    Late {
        account: BareJid,
        id: MessageId,
        accepted_at: DateTime<Utc>,
        expired: bool,
    },
    Trimmed(Trim, Trimmed),
    /// The senders of a registration were not asked to wait: that could not be stored.
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
