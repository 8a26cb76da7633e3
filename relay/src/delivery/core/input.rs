//! The events that the core handles.

use super::*;

/// One event.
#[derive(Debug)]
pub(crate) enum Input {
    /// The stream is up.
    Online(StreamNumber),
    /// The stream is gone; what went out unanswered may be lost.
    Offline,
    Stanza(Incoming),
    /// The queue has given these pushes.
    Received(Vec<Arc<PushMessage>>),
    Page(Page),
    /// The store's row of an account; `None`: the store does not answer.
    Looked(BareJid, Option<ports::Account>),
    /// The fates of the last settlement are durable.
    Settled(Vec<Note>),
    /// A push has come into the mailbox, though its settlement had given it back.
    KeptLate(Arc<PushMessage>, ports::Kept),
    Registered(Vec<Registered>),
    /// A page of a sweep.
    Found(Found),
    /// Registrations that live, and where to go on; `None`: the store does not answer.
    Counted(Option<ports::Page<Registration>>),
    /// The list of those who may register and get pushes.
    Access(AccessList),
    /// The operator has erased an account.
    Forget(BareJid),
    Tick,
    /// Take what is in flight, and give the rest back.
    Stop,
    /// Another relay may be at work.
    LeaseLost,
}
