//! A mailbox with a million pushes for phones that stay away: its memory, and its effect on a phone that is online.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::bench::{Journal, LightPhone, Request, post};
use e2e::machine::Process;
use e2e::{Kind, Upwire, XmppServer};
use push::{MailboxBounds, testing};
use tokio::time::sleep;

use crate::plan::{Case, Plan};
use crate::stage::{self, SENDERS, median};

/// The title in the plan.
pub(crate) const TITLE: &str = "waiting";
/// The default bounds of a mailbox.
const BOUNDS: MailboxBounds = MailboxBounds { of_registration: 100, of_account: 1000 };
/// Number of pushes that are sent at once to a phone that comes back and has not answered yet.
const BOUNCED_EACH: usize = 4;
const SWEEP_DEADLINE: Duration = Duration::from_secs(300);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const BYTES_PER_MIB: f64 = 1_048_576.0;

/// The measurements with `waiting` pushes in the mailbox.
pub(crate) struct Million {
    pub(crate) kind: Kind,
    pub(crate) waiting: usize,
    /// Bytes of the database.
    pub(crate) file_bytes: u64,
    /// Time from the start of Upwire until it is connected.
    pub(crate) start: Duration,
    /// Number of deliveries that failed meanwhile, to phones that are away.
    pub(crate) failed: f64,
    /// The most memory that Upwire had resident, in bytes.
    pub(crate) memory: f64,
    /// Times from POST to the phone that is online, one push at a time.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Pushes per second to that phone.
    pub(crate) per_second: f64,
}

/// Measures with an empty mailbox and with a full one, through each server.
pub(crate) async fn measure(
    kinds: &[Kind],
    plan: &Plan,
    journal: &Rc<Journal>,
) -> anyhow::Result<Vec<Million>> {
    let folder = e2e::folder("mailbox");
    let (empty, full) = (folder.join("empty.db"), folder.join("full.db"));
    let crowd = plan.crowd;
    let begin = Instant::now();
    fill(&full, crowd).await?;
    eprintln!("{} pushes wait, put there in {:.0} s", crowd.pushes(), begin.elapsed().as_secs_f64());
    let mut found = Vec::new();
    for &kind in kinds {
        let server = XmppServer::start(kind).await;
        for (file, waiting) in [(&empty, 0), (&full, crowd.pushes())] {
            eprintln!("{kind:?}, {waiting} waiting …");
            found.push(serve(&server, file, waiting, plan, journal).await?);
        }
    }
    // The folder takes gigabytes.
    fs::remove_dir_all(folder)?;
    Ok(found)
}

async fn serve(
    server: &XmppServer,
    file: &Path,
    waiting: usize,
    plan: &Plan,
    journal: &Rc<Journal>,
) -> anyhow::Result<Million> {
    let begin = Instant::now();
    let upwire = Upwire::on(server)
        .set("UPWIRE_DATABASE", file.display())
        .set("UPWIRE_MAILBOX_MAX", BOUNDS.of_registration)
        .set("UPWIRE_LOG", "info");
    let mut upwire = upwire.start_ready().await;
    let start = begin.elapsed();
    let mut phone = LightPhone::connect(server, &server.user().await).await;
    let request = [Request::new(&phone.register(&upwire.component.jid).await?)?];
    let phone = phone.answer_all(Rc::clone(journal));
    if waiting > 0 {
        sweeps(&upwire, plan.tried).await?;
    }
    let (mut p50, mut p99, mut per_second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        journal.begin();
        let begin = Instant::now();
        post(&request, plan.fresh, 1, true, journal).await?;
        let times = journal.account(begin, Instant::now()).to_client;
        p50.push(times[times.len() / 2].as_secs_f64());
        p99.push(times[times.len() * 99 / 100].as_secs_f64());
        journal.begin();
        let begin = Instant::now();
        post(&request, plan.fresh, SENDERS, false, journal).await?;
        stage::arrive(&upwire, waiting as f64, journal).await?;
        per_second.push(plan.fresh as f64 / begin.elapsed().as_secs_f64());
    }
    let failed = upwire.measure("upwire_pushes_retried_total").await;
    let process = Process { title: "upwire serve".to_owned(), pid: upwire.pid() };
    let memory = process.memory_peak_mib()? * BYTES_PER_MIB;
    phone.leave().await?;
    upwire.terminate();
    let stopped = upwire.wait_exit(STOP_DEADLINE).await;
    ensure!(stopped.success(), "{stopped}: {}", upwire.log());
    let [p50, p99] = [p50, p99].map(|times| Duration::from_secs_f64(median(times.into_iter())));
    let per_second = median(per_second.into_iter());
    let file_bytes = fs::metadata(file)?.len();
    Ok(Million { kind: server.kind, waiting, file_bytes, start, failed, memory, p50, p99, per_second })
}

/// Waits until this number of the phones that are away was tried.
async fn sweeps(upwire: &Upwire, tried: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + SWEEP_DEADLINE;
    while upwire.measure("upwire_pushes_retried_total").await < (tried * BOUNCED_EACH) as f64 {
        ensure!(Instant::now() < deadline, "the sweep does not come to {tried} phones");
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Makes a database in which these pushes wait.
async fn fill(file: &Path, crowd: Case) -> anyhow::Result<()> {
    // Nobody has these accounts.
    let target = |phone| testing::target(&format!("away{phone}@localhost/Conversations.{phone:04x}"));
    stage::fill(file, crowd, BOUNDS, target).await
}
