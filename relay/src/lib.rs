//! The relay: holds the XMPP component, drains the queue, and keeps the registrations.

mod clock;
mod component;
mod connect;
mod consume;
mod deliver;
mod framing;
mod measures;
mod pending;
mod register;
mod scanner;
mod stanza;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use push::{
    Secrets,
    ports::{QueueReader, Registrations},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use component::ComponentAccount;
pub use connect::{BadServerAddress, Security, ServerAddress};
pub use measures::{ACKNOWLEDGED_SECONDS, describe_metrics};
pub use register::{AccessList, BadAccessList};

use component::Component;
use deliver::{Channels, Dispatcher};
use register::Registrar;

/// Stanzas that were read and wait for the relay; the stream is not read further than that.
const EVENTS_WAITING_MAX: usize = 1024;
/// Requests of users that wait for their answer.
const REQUESTS_WAITING_MAX: usize = 1024;
/// Answers that wait for the stream.
const REPLIES_WAITING_MAX: usize = 256;

/// What the relay works with.
pub struct Relay<R, Q> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's reading end.
    pub queue: Q,
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
}

/// A task of the relay ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("a task of the relay has died: {0}")]
pub struct TaskDied(String);

impl<R: Registrations, Q: QueueReader> Relay<R, Q> {
    /// Runs until `stop`; then takes the answers to what is in flight, for ten seconds at most,
    /// gives the rest back to the queue, and closes the stream.
    ///
    /// `connected` says at any time whether there is a stream.
    ///
    /// # Errors
    /// One of its tasks died.
    pub async fn run(self, connected: watch::Sender<bool>, stop: CancellationToken) -> Result<(), TaskDied> {
        let room = Arc::new(Semaphore::new(consume::HELD_MAX));
        let (events, events_in) = mpsc::channel(EVENTS_WAITING_MAX);
        let (deliveries, deliveries_in) = mpsc::channel(consume::HELD_MAX);
        let (fates, fates_in) = mpsc::channel(consume::HELD_MAX);
        let (pushes, pushes_in) = mpsc::channel(2 * pending::IN_FLIGHT_MAX);
        let (requests, requests_in) = mpsc::channel(REQUESTS_WAITING_MAX);
        let (replies, replies_in) = mpsc::channel(REPLIES_WAITING_MAX);

        let component = self.account.component.clone();
        let registrar = Registrar {
            registrations: self.registrations.clone(),
            access: self.access,
            secrets: self.secrets,
            endpoints: self.endpoints,
            lifetime: self.lifetime,
        };
        let channels = Channels { deliveries: deliveries_in, fates, events: events_in, pushes, requests };
        let dispatcher = Dispatcher::new(component, self.ack_timeout, channels);
        let stream =
            Component { account: self.account, events, pushes: pushes_in, replies: replies_in, connected };

        // They end one after the other: receiving and delivery by `stop`, and each further one when
        // the channel that it reads is closed.
        let mut tasks = JoinSet::new();
        tasks.spawn(consume::receive(
            self.queue.clone(),
            self.registrations.clone(),
            Arc::clone(&room),
            deliveries,
            stop.clone(),
        ));
        tasks.spawn(dispatcher.run(stop.clone()));
        tasks.spawn(registrar.answer_all(requests_in, replies));
        tasks.spawn(consume::settle(self.queue, self.registrations, room, fates_in));
        tasks.spawn(stream.run());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                return Err(TaskDied(error.to_string()));
            }
            if !stop.is_cancelled() {
                return Err(TaskDied("it returned".into()));
            }
        }
        Ok(())
    }
}
