//! The events that the core handles.

use super::*;

/// One event.
#[derive(Debug)]
pub(crate) enum Input {
    /// The stream is up.
    Online(StreamNumber),
    /// The stream is gone. Pushes that went out unanswered may be lost.
    Offline,
    Stanza(Incoming),
    /// The queue has given these pushes.
    Received(Vec<Arc<PushMessage>>),
    Page(Page),
    /// The store's row of an account; `None`: the store does not answer.
    Looked(BareJid, Option<ports::Account>),
    /// The fates of the last settlement are durable.
    Settled(Vec<Note>),
    /// A push was written to the mailbox after its settlement had given it back to the queue.
    KeptLate(Arc<PushMessage>, ports::Kept),
    Registered(Vec<Registered>),
    /// A page of a sweep.
    Found(Found),
    /// A page of registrations that live, and where the next one begins; `None`: the store does not answer.
    Counted(Option<ports::Page<Registration>>),
    /// The current access list: who may register and get pushes.
    Access(AccessList),
    /// The operator has erased an account.
    Forget(BareJid),
    Tick,
    /// Take the answers to what is in flight, and give the rest back.
    Stop,
    /// The lease is lost: another relay may be at work.
    LeaseLost,
}
