//! The relay: holds the XMPP component, drains the queue, and keeps the registrations.

mod clock;
mod consume;
mod deliver;
mod lease;
mod mailbox;
mod measures;
mod pending;
mod rate;
mod reach;
mod register;
mod stream;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use chrono::TimeDelta;
use metrics::gauge;
use push::{
    MailboxBounds, Secrets,
    ports::{Mailbox, QueueReader, Registrations},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use lease::{Candidate, Fence, Term};
pub use measures::{ACKNOWLEDGED_SECONDS, describe_metrics};
pub use rate::{BadRate, Rate};
pub use register::{AccessList, BadAccessList};
pub use stream::{
    component::ComponentAccount,
    connect::{BadServerAddress, Security, ServerAddress},
};

use consume::Settler;
use deliver::{Channels, Dispatcher, Terms};
use mailbox::Postbox;
use rate::Meter;
use register::Registrar;
use stream::component::Component;

/// Stanzas that were read and wait for the relay; the stream is not read further than that.
const EVENTS_WAITING_MAX: usize = 1024;
/// Requests of users that wait for their answer.
const REQUESTS_WAITING_MAX: usize = 1024;
/// Answers that wait for the stream.
const REPLIES_WAITING_MAX: usize = 256;
/// Notes to delivery: of what was stored, of who has registered, of whom a sweep has found.
const NOTES_WAITING_MAX: usize = 256;
/// Most pushes from mailboxes that the relay holds.
const DRAINING_MAX: usize = reach::READING_MAX * 2 * mailbox::PAGE_MAX + pending::IN_FLIGHT_MAX;

/// What the relay works with.
pub struct Relay<R, Q, M> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's reading end.
    pub queue: Q,
    /// What waits for phones that are away.
    pub mailbox: M,
    /// The secrets that endpoints are signed with.
    pub secrets: Secrets,
    /// The component, and where it connects.
    pub account: ComponentAccount,
    /// Who may register.
    pub access: AccessList,
    /// The URL that tokens are appended to; ends in a slash.
    pub endpoints: Url,
    /// The life of a registration.
    pub lifetime: TimeDelta,
    /// How long the answer to a push may take.
    pub ack_timeout: Duration,
    /// Most pushes that wait.
    pub mailbox_bounds: MailboxBounds,
    /// Most registrations of one account.
    pub account_registrations_max: usize,
    /// How many pushes a registration may get before its senders are asked to wait; `None`: any number.
    pub rate: Option<Rate>,
}

/// A task of the relay ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("a task of the relay has died: {0}")]
pub struct TaskDied(String);

impl<R: Registrations, Q: QueueReader, M: Mailbox> Relay<R, Q, M> {
    /// Runs until `stop`; then takes the answers to what is in flight, for ten seconds at most,
    /// gives the rest back to the queue, and closes the stream. Or until the lease is lost; then another
    /// relay may be at work, and nothing more is sent at all.
    ///
    /// `connected` says at any time whether there is a stream.
    ///
    /// # Errors
    /// One of its tasks died.
    pub async fn run(
        self,
        connected: watch::Sender<bool>,
        stop: CancellationToken,
        fence: Fence,
    ) -> Result<(), TaskDied> {
        let room = Arc::new(Semaphore::new(consume::HELD_MAX));
        let (events, events_in) = mpsc::channel(EVENTS_WAITING_MAX);
        let (deliveries, deliveries_in) = mpsc::channel(consume::HELD_MAX);
        let (fates, fates_in) = mpsc::channel(consume::HELD_MAX + DRAINING_MAX + deliver::LATE_MAX);
        let (stored, stored_in) = mpsc::channel(NOTES_WAITING_MAX);
        let (pushes, pushes_in) = mpsc::channel(2 * pending::IN_FLIGHT_MAX);
        let (requests, requests_in) = mpsc::channel(REQUESTS_WAITING_MAX);
        let (replies, replies_in) = mpsc::channel(REPLIES_WAITING_MAX);
        let (registered, registered_in) = mpsc::channel(NOTES_WAITING_MAX);
        let (reads, reads_in) = mpsc::channel(reach::READING_MAX);
        let (pages, pages_in) = mpsc::channel(reach::READING_MAX);
        let (guesses, guesses_in) = mpsc::channel(NOTES_WAITING_MAX);
        let count = Arc::new(AtomicU64::new(0));
        let (online, online_in) = watch::channel(0);

        let postbox = Postbox { registrations: self.registrations.clone(), mailbox: self.mailbox };
        let terms = Terms {
            component: self.account.component.clone(),
            access: self.access.clone(),
            ack_timeout: self.ack_timeout,
            meter: self.rate.map(Meter::new),
        };
        let registrar = Registrar {
            registrations: self.registrations,
            access: self.access,
            secrets: self.secrets,
            endpoints: self.endpoints,
            lifetime: self.lifetime,
            account_max: self.account_registrations_max,
            registered,
            count: Arc::clone(&count),
        };
        let channels = Channels {
            deliveries: deliveries_in,
            fates,
            stored: stored_in,
            events: events_in,
            pushes,
            requests,
            registered: registered_in,
            reads,
            pages: pages_in,
            guesses: guesses_in,
            online,
        };
        let settler = Settler {
            queue: self.queue.clone(),
            postbox: postbox.clone(),
            mailbox_bounds: self.mailbox_bounds,
            room: Arc::clone(&room),
            stored,
            registered: count,
            fence: fence.clone(),
        };
        let stream = Component {
            account: self.account,
            events,
            pushes: pushes_in,
            replies: replies_in,
            connected: connected.clone(),
            fence: fence.clone(),
        };

        // They end one after the other: receiving, sweeping and delivery by `stop`, and each further one when
        // the channel that it reads is closed.
        let ending = stop.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(consume::receive(self.queue, room, deliveries, ending.clone()));
        tasks.spawn(postbox.clone().sweep_all(online_in, guesses, ending.clone()));
        tasks.spawn(postbox.read_all(reads_in, pages));
        tasks.spawn(Dispatcher::new(terms, channels).run(stop, fence.clone()));
        tasks.spawn(registrar.answer_all(requests_in, replies));
        tasks.spawn(settler.settle_all(fates_in));
        let streaming = fence.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stream.run() => {}
                () = streaming.lost() => {}
            }
            connected.send_replace(false);
            gauge!(measures::STREAM_UP).set(0.0);
        });
        loop {
            tokio::select! {
                () = fence.lost(), if !ending.is_cancelled() => ending.cancel(),
                ended = tasks.join_next() => match ended {
                    None => return Ok(()),
                    Some(Err(error)) => return Err(TaskDied(error.to_string())),
                    Some(Ok(())) if ending.is_cancelled() || fence.is_lost() => {}
                    Some(Ok(())) => return Err(TaskDied("it returned".into())),
                },
            }
        }
    }
}
