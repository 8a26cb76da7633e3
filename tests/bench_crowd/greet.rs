//! Phones come back under new resources, all within ten seconds. Each renews three registrations, and has one push
//! waiting.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::bench::{Journal, Request, post};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{sleep, sleep_until};

use crate::stage::{Latency, Stage};
use crate::stand_in::Temper;

const WITHIN: Duration = Duration::from_secs(10);
const APPLICATIONS: usize = 3;
const REGISTERING_AT_ONCE: usize = 256;
const SENDERS: usize = 16;
const DEADLINE: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) struct Greeted {
    pub(crate) phones: usize,
    /// Renewals that were answered by an error, or not at all.
    pub(crate) refused: usize,
    /// Waiting pushes per second, from the first greeting to the last arrival.
    pub(crate) drained_per_second: f64,
    /// The rate of the same pushes when they are posted to phones that are online.
    pub(crate) direct_per_second: f64,
    /// Time from the last greeting until everything is answered and has arrived.
    pub(crate) rest: Duration,
    pub(crate) upwire_cpu: f64,
    pub(crate) alone: Latency,
    pub(crate) beside: Latency,
}

pub(crate) async fn measure(phones: usize, alone: Duration) -> anyhow::Result<Greeted> {
    let stage = Stage::start("greet").await?;
    let journal = Rc::<Journal>::default();
    let jid = |phone: usize, resource: &str| format!("phone{phone}@localhost/{resource}");
    let registering = stream::iter(0..phones).map(async |phone| {
        let jid = jid(phone, "old");
        stage.stand_in.come(&jid, Temper::Answers(Rc::clone(&journal)));
        let endpoint = stage.stand_in.register(&jid, 0).await?;
        for application in 1..APPLICATIONS {
            stage.stand_in.register(&jid, application).await?;
        }
        Request::new(&endpoint)
    });
    let requests: Vec<Request> = registering.buffered(REGISTERING_AT_ONCE).try_collect().await?;
    eprintln!("{phones} phones have registered");

    journal.begin();
    let begin = Instant::now();
    post(&requests, phones, SENDERS, false, &journal).await?;
    all_arrive(&journal).await?;
    let direct_per_second = phones as f64 / begin.elapsed().as_secs_f64();

    (0..phones).for_each(|phone| stage.stand_in.leave(&jid(phone, "old")));
    journal.begin();
    post(&requests, phones, SENDERS, false, &journal).await?;
    let kept = async || {
        let [waiting, queued] = ["upwire_mailbox_depth", "upwire_queue_depth"];
        stage.upwire.measure(waiting).await == phones as f64 && stage.upwire.measure(queued).await == 0.0
    };
    e2e::eventually(DEADLINE, "all pushes wait", kept).await;
    let alone = stage.latency_alone(alone).await?;

    eprintln!("{phones} phones greet within {WITHIN:?}");
    let (steady, begin, cpu) = (stage.push_steadily(), Instant::now(), stage.cpu_seconds()?);
    let refused = Cell::new(0);
    let greeting = stream::iter(0..phones).for_each_concurrent(None, async |phone| {
        sleep_until((begin + WITHIN.mul_f64(phone as f64 / phones as f64)).into()).await;
        let jid = jid(phone, "new");
        stage.stand_in.come(&jid, Temper::Answers(Rc::clone(&journal)));
        for application in 0..APPLICATIONS {
            if stage.stand_in.register(&jid, application).await.is_err() {
                refused.set(refused.get() + 1);
            }
        }
    });
    greeting.await;
    all_arrive(&journal).await?;
    let took = begin.elapsed();
    let upwire_cpu = stage.cpu_seconds()? - cpu;
    let beside = stage.end(steady).await?;
    Ok(Greeted {
        phones,
        refused: refused.get(),
        drained_per_second: phones as f64 / took.as_secs_f64(),
        direct_per_second,
        rest: took.saturating_sub(WITHIN),
        upwire_cpu,
        alone,
        beside,
    })
}

async fn all_arrive(journal: &Journal) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while journal.under_way() > 0 {
        ensure!(Instant::now() < deadline, "{} pushes have not arrived", journal.under_way());
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
