//! A distributor for tests: it registers, collects pushes, and answers them as it is told.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_xmpp::jid::{BareJid, FullJid, Jid};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::presence::{Presence, Type};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, StanzaError};
use tokio_xmpp::{IqRequest, IqResponse, Stanza};

use crate::line::Line;
use crate::wait::SOON;
use crate::xmpp_server::{User, XmppServer};

pub(crate) mod device;
mod received;
mod session;

use device::Device;
use session::{Command, Inbox, Session};

/// The namespace of `register` and `push`.
pub const UNIFIED_PUSH: &str = "http://gultsch.de/xmpp/drafts/unified-push";

const COMMANDS_MAX: usize = 64;

/// The answer of the phone to a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A result: the push was handed to the app.
    Result,
    /// A stanza error.
    Error(DefinedCondition),
    /// No answer until `Phone::answer`.
    Silent,
    /// A result after this time.
    DelayedBy(Duration),
}

/// A push as the phone received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The IQ's id.
    pub id: String,
    /// The sender.
    pub from: Jid,
    /// The hash of the application.
    pub application: String,
    /// The hash of the instance.
    pub instance: String,
    /// The decoded body.
    pub body: Vec<u8>,
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The URL to POST to.
    pub endpoint: String,
    /// The moment at which it expires.
    pub expiration: DateTime<Utc>,
}

/// Returns an application's or an instance's name as distributors send it: hashed, in base64.
pub fn hashed(name: &str) -> String {
    STANDARD.encode(Sha256::digest(name))
}

/// A distributor with a session on an XMPP server. After a lost connection, it comes back by itself, and resumes its
/// session if the server still has it.
pub struct Phone {
    jid: FullJid,
    device: Device,
    line: Line,
    inbox: watch::Sender<Inbox>,
    commands: mpsc::Sender<Command>,
    session: JoinHandle<()>,
    /// Number of pushes that `next_push` has returned.
    read: AtomicUsize,
}

impl Phone {
    /// Logs in. Returns once the session is bound.
    pub async fn connect(server: &XmppServer, user: &User, resource: &str) -> Self {
        Self::connect_to_answer(server, user, resource, Answer::Result).await
    }

    /// Logs in the device of another resource under this resource, as after a resource conflict. The device holds the
    /// same targets, and does not register again.
    pub async fn connect_as(server: &XmppServer, user: &User, resource: &str, device: &str) -> Self {
        Self::connected(server, user, (resource, device), Answer::Result).await
    }

    /// Logs in as `connect` does, and gives this answer to pushes from the first moment.
    pub async fn connect_to_answer(server: &XmppServer, user: &User, resource: &str, answer: Answer) -> Self {
        Self::connected(server, user, (resource, resource), answer).await
    }

    async fn connected(
        server: &XmppServer,
        user: &User,
        (resource, device): (&str, &str),
        answer: Answer,
    ) -> Self {
        let phone = Self::start_as(server.c2s_port, user, resource, device);
        phone.set_answer(answer);
        phone.wait_for(SOON, "the session is bound", |inbox| inbox.bound > 0).await;
        phone
    }

    /// Begins to log in through this port. Tries until it succeeds, because the server may be down.
    pub fn start(port: u16, user: &User, resource: &str) -> Self {
        Self::start_as(port, user, resource, resource)
    }

    fn start_as(port: u16, user: &User, resource: &str, device: &str) -> Self {
        let jid = user.jid.with_resource_str(resource).expect("a resource");
        let line = Line::to_port(port);
        let inbox = watch::Sender::new(Inbox::default());
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (password, later) = (user.password.clone(), commands.downgrade());
        let device = user.devices.of_name(device);
        let session = Session::new(jid.clone(), password, device.clone(), line.clone(), inbox.clone(), later);
        let session = tokio::spawn(session.run(received));
        Self { jid, device, line, inbox, commands, session, read: AtomicUsize::new(0) }
    }

    /// Returns the full JID that the phone asked for and got.
    pub fn jid(&self) -> &FullJid {
        &self.jid
    }

    /// Has the device take pushes for a target, without a registration.
    pub fn hold(&self, application: &str, instance: &str) {
        self.device.hold(application, instance);
    }

    /// Sends directed presence, now and in every later session, as Conversations does.
    pub async fn greet(&self, component: &BareJid) {
        self.command(Command::Greet(component.clone())).await;
    }

    /// Sends directed unavailable presence. To the component, the session has ended.
    pub async fn take_leave(&self, component: &BareJid) {
        let presence = Presence::new(Type::Unavailable).with_to(Jid::from(component.clone()));
        self.send(presence).await;
    }

    /// Registers an application, or renews its registration.
    pub async fn register(
        &self,
        component: &BareJid,
        application: &str,
        instance: &str,
    ) -> Result<Registered, StanzaError> {
        Registered::read(self.request(component, register(application, instance, None)).await)
    }

    /// Registers an application for pushes of the one application server that has this key (RFC 8292).
    pub async fn register_bound(
        &self,
        component: &BareJid,
        application: &str,
        instance: &str,
        vapid: &str,
    ) -> Result<Registered, StanzaError> {
        Registered::read(self.request(component, register(application, instance, Some(vapid))).await)
    }

    /// Registers an application while the XMPP server or the push server may be down; `None`: no answer came.
    pub fn try_register(
        &self,
        component: &BareJid,
        application: &str,
        instance: &str,
        deadline: Duration,
    ) -> impl Future<Output = Option<Result<Registered, StanzaError>>> + use<> {
        let answer = self.try_request(component, register(application, instance, None), deadline);
        async move { answer.await.map(Registered::read) }
    }

    /// Sends an IQ with any payload; `None`: no answer came.
    pub fn try_request(
        &self,
        to: &BareJid,
        request: IqRequest,
        deadline: Duration,
    ) -> impl Future<Output = Option<IqResponse>> + use<> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Request(Jid::from(to.clone()), request, reply);
        let commands = self.commands.clone();
        let asked = async move {
            commands.send(command).await.ok()?;
            answer.await.ok()
        };
        async move { timeout(deadline, asked).await.ok().flatten() }
    }

    /// Registers an application of this name, and returns its endpoint. Panics if it is refused.
    pub async fn endpoint(&self, component: &BareJid, application: &str) -> String {
        match self.register(component, &hashed(application), &hashed("1")).await {
            Ok(registered) => registered.endpoint,
            Err(error) => panic!("{component} refuses {}: {error:?}", self.jid),
        }
    }

    /// Sends an IQ with any payload, and waits for the answer.
    pub async fn request(&self, to: &BareJid, request: IqRequest) -> IqResponse {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Request(Jid::from(to.clone()), request, reply)).await;
        match timeout(SOON, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => panic!("{} has no session to ask {to} by", self.jid),
            Err(_) => panic!("not within {SOON:?}: {to} answers {}", self.jid),
        }
    }

    /// Sends any stanza that `tokio_xmpp` can express. `RawClient` sends all others.
    pub async fn send(&self, stanza: impl Into<Stanza>) {
        self.command(Command::Send(Box::new(stanza.into()))).await;
    }

    /// Gives this answer to pushes from now on.
    pub fn set_answer(&self, answer: Answer) {
        self.answer_by(move |_| answer.clone());
    }

    /// Asks `decide` for the answer to each push from now on. The push is among `pushes` by then.
    pub fn answer_by(&self, decide: impl Fn(&Push) -> Answer + Send + Sync + 'static) {
        self.inbox.send_modify(|inbox| inbox.answer = Arc::new(decide));
    }

    /// Leaves pings unanswered from now on.
    pub fn leave_pings_unanswered(&self) {
        self.inbox.send_modify(|inbox| inbox.answers_pings = false);
    }

    /// Answers one push: late, again, or in another phone's place.
    pub async fn answer(&self, push: &Push, answer: Answer) {
        if let Some(reply) = session::reply(push.from.clone(), push.id.clone(), answer) {
            self.send(reply).await;
        }
    }

    /// Returns the number of sessions that were bound: 1 after `connect`.
    pub fn sessions_bound(&self) -> usize {
        self.inbox.borrow().bound
    }

    /// Waits until more than `count` sessions were bound. Returns their number.
    pub async fn bound_after(&self, count: usize) -> usize {
        let mut inbox = self.inbox.subscribe();
        let bound = inbox.wait_for(|inbox| inbox.bound > count).await;
        bound.expect("the phone holds the sender").bound
    }

    /// Returns the number of times that a session was resumed.
    pub fn sessions_resumed(&self) -> usize {
        self.inbox.borrow().resumed
    }

    /// Drops the TCP connection without closing the stream, and stays away.
    pub fn cut(&self) {
        self.line.cut();
    }

    /// Comes back after `cut`. Returns once the session is resumed or another is bound.
    pub async fn reconnect(&self) {
        let sessions = |inbox: &Inbox| inbox.bound + inbox.resumed;
        let before = sessions(&self.inbox.borrow());
        self.mend();
        self.wait_for(SOON, "it is online again", |inbox| sessions(inbox) > before).await;
    }

    /// Comes back as `reconnect` does, without waiting.
    pub fn mend(&self) {
        self.line.mend();
    }

    /// Closes the stream cleanly. Returns when it is closed.
    pub async fn disconnect(self) {
        let jid = self.jid.clone();
        let ended = self.leave(SOON).await;
        assert!(ended, "not within {SOON:?}: {jid} disconnects");
    }

    /// Closes the stream while the server may be down. Past the deadline, drops the connection and returns `false`.
    pub async fn leave(mut self, deadline: Duration) -> bool {
        let (commands, session) = (&self.commands, &mut self.session);
        let leaving = timeout(deadline, async {
            // An error means that the session ended already.
            drop(commands.send(Command::End).await);
            session.await
        });
        leaving.await.map(|ended| ended.expect("the session's task ends well")).is_ok()
    }

    async fn command(&self, command: Command) {
        assert!(self.commands.send(command).await.is_ok(), "the session of {} ended", self.jid);
    }

    async fn wait_for(&self, deadline: Duration, what: &str, done: impl Fn(&Inbox) -> bool) {
        let mut inbox = self.inbox.subscribe();
        let waited = timeout(deadline, inbox.wait_for(|inbox| done(inbox))).await.is_ok();
        assert!(waited, "not within {deadline:?}: {what}, at {}", self.jid);
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.session.abort();
    }
}

fn register(application: &str, instance: &str, vapid: Option<&str>) -> IqRequest {
    let register = Element::builder("register", UNIFIED_PUSH)
        .attr("application".try_into().expect("a name"), application)
        .attr("instance".try_into().expect("a name"), instance)
        .attr("vapid".try_into().expect("a name"), vapid)
        .build();
    IqRequest::Set(register)
}

impl Registered {
    fn read(response: IqResponse) -> Result<Self, StanzaError> {
        match response {
            IqResponse::Error(error) => Err(error),
            IqResponse::Result(payload) => Ok(Self::parse(&payload.expect("a payload"))),
        }
    }

    fn parse(payload: &Element) -> Self {
        assert!(payload.is("registered", UNIFIED_PUSH), "not a registration: {payload:?}");
        let attribute = |name| payload.attr(name).expect("endpoint and expiration");
        let expiration = DateTime::parse_from_rfc3339(attribute("expiration"));
        Self {
            endpoint: attribute("endpoint").to_owned(),
            expiration: expiration.expect("a date of XEP-0082").to_utc(),
        }
    }
}
