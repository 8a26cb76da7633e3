//! The relay: holds the XMPP component, drains the queue, and keeps the registrations.

mod backlog;
mod backoff;
mod clock;
mod delivery;
mod driver;
mod jobs;
mod lease;
mod marker;
mod measures;
mod mutants;
mod stream;

use std::time::Duration;

use chrono::TimeDelta;
use metrics::gauge;
use push::{
    MailboxBounds, Secrets,
    ports::{Mailbox, QueueReader, RelayRegistrations},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use backlog::{Backlog, WatchedQueue};
pub use clock::Uptime;
pub use delivery::domains::DomainBounds;
pub use driver::{
    TaskDied,
    forgetting::Forgetting,
    trail::{Outcome, Trace, Trail},
};
pub use lease::{Candidate, Fence, HeldLease};
pub use marker::{CannotBegin, MarkerKeeper, Shedding};
pub use measures::{ACKNOWLEDGED_SECONDS, describe_metrics};
#[cfg(feature = "mutants")]
pub use mutants::{Mutant, make_mutant};
pub use push::{AccessList, BadAccessList, BadRate, Clock, Rate};
#[cfg(feature = "fuzzing")]
pub use stream::fuzzing;
pub use stream::{
    component::ComponentAccount,
    connect::{BadServerAddress, Connect, ConnectError, Security, ServerAddress},
    trial::{NoStream, Trial, try_component},
};

use delivery::{
    core::{Core, Settings},
    rate::Meter,
    room::Room,
};
use driver::{Driver, StreamEnds};
use jobs::{Jobs, Receipts, Revocations, Spared};
use stream::component::Component;

/// Most stanzas that were read and wait for the relay. At this bound, the stream is not read further.
const EVENTS_WAITING_MAX: usize = 1024;
/// Most answers that wait for the stream.
const REPLIES_WAITING_MAX: usize = 256;

/// The relay's ports and settings.
pub struct Relay<R, Q, M, C = ServerAddress> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's reading end.
    pub queue: Q,
    /// Pushes for phones that are away.
    pub mailbox: M,
    /// The current secrets. Endpoints are signed with the first of them.
    pub secrets: watch::Receiver<Secrets>,
    /// The component, and where it connects.
    pub account: ComponentAccount<C>,
    /// The current list of those who may register and get pushes.
    pub access: watch::Receiver<AccessList>,
    /// The URL that tokens are appended to; ends in a slash.
    pub endpoints: Url,
    /// The life of a registration.
    pub lifetime: TimeDelta,
    /// Longest wait for the answer to a push.
    pub ack_timeout: Duration,
    /// Bounds on the pushes that wait.
    pub mailbox_bounds: MailboxBounds,
    /// Most registrations of one account.
    pub account_registrations_max: usize,
    /// Bounds on what a domain may have if the access list does not name it.
    pub domain_bounds: DomainBounds,
    /// Rate of pushes that a registration may get before its senders are asked to wait; `None`: any.
    pub rate: Option<Rate>,
    /// Addresses by which users reach the operator, in answers to service discovery (XEP-0157).
    pub contact: Vec<Url>,
    /// The meter of tenants' usage.
    pub usage: push::usage::Meter,
    /// The wall clock.
    pub clock: Clock,
    /// The trail, in which the relay notes what became of the last pushes.
    pub trail: Trail,
    /// The way of an operator's orders to forget accounts.
    pub forgetting: Forgetting,
}

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox, C: Connect> Relay<R, Q, M, C> {
    /// Runs until `stop`. Then takes the answers to what is in flight, for eight seconds at most, gives the rest back
    /// to the queue, and closes the stream. If the lease is lost, another relay may be at work: nothing more is sent at
    /// all, and the run ends, too.
    ///
    /// `connected` is true while there is a stream.
    ///
    /// # Errors
    /// A task of the relay died.
    pub async fn run(
        mut self,
        connected: watch::Sender<bool>,
        stop: CancellationToken,
        fence: Fence,
    ) -> Result<(), TaskDied> {
        let (events, events_in) = mpsc::channel(EVENTS_WAITING_MAX);
        let (pushes, pushes_in) = mpsc::channel(2 * Room::OF_RELAY.in_flight);
        let (replies, replies_in) = mpsc::channel(REPLIES_WAITING_MAX);
        let settings = Settings {
            component: self.account.component.clone(),
            ack_timeout: self.ack_timeout,
            room: Room::OF_RELAY,
            meter: self.rate.map(Meter::new),
            domain_bounds: self.domain_bounds,
            contact: self.contact,
        };
        let core = Core::new(settings, self.access.borrow_and_update().clone());
        let jobs = Jobs {
            registrations: self.registrations,
            queue: self.queue,
            mailbox: self.mailbox,
            secrets: self.secrets,
            endpoints: self.endpoints,
            lifetime: self.lifetime,
            mailbox_bounds: self.mailbox_bounds,
            account_registrations_max: self.account_registrations_max,
            usage: self.usage,
            clock: self.clock,
            fence: fence.clone(),
            receipts: Receipts::default(),
            moves: 0.into(),
            spared: Spared::default(),
            revocations: Revocations::default(),
        };
        let stream = Component {
            account: self.account,
            events,
            pushes: pushes_in,
            replies: replies_in,
            connected: connected.clone(),
            fence: fence.clone(),
        };
        let ends = StreamEnds { events: events_in, pushes, replies };
        let streaming = fence.clone();
        let mut tasks = JoinSet::new();
        // The stream's task ends by itself once the driver is gone, and with it everyone who could send.
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = streaming.lost() => {}
                () = stream.run() => {}
            }
            connected.send_replace(false);
            gauge!(measures::STREAM_UP).set(0.0);
        });
        Driver::new(core, jobs, ends, self.access, self.trail, self.forgetting.heard())
            .run(stop, fence)
            .await?;
        match tasks.join_next().await {
            Some(Err(error)) => Err(TaskDied(error.to_string())),
            _ => Ok(()),
        }
    }
}
