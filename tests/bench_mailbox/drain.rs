//! Phones that come back: the rate at which they get their waiting pushes, beside as many pushes sent directly.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use e2e::bench::{Answering, Journal, LightPhone, Request, post};
use e2e::machine::Process;
use e2e::{Kind, Upwire, User, XmppServer};
use futures::{StreamExt, TryStreamExt, stream};

use crate::plan::{Case, Plan};
use crate::stage::{self, Run, SENDERS, Watch};

/// Number of phones that log in or out at a time.
const LOGINS_AT_ONCE: usize = 32;

/// The measurements of one case through one server.
pub(crate) struct Drained {
    pub(crate) kind: Kind,
    pub(crate) case: Case,
    pub(crate) rounds: Vec<Round>,
    /// The rounds of the base, each right before the round of the same number.
    pub(crate) of_base: Vec<Round>,
}

pub(crate) struct Round {
    /// Pushes posted while the phones are online, until all are acknowledged and the queue is empty.
    pub(crate) direct: Run,
    /// Pushes posted while the phones are away, until all are in the mailbox.
    pub(crate) kept: Run,
    /// The same pushes, from the first greeting until all are acknowledged and the mailbox is empty.
    pub(crate) drained: Run,
    /// Number of arrivals of pushes that had arrived before.
    pub(crate) twice: u64,
}

/// A push server whose phones come and go.
struct Stage {
    server: XmppServer,
    upwire: Upwire,
    processes: (Process, Process),
    users: Vec<User>,
    requests: Vec<Request>,
    phones: Vec<Answering>,
    journal: Rc<Journal>,
}

pub(crate) async fn measure(
    kind: Kind,
    case: Case,
    plan: &Plan,
    journal: &Rc<Journal>,
) -> anyhow::Result<Drained> {
    eprintln!("{kind:?}, {case}: the phones register …");
    let mut stage = Stage::start(kind, case.phones, None, journal).await?;
    let mut base = match &plan.base {
        Some(binary) => Some(Stage::start(kind, case.phones, Some(binary), journal).await?),
        None => None,
    };
    let (mut rounds, mut of_base) = (Vec::new(), Vec::new());
    for number in 1..=plan.rounds {
        if let Some(base) = &mut base {
            of_base.push(base.round(case).await?);
        }
        let round = stage.round(case).await?;
        let (drained, direct) = (round.drained.per_second(), round.direct.per_second());
        eprintln!("{kind:?}, {case}, round {number}/{}: {drained:.0}/s, directly {direct:.0}/s", plan.rounds);
        rounds.push(round);
    }
    for mut stage in [Some(stage), base].into_iter().flatten() {
        stage.all_leave().await?;
    }
    Ok(Drained { kind, case, rounds, of_base })
}

impl Stage {
    async fn start(
        kind: Kind,
        phones: usize,
        binary: Option<&PathBuf>,
        journal: &Rc<Journal>,
    ) -> anyhow::Result<Self> {
        let server = XmppServer::start(kind).await;
        // The log has its default level, without a line for each push.
        let mut upwire = Upwire::on(&server).set("UPWIRE_LOG", "info");
        if let Some(binary) = binary {
            upwire = upwire.with_binary(binary);
        }
        let upwire = upwire.start_ready().await;
        let processes = stage::processes(&upwire, &server)?;
        let component = &upwire.component.jid;
        let registering = stream::iter(0..phones).map(async |_| {
            let user = server.user().await;
            let mut phone = LightPhone::connect(&server, &user).await;
            let request = Request::new(&phone.register(component).await?)?;
            anyhow::Ok((user, request, phone.answer_all(Rc::clone(journal))))
        });
        let registered: Vec<_> = registering.buffered(LOGINS_AT_ONCE).try_collect().await?;
        let mut stage = Self {
            users: Vec::new(),
            requests: Vec::new(),
            phones: Vec::new(),
            journal: Rc::clone(journal),
            processes,
            server,
            upwire,
        };
        for (user, request, phone) in registered {
            stage.users.push(user);
            stage.requests.push(request);
            stage.phones.push(phone);
        }
        Ok(stage)
    }

    async fn round(&mut self, case: Case) -> anyhow::Result<Round> {
        self.journal.begin();
        let watch = Watch::start(&self.processes.0, &self.processes.1)?;
        post(&self.requests, case.pushes(), SENDERS, false, &self.journal).await?;
        stage::arrive(&self.upwire, 0.0, &self.journal).await?;
        let direct = watch.stop(case.pushes())?;
        let twice = self.twice();

        self.all_leave().await?;
        self.journal.begin();
        let watch = Watch::start(&self.processes.0, &self.processes.1)?;
        post(&self.requests, case.pushes(), SENDERS, false, &self.journal).await?;
        stage::reaches(&self.upwire, "upwire_mailbox_depth", case.pushes() as f64).await?;
        stage::reaches(&self.upwire, "upwire_queue_depth", 0.0).await?;
        let kept = watch.stop(case.pushes())?;

        let drained = self.drain().await?;
        Ok(Round { direct, kept, drained, twice: twice + self.twice() })
    }

    /// Has all phones come back at once.
    async fn drain(&mut self) -> anyhow::Result<Run> {
        let logging_in = stream::iter(&self.users).map(|user| LightPhone::log_in(&self.server, user));
        let mut phones: Vec<_> = logging_in.buffered(LOGINS_AT_ONCE).collect().await;
        // The phones bind only now, so that no try of the relay finds them earlier.
        stream::iter(&mut phones).for_each_concurrent(LOGINS_AT_ONCE, LightPhone::bind).await;
        let waiting = self.journal.under_way();
        let watch = Watch::start(&self.processes.0, &self.processes.1)?;
        for mut phone in phones {
            phone.greet(&self.upwire.component.jid).await?;
            self.phones.push(phone.answer_all(Rc::clone(&self.journal)));
        }
        stage::arrive(&self.upwire, 0.0, &self.journal).await?;
        watch.stop(waiting)
    }

    async fn all_leave(&mut self) -> anyhow::Result<()> {
        let phones = stream::iter(self.phones.drain(..)).map(Ok);
        phones.try_for_each_concurrent(LOGINS_AT_ONCE, Answering::leave).await
    }

    fn twice(&self) -> u64 {
        let now = Instant::now();
        self.journal.account(now, now).duplicates
    }
}
