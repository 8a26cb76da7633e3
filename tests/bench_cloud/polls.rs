//! The polls that it takes to keep up with a rate, if SQS answers with fewer entries than were asked for.

use std::time::Duration;

use aws::QueueSender;
use e2e::{Upwire, XmppServer, eventually};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use push::ports::QueueWriter;
use tokio::time::{Instant, interval};

use crate::relay::{self, DEADLINE, Receiver, VISIBILITY};
use crate::{Calls, Cloud};

/// Rates in pushes per second.
pub(crate) const RATES: [usize; 4] = [5, 50, 150, 500];
/// Most entries of an answer. SQS gives so few while a queue has fewer than a few thousand entries.
pub(crate) const ENTRIES_MAX: u8 = 3;
const SECONDS: usize = 20;
/// Interval in which all due pushes are posted together.
const STEP: Duration = Duration::from_millis(20);

/// The polls at one rate.
pub(crate) struct Polls {
    pub(crate) rate: usize,
    pub(crate) pushes: usize,
    pub(crate) polls: usize,
    /// Most entries that nobody had received. They are counted several times a second.
    pub(crate) backlog_max: u64,
    /// Time from the last post to the last arrival.
    pub(crate) behind: Duration,
}

/// Measures one rate after the other, on one relay.
pub(crate) async fn measured(server: &XmppServer, cloud: &Cloud) -> anyhow::Result<Vec<Polls>> {
    let phones = relay::receivers(server).await;
    let rows = relay::rows(cloud, &phones).await?;
    let queue = cloud.sqs.queue(VISIBILITY, 1000).await.url;
    let relay = Upwire::relay_on(server).set_all(cloud.variables()).set("UPWIRE_QUEUE_URL", &queue);
    let mut relay = relay.set("UPWIRE_LOG", "warn").start_ready().await;
    cloud.ways.queue.shorten_answers(ENTRIES_MAX);
    let (sender, mut measured, mut number) = (QueueSender::new(&cloud.sqs.config(), &queue), Vec::new(), 0);
    for rate in RATES {
        let (before, pushes) = (cloud.ways.calls(), rate * SECONDS);
        let begun = Instant::now();
        let (mut steps, mut sends, mut backlog_max) = (interval(STEP), FuturesUnordered::new(), 0);
        let mut posted = 0;
        while posted < pushes {
            steps.tick().await;
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as usize + 1;
            while posted < due.min(pushes) {
                sends.push(sender.send(relay::message(number, &rows[number % rows.len()])));
                (posted, number) = (posted + 1, number + 1);
            }
            while let Some(Some(sent)) = sends.next().now_or_never() {
                sent?;
            }
            backlog_max = backlog_max.max(cloud.sqs.unreceived(&queue).await);
        }
        while let Some(sent) = sends.next().await {
            sent?;
        }
        let posted = Instant::now();
        eventually(DEADLINE, "all has arrived", async || arrivals(&phones) >= number).await;
        let behind = posted.elapsed();
        eventually(DEADLINE, "all is deleted", async || cloud.sqs.depth(&queue).await == 0).await;
        let polls = receives(&cloud.ways.calls_since(&before));
        measured.push(Polls { rate, pushes, polls, backlog_max, behind });
    }
    cloud.ways.queue.shorten_answers(0);
    relay.terminate();
    relay.wait_exit(DEADLINE).await;
    Ok(measured)
}

fn arrivals(phones: &[Receiver]) -> usize {
    phones.iter().map(|phone| phone.journal.arrivals()).sum()
}

fn receives(calls: &Calls) -> usize {
    calls.get("ReceiveMessage").copied().unwrap_or_default()
}
