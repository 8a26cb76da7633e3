//! A run: builds the stage, plays the plan, mends everything, waits until all is settled, and judges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tokio::join;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_xmpp::jid::BareJid;

use super::ledger::Ledger;
use super::phones::Actor;
use super::plan::{Plan, PushPlan, Timed};
use super::report::{End, Report};
use super::senders::Numbered;
use super::stage::{Cloud, Depths, Stage};
use super::{Chaos, backlog, draw, faults, machine, readiness, senders};

/// Longest wait for a phone to be registered, on two cores that others use, too.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait for everything to arrive once all is mended. A push that failed often waits long for its next attempt.
const SETTLE_DEADLINE: Duration = Duration::from_secs(240);
const SETTLE_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait for waiting pushes to arrive before the last pushes are sent.
const UNCALLED: Duration = Duration::from_secs(5);
/// Longest wait for every phone to be back, and for an XMPP server to be up.
const BACK_DEADLINE: Duration = Duration::from_secs(180);
/// Wait for pushes that should not come any more.
const QUIET: Duration = Duration::from_secs(2);

pub(super) async fn run(chaos: Chaos) -> Report {
    let plan = draw::plan(&chaos);
    let mut stage = Stage::build(&chaos).await;
    let pushes = plan.pushes.iter().chain(&plan.roll_call);
    let ledger = Arc::new(Ledger::new(pushes.map(|push| push.what.clone())));
    let (accounts, mut phones) = phones(&plan, &stage, &ledger).await;
    let storm = send_all(numbered(&plan.pushes, 0), &phones, &ledger);
    let roll_call = send_all(numbered(&plan.roll_call, plan.pushes.len()), &phones, &ledger);
    let queue = stage.cloud.as_ref().map(Cloud::queue);
    let (admin_urls, count) = (stage.admin_urls(), phones.len());
    let (played, back) = (watch::Sender::new(0), watch::Sender::new(0));
    let (mended, over) = (watch::Sender::new(false), watch::Sender::new(false));
    ledger.start();

    let playing = phones.iter_mut().map(async |phone| {
        phone.play(&played, mended.subscribe()).await;
        phone.settle(&back, over.subscribe()).await;
    });
    let playing = join_all(playing);
    let directing = async {
        join!(storm, all_faults(&mut stage, &plan, &ledger));
        all(count, &played, "has done its part").await;
        stage.is_ready().await;
        let mut end = End { mended: ledger.now(), ..End::default() };
        mended.send_replace(true);
        all(count, &back, "is back").await;
        end.waited = unaccounted(&ledger, UNCALLED).await;
        roll_call.await;
        end.depths = settle(&stage, &ledger).await;
        over.send_replace(true);
        end
    };
    let watching = readiness::watch_readiness(&admin_urls, &ledger, over.subscribe());
    let watching_queue = async {
        if let Some(queue) = &queue {
            backlog::watch_backlog(queue, &ledger, over.subscribe()).await;
        }
    };
    let watching_machine = machine::watch_machine(&ledger, over.subscribe());
    let (end, (), (), (), _) = join!(directing, watching, watching_queue, watching_machine, playing);
    stage.assert_running();
    Report::new(chaos, &plan, &mut stage, &accounts, &ledger, end).await
}

async fn all(count: usize, counted: &watch::Sender<usize>, what: &str) {
    let mut counted = counted.subscribe();
    let waited = timeout(BACK_DEADLINE, counted.wait_for(|counted| *counted == count)).await.is_ok();
    assert!(waited, "not within {BACK_DEADLINE:?}: every phone {what}");
}

/// Makes all accounts, and starts all phones. Returns when they are online and registered.
async fn phones<'a>(plan: &'a Plan, stage: &Stage, ledger: &Arc<Ledger>) -> (Vec<BareJid>, Vec<Actor<'a>>) {
    let mut users = Vec::new();
    for _ in 0..plan.accounts() {
        users.push(stage.server.user().await);
    }
    let started = plan.phones.iter().enumerate().map(async |(number, phone)| {
        let user = users[phone.account].clone();
        let ledger = Arc::clone(ledger);
        let mut phone = Actor::start(number, phone, user, &stage.server, stage.component(), ledger).await;
        let registered = timeout(START_DEADLINE, phone.register_all()).await;
        assert!(registered.is_ok(), "not within {START_DEADLINE:?}: phone {number} is registered");
        phone
    });
    let phones = join_all(started).await;
    (users.into_iter().map(|user| user.jid).collect(), phones)
}

fn numbered(pushes: &[Timed<PushPlan>], first: usize) -> impl Iterator<Item = Numbered<'_>> {
    pushes.iter().enumerate().map(move |(place, push)| (first + place, push))
}

/// Runs all senders of these pushes, with the URLs that the phones get.
fn send_all<'a, Pushes: Iterator<Item = Numbered<'a>>>(
    pushes: Pushes,
    phones: &[Actor<'_>],
    ledger: &'a Ledger,
) -> impl Future<Output = ()> + use<'a, Pushes> {
    let mut senders: BTreeMap<(usize, usize, usize), Vec<Numbered<'a>>> = BTreeMap::new();
    for (number, push) in pushes {
        let PushPlan { phone, application, sender, .. } = push.what;
        senders.entry((phone, application, sender)).or_default().push((number, push));
    }
    let senders: Vec<_> = senders
        .into_iter()
        .map(|((phone, application, _), pushes)| {
            let endpoint = phones[phone].endpoint(application);
            async move { senders::send(&pushes, endpoint, ledger).await }
        })
        .collect();
    join_all(senders).map(|_| ())
}

/// Plays all faults. Every part is up at the end, though it may not be connected.
async fn all_faults(stage: &mut Stage, plan: &Plan, ledger: &Ledger) {
    let Stage { server, upwires, link, cloud, function } = stage;
    let of_upwires = upwires.iter_mut().zip(&plan.upwires);
    let of_upwires = of_upwires.map(|(upwire, plan)| faults::of_upwire(upwire, plan, ledger));
    let of_aws = async {
        if let Some(cloud) = cloud {
            faults::of_aws(cloud, &plan.aws, ledger).await;
        }
    };
    let of_function = async {
        if let Some(function) = function {
            faults::of_function(function, &plan.function, ledger).await;
        }
    };
    join!(
        join_all(of_upwires),
        faults::of_server(server, &plan.server, ledger),
        faults::of_link(link, &plan.link, ledger),
        of_aws,
        of_function
    );
}

/// Waits until every push has an outcome, for at most `patience`. Returns the number of pushes without one.
async fn unaccounted(ledger: &Ledger, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    loop {
        let waiting = ledger.records().waiting(ledger.now()).len();
        if waiting == 0 || Instant::now() > deadline {
            return waiting;
        }
        sleep(SETTLE_INTERVAL).await;
    }
}

/// Waits until every push has an outcome and nothing waits any more. Returns the pushes that wait at the end.
async fn settle(stage: &Stage, ledger: &Ledger) -> Depths {
    let deadline = Instant::now() + SETTLE_DEADLINE;
    loop {
        let waiting = unaccounted(ledger, Duration::ZERO).await;
        let depths = stage.depths().await;
        if (waiting, depths) == (0, Depths::default()) || Instant::now() > deadline {
            sleep(QUIET).await;
            return depths;
        }
        sleep(SETTLE_INTERVAL).await;
    }
}
