//! Phones: each comes, goes and answers as planned, and registers with every new session, as Conversations does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{LocalBoxFuture, pending};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_xmpp::IqRequest;
use tokio_xmpp::jid::BareJid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, StanzaError};

use super::ledger::{AWAY, Ledger, Moment, Said};
use super::plan::{Manner, PhonePlan, Step};
use super::senders;
use crate::fault_proxy::FaultProxy;
use crate::phone::{Answer, Phone, Push, Registered, hashed};
use crate::xmpp_server::{User, XmppServer};

/// Longest wait for the answer to a registration, before the phone asks again.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before the phone asks again after an error, or without a session.
const REGISTER_INTERVAL: Duration = Duration::from_millis(500);
/// Longest time for closing a stream. After it, the connection is dropped.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Actor<'a> {
    number: usize,
    plan: &'a PhonePlan,
    user: User,
    component: BareJid,
    ledger: Arc<Ledger>,
    /// The connection from the phone to the XMPP server.
    way: FaultProxy,
    mind: Arc<Mutex<Mind>>,
    endpoints: Vec<watch::Sender<String>>,
    phone: Option<Phone>,
    resource: u8,
    /// Number of bound sessions of `phone` that `react` has seen.
    bound: usize,
    /// Applications that are to be registered in this session.
    owed: BTreeSet<usize>,
    asking: Option<LocalBoxFuture<'static, Asked>>,
    /// The open disturbance of its network, or of its absence.
    disturbance: Option<usize>,
    /// The open disturbance of its answers.
    misbehaves: Option<usize>,
}

/// The manner in which the phone answers, and its removed applications.
struct Mind {
    manner: Manner,
    removed: BTreeSet<usize>,
}

/// The outcome of a registration.
struct Asked {
    application: usize,
    at: Moment,
    answer: Option<Result<Registered, StanzaError>>,
}

impl<'a> Actor<'a> {
    /// Starts a phone, which begins to log in.
    pub(super) async fn start(
        number: usize,
        plan: &'a PhonePlan,
        user: User,
        server: &XmppServer,
        component: BareJid,
        ledger: Arc<Ledger>,
    ) -> Self {
        let mut actor = Self {
            number,
            plan,
            user,
            component,
            ledger,
            way: FaultProxy::to(server.c2s_port).await,
            mind: Arc::new(Mutex::new(Mind { manner: Manner::Result, removed: BTreeSet::new() })),
            endpoints: (0..plan.applications).map(|_| watch::Sender::new(String::new())).collect(),
            phone: None,
            resource: 0,
            bound: 0,
            owed: BTreeSet::new(),
            asking: None,
            disturbance: None,
            misbehaves: None,
        };
        actor.log_in(0).await;
        actor
    }

    /// Returns the URL of an application, for its senders.
    pub(super) fn endpoint(&self, application: usize) -> watch::Receiver<String> {
        self.endpoints[application].subscribe()
    }

    /// Registers until every application has its first URL.
    pub(super) async fn register_all(&mut self) {
        while self.endpoints.iter().any(|endpoint| endpoint.borrow().is_empty()) {
            self.react().await;
        }
    }

    /// Plays the steps of the plan, and reacts to events in between. Then adds itself to `played`, and reacts until
    /// everything is mended.
    pub(super) async fn play(&mut self, played: &watch::Sender<usize>, mended: watch::Receiver<bool>) {
        let plan = self.plan;
        for step in &plan.steps {
            let at = self.ledger.instant(step.at);
            loop {
                tokio::select! {
                    () = sleep_until(at) => break,
                    () = self.react() => {}
                }
            }
            self.act(step.what).await;
        }
        played.send_modify(|played| *played += 1);
        self.react_until(mended).await;
    }

    async fn react_until(&mut self, mut told: watch::Receiver<bool>) {
        while !*told.borrow_and_update() {
            tokio::select! {
                _ = told.changed() => {}
                () = self.react() => {}
            }
        }
    }

    /// Comes back with every application. Adds itself to `back` once all of them are registered, and answers until the
    /// run is over.
    pub(super) async fn settle(&mut self, back: &watch::Sender<usize>, over: watch::Receiver<bool>) {
        self.way.mend();
        self.act(Step::Answer(Manner::Result)).await;
        let removed = self.mind.lock().expect("no panic while held").removed.clone();
        for application in removed {
            self.act(Step::Install(application)).await;
        }
        match self.phone.is_some() {
            true => self.act(Step::Mend).await,
            false => self.act(Step::Return(self.resource)).await,
        }
        while self.bound == 0 || !self.owed.is_empty() || !self.is_online().await {
            tokio::select! {
                () = self.react() => {}
                () = sleep(REGISTER_INTERVAL) => {}
            }
        }
        back.send_modify(|back| *back += 1);
        self.react_until(over).await;
    }

    /// Returns whether the XMPP server answers a ping.
    async fn is_online(&self) -> bool {
        let server = BareJid::new(self.user.jid.domain().as_str()).expect("a domain");
        let ping = IqRequest::Get(Element::builder("ping", ns::PING).build());
        match &self.phone {
            Some(phone) => phone.try_request(&server, ping, REGISTER_TIMEOUT).await.is_some(),
            None => false,
        }
    }

    async fn act(&mut self, step: Step) {
        match step {
            Step::Answer(manner) => {
                self.mind.lock().expect("no panic while held").manner = manner;
                let what = match manner {
                    Manner::Result => None,
                    Manner::Late(_) => Some("phone answers late"),
                    Manner::Never => Some("phone does not answer"),
                    Manner::Busy => Some("phone answers with an error"),
                };
                if let Some(misbehaves) = self.misbehaves.take() {
                    self.ledger.is_over(misbehaves);
                }
                self.misbehaves = what.map(|what| self.ledger.is_disturbed(Some(self.number), what));
            }
            Step::Remove(application) => {
                self.mind.lock().expect("no panic while held").removed.insert(application);
                self.owed.remove(&application);
            }
            Step::Install(application) => {
                self.mind.lock().expect("no panic while held").removed.remove(&application);
                self.owed.insert(application);
            }
            Step::Cut => {
                self.begins("phone cut off");
                self.phone.iter().for_each(Phone::cut);
            }
            Step::Mend => {
                self.phone.iter().for_each(Phone::mend);
                self.ends();
            }
            Step::Reset => {
                self.begins("phone's connection reset");
                self.way.reset();
                self.ends();
            }
            Step::Roam => {
                self.begins("phone roams");
                self.way.abandon();
                self.ends();
            }
            Step::Stall => {
                self.begins("phone's connection stalled");
                self.way.stall();
            }
            Step::Flow => {
                self.way.mend();
                self.ends();
            }
            Step::Leave => {
                if let Some(phone) = self.phone.take() {
                    self.asking = None;
                    phone.leave(LEAVE_TIMEOUT).await;
                    self.begins(AWAY);
                }
            }
            Step::Return(resource) => {
                self.ends();
                self.log_in(resource).await;
            }
        }
    }

    fn begins(&mut self, what: &'static str) {
        self.ends();
        self.disturbance = Some(self.ledger.is_disturbed(Some(self.number), what));
    }

    fn ends(&mut self) {
        if let Some(disturbance) = self.disturbance.take() {
            self.ledger.is_over(disturbance);
        }
    }

    async fn log_in(&mut self, resource: u8) {
        let name = format!("phone{}.{resource}", self.number);
        let phone = Phone::start(self.way.port, &self.user, &name);
        phone.answer_by(self.answers());
        if self.plan.greets {
            phone.greet(&self.component).await;
        }
        (self.phone, self.resource, self.bound, self.asking) = (Some(phone), resource, 0, None);
    }

    /// Returns the function that decides its answer to a push, and notes it in the ledger.
    fn answers(&self) -> impl Fn(&Push) -> Answer + Send + Sync + 'static {
        let (number, applications) = (self.number, self.plan.applications);
        let (ledger, mind) = (Arc::clone(&self.ledger), Arc::clone(&self.mind));
        move |push| {
            let named = |application: &usize| push.application == hashed(&name(number, *application));
            let application = (0..applications).find(named);
            let Mind { manner, removed } = &*mind.lock().expect("no panic while held");
            let (said, answer) = match (application, manner) {
                (None, _) => (Said::ItemNotFound, Answer::Error(DefinedCondition::ItemNotFound)),
                (Some(application), _) if removed.contains(&application) => {
                    (Said::ItemNotFound, Answer::Error(DefinedCondition::ItemNotFound))
                }
                (_, Manner::Result) => (Said::Result, Answer::Result),
                (_, Manner::Late(delay)) => (Said::ResultLater, Answer::DelayedBy(*delay)),
                (_, Manner::Never) => (Said::Nothing, Answer::Silent),
                (_, Manner::Busy) => (Said::Busy, Answer::Error(DefinedCondition::ResourceConstraint)),
            };
            match (senders::number(&push.body), application) {
                (Some(sent), Some(application)) => {
                    ledger.arrives(sent, (number, application), &push.id, said)
                }
                _ => ledger.violation(format!("phone {number} gets what is not for it, or what nobody sent")),
            }
            answer
        }
    }

    /// Waits for the next event of the session or of a registration, and handles it.
    async fn react(&mut self) {
        if self.asking.is_none() && self.bound > 0 {
            self.asking = self.ask();
        }
        let bound = async {
            match &self.phone {
                Some(phone) => phone.bound_after(self.bound).await,
                None => pending().await,
            }
        };
        let asked = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => pending().await,
            }
        };
        tokio::select! {
            bound = bound => {
                let removed = self.mind.lock().expect("no panic while held").removed.clone();
                self.bound = bound;
                self.owed = (0..self.plan.applications).filter(|it| !removed.contains(it)).collect();
                self.asking = None;
            }
            asked = asked => {
                self.asking = None;
                self.take(asked);
            }
        }
    }

    /// Asks for the first registration that is owed.
    fn ask(&self) -> Option<LocalBoxFuture<'static, Asked>> {
        let (application, phone) = (*self.owed.first()?, self.phone.as_ref()?);
        let at = self.ledger.now();
        let name = hashed(&name(self.number, application));
        let asking = phone.try_register(&self.component, &name, &hashed("1"), REGISTER_TIMEOUT);
        Some(Box::pin(async move {
            let answer = asking.await;
            if !matches!(answer, Some(Ok(_))) {
                sleep(REGISTER_INTERVAL).await;
            }
            Asked { application, at, answer }
        }))
    }

    fn take(&mut self, Asked { application, at, answer }: Asked) {
        match answer {
            Some(Ok(registered)) => {
                let url = registered.endpoint;
                self.ledger.note_registered(self.number, application, at, &url);
                self.endpoints[application].send_replace(url);
                self.owed.remove(&application);
            }
            // The push server, the XMPP server or the store does not answer.
            None => {}
            Some(Err(error)) => {
                // `forbidden` is no violation: ejabberd answers so for a component that is not connected.
                use DefinedCondition::{BadRequest, NotAllowed};
                if matches!(error.defined_condition, BadRequest | NotAllowed) {
                    let number = self.number;
                    self.ledger.violation(format!("a registration of phone {number} is refused: {error:?}"));
                }
            }
        }
    }
}

fn name(phone: usize, application: usize) -> String {
    format!("application {application} of phone {phone}")
}
