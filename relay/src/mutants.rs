//! Faults that the simulator puts into the relay, one at a time, to measure what it finds (`make simulate-mutants`). They
//! are compiled for it alone, by the feature `mutants`; without that, [`mutant`] is never true.

/// Names the mutants, and lists them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A fault that the relay once had, or could have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(not(feature = "mutants"), expect(unreachable_pub, reason = "public for the simulator alone"))]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

mutants! {
    /// A relay that wakes without its lease writes until it notices.
    FenceIgnored,
    /// A relay that has lost its lease goes on.
    GoesOnWithoutLease,
    /// A stream that nothing comes on is taken for alive.
    SilenceIgnored,
    /// Stanzas that were meant for the stream before are written on the next one.
    OldStream,
    /// An answer counts, whoever sent it.
    StrangerAnswers,
    /// A refusal of any full JID of the account ends the registration.
    RecipientNotCompared,
    /// A refusal ends a registration that was renewed since the push went out.
    LateRefusalRevokes,
    /// A full JID that does not hold a registration is asked again.
    BarForgotten,
    /// A push leaves the mailbox when it goes out, before its result.
    RemovedBeforeResult,
    /// Expired pushes are sent.
    ExpiryIgnored,
    /// Pushes that were replaced or dropped while they waited are sent.
    ReplacedIsSent,
    /// Pushes that are read from the mailbox may be overtaken.
    GateIgnored,
    /// A new push goes out before what waits.
    WaitingOvertaken,
    /// A push that was answered a moment ago is sent again if it is read meanwhile.
    SettledForgotten,
    /// Pushes in flight are forgotten when the stream ends.
    OfflineForgets,
    /// No sweep follows a connection.
    NoSweep,
    /// A sweep ends at the first row that cannot be read.
    SweepEndsAtError,
    /// A reading that ends forgets what was kept meanwhile.
    ReadingForgetsKept,
    /// A registration that moves to another full JID takes what waits for it to nobody's notice.
    MovePassedOver,
    /// One unanswered push is given up in a tick.
    OneOverdueEachTick,
    /// Of two entries of one push, one is settled.
    SecondReceiptForgotten,
    /// A settlement is tried once.
    SettlementNotRetried,
    /// A push leaves the queue though the mailbox did not take it.
    DeletedUnkept,
    /// A push that is to come again is not given back.
    PostponedForgotten,
    /// It is not written that a push which waits went out unanswered.
    AskedUnwritten,
    /// A result that comes late settles nothing.
    LateResultIgnored,
    /// A result that comes late moves the registration.
    LateResultMoves,
    /// A presence says nothing.
    PresenceIgnored,
    /// Pushes that a session leaves unanswered are not sent in the next one.
    SessionForgotten,
    /// A full JID that takes a push is not followed.
    NotFollowed,
    /// Pushes that wait are bounded for each registration, and not for the account.
    AccountBoundIgnored,
    /// An account may have any number of registrations.
    RegistrationsUnbounded,
    /// A batch waits for a write that is slow.
    SlowWriteHoldsBatch,
    /// The core is not told of a write that was over after its batch.
    LateWriteUntold,
}

/// Returns whether the relay has this fault.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn mutant(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static MADE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Returns whether the relays of this thread have this fault.
    pub(crate) fn mutant(which: Mutant) -> bool {
        MADE.get() == Some(which)
    }

    /// Gives the relays that this thread runs from now on a fault, or none.
    pub fn make_mutant(which: Option<Mutant>) {
        MADE.set(which);
    }
}

#[cfg(feature = "mutants")]
pub use switch::make_mutant;
#[cfg(feature = "mutants")]
pub(crate) use switch::mutant;
