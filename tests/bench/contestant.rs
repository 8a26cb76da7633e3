//! Contestants: push servers and bare components, each with its servers and phones.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use e2e::bench::{Journal, LightPhone, Request};
use e2e::{Kind, Settings, Upwire, UpwireBuilder, XmppServer};
use tokio::time::{Instant, sleep};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::component::BareComponent;
use crate::plan::{Load, Plan};
use crate::registering::Registrars;
use e2e::machine::Process;

/// Number of accounts, each with a phone and a registration. Every contestant has as many.
pub(crate) const PHONES: usize = 8;
/// Longest time for a push server to forget what was delivered.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A contestant's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// `upwire serve` beside this XMPP server.
    Upwire(Kind),
    /// `upwire serve` of another commit, beside this XMPP server.
    Base(Kind),
    /// Prosody's mod_unified_push on this backend.
    Module(&'static str),
    /// A bare component, which gets the most out of this XMPP server.
    Bare(Kind),
}

impl Who {
    /// Returns the XMPP server beside it, if others are measured with the same one.
    pub(crate) fn server(self) -> Option<Kind> {
        match self {
            Self::Upwire(kind) | Self::Base(kind) | Self::Bare(kind) => Some(kind),
            Self::Module(_) => None,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upwire(kind) => write!(f, "upwire serve, {}", server_name(*kind)),
            Self::Base(kind) => write!(f, "upwire of the base, {}", server_name(*kind)),
            Self::Module(backend) => write!(f, "mod_unified_push ({backend}), Prosody"),
            Self::Bare(kind) => write!(f, "bare component, {}", server_name(*kind)),
        }
    }
}

/// Returns the server's name as people write it.
pub(crate) fn server_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Prosody => "Prosody",
        Kind::Ejabberd => "ejabberd",
    }
}

/// The source of pushes.
pub(crate) enum Source {
    /// Senders POST these requests to a push server.
    PushServer(Vec<Request>),
    /// A component makes the pushes.
    Bare(BareComponent),
}

/// A running contestant, with which phones have registered.
pub(crate) struct Contestant {
    pub(crate) who: Who,
    pub(crate) source: Source,
    pub(crate) loads: Vec<Load>,
    /// The process of the push server; `None`: it lives in the XMPP server.
    pub(crate) push_server: Option<Process>,
    pub(crate) xmpp_server: Process,
    /// Phones that register, if registrations are compared.
    pub(crate) registrars: Option<Registrars>,
    upwire: Option<Upwire>,
    /// The XMPP server, kept running.
    _server: Rc<XmppServer>,
}

impl Contestant {
    /// Waits until nothing of the last run is left in the push server.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let Some(upwire) = &self.upwire else { return Ok(()) };
        let deadline = Instant::now() + SETTLE_DEADLINE;
        while upwire.measure("upwire_queue_depth").await > 0.0 {
            anyhow::ensure!(Instant::now() < deadline, "{}: delivered pushes stay in the queue", self.who);
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Starts every contestant that the plan includes.
pub(crate) async fn start_all(plan: &Plan, journal: &Rc<Journal>) -> anyhow::Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for kind in [Kind::Prosody, Kind::Ejabberd] {
        let included = |who: Who| plan.includes(&who.to_string());
        if included(Who::Upwire(kind)) || included(Who::Bare(kind)) {
            contestants.extend(beside(kind, plan, journal).await?);
        }
    }
    for backend in ["jwt", "storage"] {
        if plan.base.is_none() && plan.includes(&Who::Module(backend).to_string()) {
            contestants.push(module(backend, plan, journal).await?);
        }
    }
    contestants.retain(|contestant| plan.includes(&contestant.who.to_string()));
    anyhow::ensure!(!contestants.is_empty(), "--only leaves nobody");
    Ok(contestants)
}

/// Starts `upwire serve` and a bare component beside one server, which push to the same phones. A base has phones of
/// its own.
async fn beside(kind: Kind, plan: &Plan, journal: &Rc<Journal>) -> anyhow::Result<Vec<Contestant>> {
    let server = Rc::new(XmppServer::start(kind).await);
    // The log has its default level, without a line for each push.
    let upwire = Upwire::on(&server).set("UPWIRE_LOG", "info");
    let (jids, upwire) = serve(Who::Upwire(kind), upwire, &server, plan, journal).await?;
    let bare = Contestant {
        who: Who::Bare(kind),
        source: Source::Bare(BareComponent::connect(&server, &jids).await?),
        loads: plan.bare_loads(),
        push_server: None,
        xmpp_server: process_of(&server),
        registrars: None,
        upwire: None,
        _server: Rc::clone(&server),
    };
    // The bare component comes first, because the loads of others are parts of what it carries.
    let mut contestants = vec![bare, upwire];
    if let Some(base) = &plan.base {
        let base = Upwire::on(&server).set("UPWIRE_LOG", "info").with_binary(base);
        contestants.push(serve(Who::Base(kind), base, &server, plan, journal).await?.1);
    }
    Ok(contestants)
}

async fn serve(
    who: Who,
    upwire: UpwireBuilder,
    server: &Rc<XmppServer>,
    plan: &Plan,
    journal: &Rc<Journal>,
) -> anyhow::Result<(Vec<FullJid>, Contestant)> {
    let upwire = upwire.start_ready().await;
    let push_server = upwire.component.jid.clone();
    let (jids, requests) = register_phones(server, &push_server, journal).await?;
    let registrars = match who {
        Who::Upwire(Kind::Prosody) if plan.base.is_none() => {
            Some(Registrars::connect(server, push_server).await)
        }
        _ => None,
    };
    let contestant = Contestant {
        who,
        source: Source::PushServer(requests),
        loads: plan.loads(true),
        push_server: Some(Process { title: who.to_string(), pid: upwire.pid() }),
        xmpp_server: process_of(server),
        registrars,
        upwire: Some(upwire),
        _server: Rc::clone(server),
    };
    Ok((jids, contestant))
}

/// Starts a Prosody of its own with `mod_unified_push`.
async fn module(backend: &'static str, plan: &Plan, journal: &Rc<Journal>) -> anyhow::Result<Contestant> {
    let settings = Settings { unified_push: Some(backend), ..Settings::default() };
    let server = Rc::new(XmppServer::start_with(Kind::Prosody, settings).await);
    let push_server = BareJid::new("unified-push.localhost")?;
    let (_, requests) = register_phones(&server, &push_server, journal).await?;
    // With `jwt`, the module stores nothing of a registration.
    let registrars = match backend {
        "storage" => Some(Registrars::connect(&server, push_server).await),
        _ => None,
    };
    let mut xmpp_server = process_of(&server);
    xmpp_server.title = Who::Module(backend).to_string();
    Ok(Contestant {
        who: Who::Module(backend),
        source: Source::PushServer(requests),
        loads: plan.loads(false),
        push_server: None,
        xmpp_server,
        registrars,
        upwire: None,
        _server: server,
    })
}

async fn register_phones(
    server: &XmppServer,
    push_server: &BareJid,
    journal: &Rc<Journal>,
) -> anyhow::Result<(Vec<FullJid>, Vec<Request>)> {
    let (mut jids, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..PHONES {
        let mut phone = LightPhone::connect(server, &server.user().await).await;
        requests.push(Request::new(&phone.register(push_server).await?)?);
        jids.push(phone.jid().clone());
        drop(phone.answer_all(Rc::clone(journal)));
    }
    Ok((jids, requests))
}

fn process_of(server: &XmppServer) -> Process {
    Process { title: server_name(server.kind).to_owned(), pid: server.pid().unwrap_or_default() }
}
