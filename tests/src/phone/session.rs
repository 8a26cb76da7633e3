//! The task behind a phone: owns the `tokio_xmpp` client, answers requests, and obeys the phone's commands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_xmpp::jid::{BareJid, FullJid, Jid};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::iq::Iq;
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::presence::Presence;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use tokio_xmpp::xmlstream::Timeouts;
use tokio_xmpp::{Client, Event, IqRequest, IqResponse, Stanza};

use crate::line::Line;

use super::device::Device;
use super::{Answer, Push, UNIFIED_PUSH};

/// A command to the task of a phone.
pub(super) enum Command {
    Send(Box<Stanza>),
    Request(Jid, IqRequest, oneshot::Sender<IqResponse>),
    Greet(BareJid),
    End,
}

/// The events of a phone, and its manner of answering.
pub(super) struct Inbox {
    pub(super) pushes: Vec<Push>,
    pub(super) answer: Arc<dyn Fn(&Push) -> Answer + Send + Sync>,
    pub(super) answers_pings: bool,
    pub(super) bound: usize,
    pub(super) resumed: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        let answer = Arc::new(|_: &Push| Answer::Result);
        Self { pushes: Vec::new(), answer, answers_pings: true, bound: 0, resumed: 0 }
    }
}

pub(super) struct Session {
    client: Client,
    jid: FullJid,
    password: String,
    device: Device,
    line: Line,
    inbox: watch::Sender<Inbox>,
    /// The channel for late answers. It is weak, so that only the phone's own sender keeps the task alive.
    later: mpsc::WeakSender<Command>,
    greeted: BTreeSet<BareJid>,
}

impl Session {
    pub(super) fn new(
        jid: FullJid,
        password: String,
        device: Device,
        line: Line,
        inbox: watch::Sender<Inbox>,
        later: mpsc::WeakSender<Command>,
    ) -> Self {
        let client = client(&jid, &password, &line);
        Self { client, jid, password, device, line, inbox, later, greeted: BTreeSet::new() }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                event = self.client.next() => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                () = self.line.lost() => {
                    self.client = client(&self.jid, &self.password, &self.line);
                }
                command = commands.recv() => match command {
                    None | Some(Command::End) => break,
                    Some(command) => self.obey(command).await,
                },
            }
        }
        // An error means that the connection was gone already.
        drop(self.client.send_end().await);
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Send(stanza) => self.send(*stanza).await,
            Command::Request(to, request, reply) => {
                let target = self.note_registration(&request);
                tokio::select! {
                    answer = self.client.send_iq(Some(to), request) => {
                        let device = self.device.clone();
                        tokio::spawn(async move {
                            if let Ok(answer) = answer.await {
                                if let Some((application, instance)) = target {
                                    note_endpoint(&device, &application, &instance, &answer);
                                }
                                drop(reply.send(answer));
                            }
                        });
                    }
                    // The queue of a client that cannot come back fills up.
                    () = self.line.lost() => self.client = client(&self.jid, &self.password, &self.line),
                }
            }
            Command::Greet(component) => {
                self.send(greeting(&component)).await;
                self.greeted.insert(component);
            }
            Command::End => unreachable!("the loop ends by it"),
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Online { resumed: true, .. } => {
                self.line.online();
                self.inbox.send_modify(|inbox| inbox.resumed += 1);
            }
            Event::Online { .. } => {
                self.line.online();
                for component in self.greeted.clone() {
                    self.send(greeting(&component)).await;
                }
                self.inbox.send_modify(|inbox| inbox.bound += 1);
            }
            Event::Stanza(Stanza::Iq(Iq::Set { from: Some(from), id, payload, .. }))
                if payload.is("push", UNIFIED_PUSH) =>
            {
                self.push(from, id, &payload).await;
            }
            Event::Stanza(Stanza::Iq(Iq::Get { from, id, payload, .. })) => {
                let answer = match payload.is("ping", ns::PING) {
                    true if self.inbox.borrow().answers_pings => Answer::Result,
                    true => Answer::Silent,
                    false => Answer::Error(DefinedCondition::ServiceUnavailable),
                };
                if let Some(reply) = from.and_then(|from| reply(from, id, answer)) {
                    self.send(reply).await;
                }
            }
            // A distributor ignores presence and messages.
            Event::Stanza(_) | Event::Disconnected(_) => {}
        }
    }

    /// Has the device hold the target of a registration. A distributor stores a target before it asks for an endpoint.
    fn note_registration(&self, request: &IqRequest) -> Option<(String, String)> {
        let IqRequest::Set(payload) = request else { return None };
        if !payload.is("register", UNIFIED_PUSH) {
            return None;
        }
        let attribute = |name| payload.attr(name).unwrap_or_default().to_owned();
        let target = (attribute("application"), attribute("instance"));
        self.device.hold(&target.0, &target.1);
        Some(target)
    }

    /// Receives a push. Refuses a push for a target that the device does not hold, and takes a push that its sender
    /// posted again. Tests see neither.
    async fn push(&mut self, from: Jid, id: String, payload: &Element) {
        let attribute = |name| payload.attr(name).unwrap_or_default().to_owned();
        let push = Push {
            id: id.clone(),
            from: from.clone(),
            application: attribute("application"),
            instance: attribute("instance"),
            body: STANDARD.decode(payload.text()).expect("the body of a push is base64"),
        };
        if !self.device.holds(&push.application, &push.instance) {
            let gone = Answer::Error(DefinedCondition::ItemNotFound);
            if let Some(reply) = reply(from, id, gone) {
                self.send(reply).await;
            }
            return;
        }
        if self.device.has_got_another(&push) {
            if let Some(reply) = reply(from, id, Answer::Result) {
                self.send(reply).await;
            }
            return;
        }
        self.inbox.send_modify(|inbox| inbox.pushes.push(push.clone()));
        let decide = Arc::clone(&self.inbox.borrow().answer);
        match decide(&push) {
            Answer::DelayedBy(delay) => self.reply_later(delay, from, id),
            answer => {
                if let Some(reply) = reply(from, id, answer) {
                    self.send(reply).await;
                }
            }
        }
    }

    fn reply_later(&self, delay: Duration, to: Jid, id: String) {
        let later = self.later.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let stanza = Box::new(Stanza::from(Iq::empty_result(to, id)));
            if let Some(commands) = later.upgrade() {
                // The phone may be gone by now.
                drop(commands.send(Command::Send(stanza)).await);
            }
        });
    }

    async fn send(&mut self, stanza: impl Into<Stanza>) {
        tokio::select! {
            // The outcome does not matter: a phone that is offline sends nothing, and the test will see that.
            _ = self.client.send_stanza(stanza.into()) => {}
            // The queue of a client that cannot come back fills up.
            () = self.line.lost() => self.client = client(&self.jid, &self.password, &self.line),
        }
    }
}

fn note_endpoint(device: &Device, application: &str, instance: &str, answer: &IqResponse) {
    if let IqResponse::Result(Some(payload)) = answer
        && let Some(endpoint) = payload.attr("endpoint")
    {
        device.note_endpoint(application, instance, endpoint);
    }
}

/// Returns the IQ that gives this answer, if there is one.
pub(super) fn reply(to: Jid, id: String, answer: Answer) -> Option<Iq> {
    match answer {
        Answer::Result | Answer::DelayedBy(_) => Some(Iq::empty_result(to, id)),
        Answer::Error(condition) => {
            let error = StanzaError::new(ErrorType::Cancel, condition, "en", "as the test wants it");
            Some(Iq::from_error(id, error).with_to(to))
        }
        Answer::Silent => None,
    }
}

fn client(jid: &FullJid, password: &str, line: &Line) -> Client {
    let jid = Jid::from(jid.clone());
    Client::new_with_connector(jid, password, line.clone(), Timeouts::default())
}

fn greeting(component: &BareJid) -> Presence {
    Presence::available().with_to(Jid::from(component.clone()))
}
