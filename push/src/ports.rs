//! What Upwire needs of a store and of a queue; SQLite and AWS each have an adapter.

use std::{collections::BTreeSet, error::Error, fmt, future::Future};

use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};

use crate::{Epoch, MailboxBounds, Marker, MessageId, PushMessage, Registration, RegistrationId, Target};

pub mod operator;

/// The store or the queue could not do its part; nothing was promised to anyone.
#[derive(Debug)]
pub struct Unavailable(Box<dyn Error + Send + Sync>);

impl Unavailable {
    /// Wraps what the adapter was told. The text must hold no secret and no address.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unavailable {}

/// How fresh a row has to be. A store that has but one copy gives the freshest either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It may be seconds old: cheaper, and enough to accept a push.
    Eventual,
    /// It shows every write that was durable before: whoever refuses for good asks so.
    Strong,
}

/// Whether a renewal is written that changes little ([`Registration::needs_renewal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is not: the row stands as it is, and costs nothing.
    WhereNeeded,
    /// It is, so that it outlives whatever was asked of the distributor before.
    Always,
}

/// The marker of the registrations' store, which has it beside them.
pub trait Markers: Clone + Send + Sync + 'static {
    /// The marker; `None`: no relay has ever begun here. It shows every write that was durable before.
    fn marker(&self) -> impl Future<Output = Result<Option<Marker>, Unavailable>> + Send;

    /// Replaces the marker; returns once that is durable.
    fn set_marker(&self, marker: &Marker) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The registrations' store.
pub trait Registrations: Markers {
    /// The row of a registration, living or not.
    fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<Registration>, Unavailable>> + Send;

    /// The rows of several registrations, living or not, in any order, in as few reads as the store allows.
    fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Vec<Registration>, Unavailable>> + Send;

    /// Stores what [`Registration::renew`] makes of the present row, atomically, and returns it
    /// once it is durable; or returns the present row, where `renewal` lets it stand.
    ///
    /// A registration that does not live yet is refused where its account has `account_max`
    /// ([`registrations_counted`](crate::bounds::registrations_counted)). Endpoints of a predecessor neither count
    /// nor are they refused.
    fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> impl Future<Output = Result<Registered, Unavailable>> + Send;

    /// Ends a life because its application is gone, as `recipient` answered to a push sent at `asked_at`.
    ///
    /// Nothing happens to a later life, nor to one renewed after `asked_at`: the distributor has
    /// changed its mind since. Nor to one that names another full JID: that one may hold the application.
    fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<Revocation, Unavailable>> + Send;

    /// Moves a life from one full JID to another of the same account, because its phone has come back under that
    /// one; whether it was moved. Its renewal and its expiry stay as they are.
    ///
    /// Nothing happens to another life, to one that has been revoked, nor to one that names another full JID than
    /// `from`.
    fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Notes that the senders of this life are over their rate until that moment
    /// ([`Registration::throttled_until`]). Nothing happens to another life.
    fn throttle(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        until: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// What came of [`Registrations::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It lives, by this row.
    Stored(Registration),
    /// A life of it begins, by this row.
    Begun(Registration),
    /// Its account has as many registrations as it may: nothing was stored.
    AccountFull,
}

impl Registered {
    /// The row; `None`: the account is full.
    #[must_use]
    pub fn stored(self) -> Option<Registration> {
        match self {
            Self::Stored(row) | Self::Begun(row) => Some(row),
            Self::AccountFull => None,
        }
    }
}

/// What came of [`Registrations::revoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The life has ended now.
    Revoked,
    /// It was over before.
    OverBefore,
    /// It goes on: it was renewed since, or it names another full JID.
    GoesOn,
}

/// Most full JIDs that are remembered of an account.
pub const SEEN_MAX: usize = 4;

/// A full JID of an account that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The full JID.
    pub jid: FullJid,
    /// Its last sign of life, in milliseconds.
    pub seen_at: DateTime<Utc>,
    /// Its session has ended since.
    pub ended: bool,
}

/// What the store knows of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Its registrations that live, in any order.
    pub registrations: Vec<Registration>,
    /// Its full JIDs that were seen lately, in the order of [`Accounts::note_seen`].
    pub seen: Vec<Seen>,
}

/// What belongs to an account (bare JID) rather than to one of its registrations; the registrations' store has it.
pub trait Accounts: Clone + Send + Sync + 'static {
    /// The account as it is at `now`. Its registrations may be a second old.
    fn account(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Replaces the list of full JIDs seen lately, the latest first; those beyond [`SEEN_MAX`] are left out. Nothing
    /// is written for an account of which no registration lives at `now`.
    fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The registrations of all accounts that live at `now`, behind `after` or from the beginning, in an order of the
    /// store's own, at least `max` of them unless there are no more; then `None` instead of where to go on.
    ///
    /// For counting: they may be a second old, and it may miss what was stored meanwhile.
    fn living(
        &self,
        after: Option<Recipient>,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Page<Registration>, Unavailable>> + Send;
}

/// The ingress's side of the queue.
pub trait QueueWriter: Clone + Send + Sync + 'static {
    /// Queues a push; returns once it is durable, or settled.
    fn send(&self, message: PushMessage) -> impl Future<Output = Result<(), NotQueued>> + Send;

    /// Queues pushes together, in as few steps as the queue allows; returns once all are durable. After an error
    /// some of them may be in the queue.
    fn send_all(&self, messages: Vec<PushMessage>) -> impl Future<Output = Result<(), NotQueued>> + Send;
}

/// Why a push was not queued.
#[derive(Debug, thiserror::Error)]
pub enum NotQueued {
    /// The queue holds as many of its registration as it may.
    #[error("the queue holds as many pushes of one registration as it may")]
    TooMany,
    /// The queue does not take it now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A push that was received and not yet settled. Until then the queue gives it to nobody else;
/// if this process dies, the next one receives it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<Receipt> {
    /// By which the queue knows it.
    pub receipt: Receipt,
    /// How often it was released before. A queue that counts otherwise may count what was postponed too.
    pub attempts: u32,
    /// The push.
    pub message: PushMessage,
}

/// What becomes of a received push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<Receipt> {
    /// Its fate is durable elsewhere: delivered, expired or revoked.
    Delete(Receipt),
    /// It could not be delivered; it stays, and is received again at this moment.
    Release(Receipt, DateTime<Utc>),
    /// The same for one whose turn it was not: that is no reason to wait longer when it fails.
    Postpone(Receipt, DateTime<Utc>),
}

/// The relay's side of the queue.
pub trait QueueReader: Clone + Send + Sync + 'static {
    /// By which the queue knows a received push.
    type Receipt: Clone + fmt::Debug + Send + Sync + 'static;

    /// The oldest pushes that are due, at most `max` of them; waits for one to come, for a bounded
    /// time, and may return none.
    fn receive(
        &self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Delivery<Self::Receipt>>, Unavailable>> + Send;

    /// Settles received pushes; returns once that is durable. A deletion may become so later, but before `close`
    /// returns: a crash meanwhile has the push delivered again, as one before the settlement would.
    fn settle(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Ends receiving: whatever was taken from the queue and not yet returned goes back at once, for
    /// another process. What was returned is still to be settled.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A push that waits in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The push. Its `recipient` is the full JID that its registration named when it was accepted.
    pub message: PushMessage,
    /// When it last went out without an answer: until the session that it went to has ended, the XMPP server
    /// may still hold it, and deliver it by itself. In milliseconds.
    pub asked_at: Option<DateTime<Utc>>,
}

/// What came of [`Mailbox::keep`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// What a later push of the same topic replaced (RFC 8030 §5.4). It may be the push itself, that came late: then
    /// it does not wait.
    pub replaced: Vec<MessageId>,
    /// The oldest ones, dropped because too many waited for the registration or the account: then of the account's
    /// fullest registration. It may be the push itself.
    pub dropped: Vec<MessageId>,
}

/// What came of [`Mailbox::trim`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// What was dropped.
    pub dropped: Vec<MessageId>,
    /// How many pushes of the account are left.
    pub left: usize,
}

/// How far [`Mailbox::recipients`] or [`Accounts::living`] has come: whom the last that it returned is for.
pub type Recipient = (BareJid, RegistrationId);

/// A page, and where to go on; `None`: nowhere.
pub type Page<T> = (Vec<T>, Option<Recipient>);

/// The pushes that wait for phones that are away: one mailbox for each account, from which pushes are handed out in
/// the order of their ids. What has expired may still be found in it.
///
/// A removal settles exactly the pushes that it names. Removing an absent push succeeds.
pub trait Mailbox: Clone + Send + Sync + 'static {
    /// Puts a push into the mailbox of its account; returns once it is durable. One that waits already is
    /// overwritten. Of one registration, the newest of each topic stays, and no more than the newest in all,
    /// whatever their urgency; of an account, no more than [`MailboxBounds::beyond_account`] leaves. What had expired
    /// when this one was accepted does not count.
    fn keep(
        &self,
        waiting: Waiting,
        bounds: MailboxBounds,
    ) -> impl Future<Output = Result<Kept, Unavailable>> + Send;

    /// What waits for an account behind the place of `after` or from the beginning, in order, at most `max` of
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

    /// Notes when a push that waits last went out. Nothing happens if it waits no longer.
    fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Removes one push; whether it was there, and had not expired by `now`.
    fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Removes all that waits for lives of a registration up to this one; returns how many pushes that were.
    fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;

    /// Drops pushes of an account beyond `max`, as [`MailboxBounds::beyond_account`] chooses them. What has expired at
    /// `now` does not count.
    fn trim(
        &self,
        account: &BareJid,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Trimmed, Unavailable>> + Send;

    /// The registrations that have something waiting, each once and with the number of its pushes, behind `after` or
    /// from the beginning, in an order of the store's own, at least `max` of them unless there are no more; then
    /// `None` instead of where to go on. Those of an account come together.
    ///
    /// For sweeps: it may miss what was kept meanwhile.
    fn recipients(
        &self,
        after: Option<Recipient>,
        max: usize,
    ) -> impl Future<Output = Result<Page<(Recipient, usize)>, Unavailable>> + Send;
}

/// Who holds a lease: chance, made anew by each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

/// A lease as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// Who has it; nobody, after a [`Lease::release`].
    pub holder: Option<Holder>,
    /// Grows with every renewal. A lease whose count stands still for as long as one lasts has lapsed: whoever
    /// waits for it needs no clock that agrees with the holder's.
    pub count: u64,
}

/// The right to be the active relay: one process has it at a time.
pub trait Lease: Clone + Send + Sync + 'static {
    /// Who has it now; `None`: nobody ever had. It shows every write that was durable before.
    fn look(&self) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Takes it over or renews it, on condition that it still stands as it was `seen`. `None`: it does not.
    fn take(
        &self,
        holder: Holder,
        seen: Option<Tenure>,
    ) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Gives it back, if this holder has it.
    fn release(&self, holder: Holder) -> impl Future<Output = Result<(), Unavailable>> + Send;
}
