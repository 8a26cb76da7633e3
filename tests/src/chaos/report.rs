//! The report of a run: the seed, the events, the ledger and, if a promise was broken, the stories of the pushes
//! concerned.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use tokio_xmpp::jid::BareJid;

use super::judgement::{Judgement, Outcome};
use super::ledger::{Ledger, Moment, PostAnswer, Records};
use super::order::Order;
use super::plan::Plan;
use super::stage::{Depths, Stage};
use super::{Backend, Chaos, draw};

/// Most stories in a report. More would hide them.
const STORIES_MAX: usize = 5;

/// The end of a run.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The moment at which everything was mended.
    pub(super) mended: Moment,
    /// Number of pushes that still waited when every phone had been back for a while.
    pub(super) waited: usize,
    /// Numbers of pushes that were left at the end.
    pub(super) depths: Depths,
}

/// The report of a run, and the promises that were broken.
#[derive(Debug)]
pub struct Report {
    text: String,
    broken: Vec<String>,
}

impl Report {
    pub(super) async fn new(
        chaos: Chaos,
        plan: &Plan,
        stage: &mut Stage,
        accounts: &[BareJid],
        ledger: &Ledger,
        end: End,
    ) -> Self {
        let left = if end.depths.mailbox > 0 { stage.left(accounts).await } else { Vec::new() };
        let now = ledger.now();
        let records = ledger.records();
        let judgement = records.judge(now);
        let order = records.order(draw::settling(chaos.backend));
        let accepted = records.pushes.iter().filter(|push| push.accepted().is_some()).count();
        let mut broken = records.violations.clone();
        broken.extend(judgement.broken(accepted));
        broken.extend(lost_by_phone(&records, &judgement));
        if end.depths != Depths::default() {
            let left: Vec<_> = left.iter().map(|push| (*push, records.outcome(*push, now))).collect();
            broken.push(format!("not everything was settled: {:?}, {left:?}", end.depths));
        }
        if !order.overtaken_waiting.is_empty() {
            broken.push(format!("overtaken while they waited: pushes {:?}", order.overtaken_waiting));
        }
        let mut text = head(&chaos, plan, &end, now);
        let _ = write!(text, "{}{}", storm(&records), happened(&records));
        let _ = write!(text, "{}", figures(&records, &judgement, &order, accepted, &end));
        for line in &broken {
            let _ = writeln!(text, "  BROKEN: {line}");
        }
        let short = judgement.needless.iter().filter(|push| !judgement.needless_of_long.contains(push));
        let told = judgement
            .lost
            .iter()
            .chain(&judgement.needless_of_long)
            .chain(&judgement.late)
            .chain(&judgement.multiplied)
            .chain(short);
        let overtaken = order.overtaken_waiting.iter().flat_map(|(a, b)| [a, b]);
        let told = told.chain(overtaken).chain(left.iter()).chain(judgement.unexplained.iter());
        for push in told.take(STORIES_MAX) {
            let _ = write!(text, "{}", story(&records, *push));
        }
        if !broken.is_empty() {
            let _ = writeln!(text, "  logs: {:?} and {}", stage.upwires, stage.server.folder().display());
        }
        Self { text, broken }
    }

    /// Returns whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn head(chaos: &Chaos, plan: &Plan, end: &End, now: Moment) -> String {
    let Chaos { seed, backend, server, size } = chaos;
    format!(
        "chaos, seed {seed}: {} on {server:?}, {} s planned, {:.0} s until all was mended, {:.0} s more until all was settled\n  \
         plan      {} phones of {} accounts, {} registrations; {} pushes, {} steps of phones, {} faults\n",
        match backend {
            Backend::Embedded => "embedded",
            Backend::Cloud => "cloud",
        },
        size.seconds,
        end.mended.as_secs_f64(),
        (now - end.mended).as_secs_f64(),
        plan.phones.len(),
        plan.accounts(),
        plan.registrations(),
        plan.pushes.len(),
        plan.steps(),
        plan.faults(),
    )
}

/// Lists the disturbances of all phones, and their times.
fn storm(records: &Records) -> String {
    let faults = records.disturbances.iter().filter(|it| it.phone.is_none()).map(|it| {
        let lasting = it.end.unwrap_or(it.begin) - it.begin;
        format!("{:.1} {} ({:.1} s)", it.begin.as_secs_f64(), it.what, lasting.as_secs_f64())
    });
    format!("  storm     {}\n", faults.collect::<Vec<_>>().join(", "))
}

/// Counts the disturbances of each kind.
fn happened(records: &Records) -> String {
    let mut counts: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
    for disturbance in &records.disturbances {
        let entry = counts.entry(disturbance.what).or_default();
        entry.0 += 1;
        entry.1 += disturbance.end.unwrap_or(disturbance.begin) - disturbance.begin;
    }
    let counts = counts.iter().map(|(what, (count, lasting))| match lasting.as_millis() {
        0..100 => format!("{what} {count}"),
        _ => format!("{what} {count} ({:.1} s)", lasting.as_secs_f64()),
    });
    let over = records.lives.iter().filter(|life| life.over.is_some()).count();
    let renewals: usize = records.lives.iter().map(|life| life.renewals.len() - 1).sum();
    let counts: Vec<String> = counts.collect();
    format!(
        "  happened  {}\n  URLs      {}, of which {over} ended; {renewals} renewals\n",
        counts.join(", "),
        records.lives.len()
    )
}

fn figures(records: &Records, judgement: &Judgement, order: &Order, accepted: usize, end: &End) -> String {
    let count = |outcome: Outcome| judgement.outcomes.get(&outcome).copied().unwrap_or(0);
    let attempts = || records.pushes.iter().flat_map(|push| &push.attempts);
    let mut unsure: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in attempts() {
        if let PostAnswer::Unsure(why) = &attempt.answer {
            *unsure.entry(why).or_default() += 1;
        }
    }
    let unreached = attempts().filter(|attempt| attempt.answer == PostAnswer::Unreached).count();
    let of_accepted: Vec<String> = [
        Outcome::Delivered,
        Outcome::Expired,
        Outcome::Vanished,
        Outcome::Replaced,
        Outcome::Revoked,
        Outcome::Lost,
    ]
    .iter()
    .map(|outcome| format!("{outcome:?} {}", count(*outcome)).to_lowercase())
    .collect();
    let arrivals: usize = records.pushes.iter().map(|push| push.arrivals.len()).sum();
    format!(
        "  POSTs     {}: {accepted} answered with 201, {} with 410; unanswered or not taken: {unsure:?}, {unreached} did not reach the server\n  \
         unsent    {}, since the sender had dropped the URL\n  \
         waited    {} when everybody was back for a while; then each registration got one more push\n  \
         ledger    {}; {} of the expired and vanished for no reason that is known\n  \
         arrivals  {arrivals}: {} again because they were not answered by a result, {} twice after one (at most {} of one push; {} unexplained); \
         {} pushes sent twice by their senders\n  \
         order     {} overtaken in all; of {} that waited in the calm, {}\n",
        attempts().count(),
        attempts().filter(|attempt| attempt.answer == PostAnswer::Gone).count(),
        count(Outcome::Unsent),
        end.waited,
        of_accepted.join(", "),
        judgement.needless.len(),
        judgement.again,
        judgement.twice,
        judgement.twice_most,
        judgement.unexplained.len(),
        judgement.sent_twice,
        order.overtaken,
        order.waited,
        order.overtaken_waiting.len(),
    )
}

/// Counts the lost pushes of each phone, with the moment of the last arrival there.
fn lost_by_phone(records: &Records, judgement: &Judgement) -> Vec<String> {
    let mut lost: BTreeMap<usize, usize> = BTreeMap::new();
    for push in &judgement.lost {
        *lost.entry(records.pushes[*push].plan.phone).or_default() += 1;
    }
    let last = |phone: usize| {
        let pushes = records.pushes.iter().filter(|push| push.plan.phone == phone);
        pushes.flat_map(|push| &push.arrivals).map(|arrival| arrival.at).max().unwrap_or_default()
    };
    lost.iter()
        .map(|(phone, count)| {
            format!(
                "{count} lost for phone {phone}, to which the last came at {:.3}",
                last(*phone).as_secs_f64()
            )
        })
        .collect()
}

/// Tells all events of a push, and the disturbances around it.
fn story(records: &Records, push: usize) -> String {
    let record = &records.pushes[push];
    let mut lines: Vec<(Moment, String)> = Vec::new();
    for attempt in &record.attempts {
        lines.push((attempt.begin, "POST".to_owned()));
        lines.push((attempt.end, format!("{:?}", attempt.answer)));
    }
    for arrival in &record.arrivals {
        lines.push((
            arrival.at,
            format!("arrives as {}, and is answered with {:?}", arrival.id, arrival.said),
        ));
    }
    if let Some(life) = record.life.map(|life| &records.lives[life]) {
        lines.extend(life.renewals.iter().map(|at| (*at, "the URL is registered, or renewed".to_owned())));
        lines.extend(
            life.refusals.iter().map(|at| (*at, "the phone says that the application is gone".to_owned())),
        );
        lines.extend(life.over.map(|at| (at, "the URL is known to be over".to_owned())));
    }
    let from = record.attempts.first().map_or(Moment::ZERO, |attempt| attempt.begin);
    let around = records.disturbances.iter();
    for it in around.filter(|it| it.concerns(record.plan.phone) && it.overlaps(from, Moment::MAX)) {
        lines.push((it.begin, format!("{} begins", it.what)));
        lines.extend(it.end.map(|end| (end, format!("{} is over", it.what))));
    }
    lines.sort();
    let mut story = format!("  push {push}: {:?}\n", record.plan);
    for (at, line) in lines {
        let _ = writeln!(story, "    {:8.3} {line}", at.as_secs_f64());
    }
    story
}
