//! The distributor's loop over the stream's events, failed attempts and timers.

use std::time::Duration;

use anyhow::bail;
use backon::ExponentialBackoff;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use push::VapidKey;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::iq::Iq;
use tokio_xmpp::parsers::presence::Presence;
use tokio_xmpp::parsers::stanza::Stanza;
use tokio_xmpp::stanzastream::{Event as StreamedEvent, StanzaStream, StreamEvent};

use super::Options;
use super::answer::{Request, Responder};
use super::failure::Failure;
use super::output::{Event, Output};
use super::registration::{Registration, refused};
use super::session::{Attempt, Unproven, backoff};

/// Longest wait for the answer to a register.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time between two checks whether a renewal is due, since a clock may be set and a laptop may sleep.
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Time after which a stanza without room in the stream's queue is dropped. The other side asks again.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The event that the distributor waits for.
#[derive(Debug)]
enum Waiting {
    /// A session.
    Session,
    /// The answer to a register.
    Answer { id: String, until: Instant },
    /// The time to register again after a failure.
    Retry { at: Instant },
    /// The time to check whether the registration has to be renewed.
    Renewal { check_at: Instant },
}

/// A distributor with its stream.
#[derive(Debug)]
pub(super) struct Distributor {
    application: String,
    instance: String,
    vapid: Option<VapidKey>,
    responder: Responder,
    stream: StanzaStream,
    attempts: mpsc::Receiver<Attempt>,
    unproven: Unproven,
    waiting: Waiting,
    backoff: ExponentialBackoff,
    /// The session's full JID. It is kept while the stream is interrupted, since the session may be resumed.
    bound: Option<String>,
    online: bool,
    registration: Option<Registration>,
}

#[expect(clippy::disallowed_methods, reason = "this loop is the distributor's edge: here the clock is read")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

impl Distributor {
    pub(super) fn new(
        options: &Options,
        responder: Responder,
        stream: StanzaStream,
        attempts: mpsc::Receiver<Attempt>,
        unproven: Unproven,
    ) -> Self {
        Self {
            application: options.application.clone(),
            instance: options.instance.clone(),
            vapid: options.vapid,
            responder,
            stream,
            attempts,
            unproven,
            waiting: Waiting::Session,
            backoff: backoff(),
            bound: None,
            online: false,
            registration: None,
        }
    }

    /// Closes the stream, if there is a session.
    pub(super) async fn close(self) {
        if self.online {
            self.stream.close().await;
        }
    }

    /// Runs until a permanent failure.
    pub(super) async fn run(&mut self, output: &mut Output) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                event = self.stream.next() => match event {
                    Some(StreamedEvent::Stream(event)) => self.stream_event(event, output).await?,
                    Some(StreamedEvent::Stanza(Stanza::Iq(iq))) => self.iq(iq, output).await?,
                    // Messages and presence are not for us.
                    Some(StreamedEvent::Stanza(_)) => {}
                    None => bail!("the XMPP stream ended without a reason"),
                },
                Some(attempt) = self.attempts.recv() => self.attempt_failed(attempt, output).await?,
                () = due(&self.waiting) => self.time_is_up(output).await?,
            }
        }
    }

    async fn stream_event(&mut self, event: StreamEvent, output: &mut Output) -> anyhow::Result<()> {
        match event {
            StreamEvent::Reset { bound_jid, .. } => {
                self.unproven.proven();
                self.online = true;
                let jid = self.bound.insert(bound_jid.to_string());
                output.print(&Event::Connected { jid, resumed: false }).await?;
                let presence = Presence::available().with_to(self.push_server().clone());
                self.send(presence.into()).await;
                self.register().await?;
            }
            StreamEvent::Resumed => {
                self.unproven.proven();
                self.online = true;
                let jid = self.bound.as_deref().unwrap_or_default();
                output.print(&Event::Connected { jid, resumed: true }).await?;
                // The resumed session replays an answer that was on its way. A renewal may have become due meanwhile.
                match &self.registration {
                    _ if matches!(self.waiting, Waiting::Answer { .. }) => {}
                    Some(registration) => self.waiting = renewal_check(registration, now()),
                    None => self.register().await?,
                }
            }
            StreamEvent::Suspended => {
                // The event is printed once: a login that is dropped at once is no session.
                if std::mem::take(&mut self.online) {
                    output.print(&Event::Disconnected).await?;
                }
                self.waiting = match std::mem::replace(&mut self.waiting, Waiting::Session) {
                    // The answer may come in the resumed session. A new session registers anyway.
                    Waiting::Answer { id, until } => Waiting::Answer { id, until },
                    _ => Waiting::Session,
                };
            }
        }
        Ok(())
    }

    /// Ends the distributor after a permanent failure, or after any failure before the first session. Otherwise reports
    /// the failure, and goes on.
    async fn attempt_failed(&mut self, attempt: Attempt, output: &mut Output) -> anyhow::Result<()> {
        let Attempt { failure, retry_in } = attempt;
        if failure.permanent || self.bound.is_none() {
            return self.give_up(failure, output).await;
        }
        tracing::debug!(condition = failure.condition, "could not connect");
        output.print(&error(&failure, Some(retry_in))).await?;
        Ok(())
    }

    async fn give_up(&mut self, failure: Failure, output: &mut Output) -> anyhow::Result<()> {
        output.print_last(&error(&failure, None)).await?;
        Err(failure.into())
    }

    async fn time_is_up(&mut self, output: &mut Output) -> anyhow::Result<()> {
        match &self.waiting {
            Waiting::Session => {}
            Waiting::Answer { .. } if !self.online => self.waiting = Waiting::Session,
            Waiting::Answer { .. } => {
                let failure = Failure::temporary(
                    "timeout",
                    format!(
                        "{} did not answer the registration within {ANSWER_TIMEOUT:?}",
                        self.push_server()
                    ),
                    "is the push server running, and connected to the XMPP server?",
                );
                self.retry(&failure, output).await?;
            }
            Waiting::Retry { .. } => self.register().await?,
            Waiting::Renewal { .. } => match &self.registration {
                Some(registration) if registration.renew_at > now() => {
                    self.waiting = renewal_check(registration, now());
                }
                _ => self.register().await?,
            },
        }
        Ok(())
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        let id = format!("register-{:016x}", getrandom::u64()?);
        let payload = self.responder.target.register(self.vapid.as_ref());
        let iq = Iq::Set { from: None, to: Some(self.push_server().clone()), id: id.clone(), payload };
        self.waiting = Waiting::Answer { id, until: Instant::now() + ANSWER_TIMEOUT };
        self.send(iq.into()).await;
        Ok(())
    }

    async fn iq(&mut self, iq: Iq, output: &mut Output) -> anyhow::Result<()> {
        if self.answers_register(&iq) {
            return self.registered(iq, output).await;
        }
        let from = iq.from().map(Jid::to_string).unwrap_or_default();
        let (request, answer) = self.responder.respond(iq);
        match &request {
            Request::Push(push) => {
                let event = Event::Push {
                    id: &push.id,
                    application: &self.application,
                    instance: &self.instance,
                    length: push.body.len(),
                    body: &push.body,
                    text: std::str::from_utf8(&push.body).ok(),
                    answer: self.responder.answer.name(),
                };
                // The push is printed before it is acknowledged.
                output.print(&event).await?;
            }
            Request::Refused(why) => {
                let text = format!("refused {why}, sent by {from}");
                output
                    .print(&Event::Error { condition: "refused", text: &text, hint: "", retry: None })
                    .await?;
            }
            Request::Other => {}
        }
        if let Some(answer) = answer {
            self.send(answer.into()).await;
        }
        Ok(())
    }

    /// Returns whether an IQ answers the register: it has to come from the push server, with the id of the last
    /// request.
    fn answers_register(&self, iq: &Iq) -> bool {
        matches!(iq, Iq::Result { .. } | Iq::Error { .. })
            && iq.from() == Some(self.push_server())
            && matches!(&self.waiting, Waiting::Answer { id, .. } if id == iq.id())
    }

    async fn registered(&mut self, iq: Iq, output: &mut Output) -> anyhow::Result<()> {
        let before = self.registration.is_some();
        let confirmed = match iq {
            Iq::Result { payload, .. } => Registration::confirmed(payload, now()),
            Iq::Error { error, .. } => Err(refused(error, &self.push_server().to_string(), before)),
            Iq::Get { .. } | Iq::Set { .. } => return Ok(()),
        };
        let registration = match confirmed {
            Ok(registration) => registration,
            Err(failure) if failure.permanent => return self.give_up(failure, output).await,
            Err(failure) => return self.retry(&failure, output).await,
        };
        self.backoff = backoff();
        self.waiting = renewal_check(&registration, now());
        let former = self.registration.replace(registration.clone());
        let Registration { endpoint, expiration, .. } = registration;
        let event = if former.is_some_and(|former| former.endpoint == endpoint) {
            Event::Renewed { endpoint: &endpoint, expiration }
        } else {
            let (application, instance) = (self.application.as_str(), self.instance.as_str());
            Event::Endpoint { endpoint: &endpoint, expiration, application, instance }
        };
        output.print(&event).await?;
        Ok(())
    }

    async fn retry(&mut self, failure: &Failure, output: &mut Output) -> anyhow::Result<()> {
        let delay = self.backoff.next().unwrap_or(CHECK_INTERVAL_MAX);
        self.waiting = Waiting::Retry { at: Instant::now() + delay };
        output.print(&error(failure, Some(delay))).await?;
        Ok(())
    }

    async fn send(&mut self, stanza: Stanza) {
        if timeout(SEND_TIMEOUT, self.stream.send(Box::new(stanza))).await.is_err() {
            tracing::warn!("a stanza found no room in the stream's queue and was dropped");
        }
    }

    fn push_server(&self) -> &Jid {
        &self.responder.push_server
    }
}

/// Waits until the time of `waiting` is over.
async fn due(waiting: &Waiting) {
    match waiting {
        Waiting::Session => std::future::pending().await,
        Waiting::Answer { until: at, .. } | Waiting::Retry { at } | Waiting::Renewal { check_at: at } => {
            sleep_until(*at).await;
        }
    }
}

fn renewal_check(registration: &Registration, now: DateTime<Utc>) -> Waiting {
    let left = (registration.renew_at - now).to_std().unwrap_or_default();
    Waiting::Renewal { check_at: Instant::now() + left.min(CHECK_INTERVAL_MAX) }
}

fn error(failure: &Failure, retry_in: Option<Duration>) -> Event<'_> {
    // Seconds are rounded up: "in 0 s" would read as a busy loop.
    let retry = retry_in.map(|delay| delay.as_secs() + u64::from(delay.subsec_nanos() > 0));
    Event::Error { condition: &failure.condition, text: &failure.text, hint: failure.hint, retry }
}
