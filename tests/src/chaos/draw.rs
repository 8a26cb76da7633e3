//! Draws a plan from a seed. Every actor has its own random generator, so more events of one do not change the others.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::plan::{
    AwsFault, FunctionKill, LinkFault, Manner, PhonePlan, Plan, PushPlan, ServerFault, Step, Timed,
    UpwireFault, Way,
};
use super::{Backend, Chaos};

/// The time for which a session without a connection may be resumed.
pub(super) const HIBERNATION: Duration = Duration::from_secs(6);
/// Longest time for which the connection of a phone is stalled.
pub(super) const STALL_MAX: Duration = Duration::from_millis(5000);
/// Number of accounts, one of which has two phones.
const ACCOUNTS_PER_PAIR: usize = 5;
const SENDERS_PER_REGISTRATION: usize = 2;
/// Number of relays: one is active, the other stands by.
pub(super) const RELAYS: usize = 2;
/// The time for which the lease of a killed relay lasts (relay/src/lease.rs).
const LEASE: Duration = Duration::from_secs(15);
/// Longest time that a relay takes to stop. It waits for the answers to the pushes in flight.
const STOP: Duration = Duration::from_secs(10);
/// Shortest time before the first fault, in milliseconds.
const QUIET_MILLIS: u64 = 500;

/// The random generator of one actor. Its algorithm is the same on every machine.
struct Chance(Xoshiro256PlusPlus);

impl Chance {
    fn of(seed: u64, actor: usize) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add((actor as u64) << 32)))
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..=to))
    }

    fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count as u64) as usize
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    /// Draws one of these, by weight.
    fn choose<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let total: u32 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.random_range(0..total);
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *choice,
            }
        }
        unreachable!("the weights add up")
    }
}

/// The two parts of a run: in the storm everything fails; in the calm after it, only phones come and go. The pushes
/// that wait in the calm must arrive in order.
struct Span {
    storm: Duration,
    end: Duration,
    /// The time between the last push that waits for a phone in the calm and that phone's return.
    settling: Duration,
}

impl Span {
    fn of(chaos: &Chaos) -> Self {
        let settling = settling(chaos.backend);
        let calm = settling + Duration::from_secs(5);
        let end = Duration::from_secs(chaos.size.seconds);
        Self { storm: end.saturating_sub(calm), end, settling }
    }

    fn calm(&self) -> Duration {
        self.end - self.storm
    }
}

/// Returns the longest time until a push whose phone is away waits in the mailbox.
pub(super) fn settling(backend: Backend) -> Duration {
    Duration::from_secs(match backend {
        Backend::Embedded => 3,
        // SQS hides the entries that a killed relay was about to receive for their visibility timeout.
        Backend::Cloud => 9,
    })
}

pub(super) fn plan(chaos: &Chaos) -> Plan {
    let span = Span::of(chaos);
    let mut actors = 0..;
    let mut chance = || Chance::of(chaos.seed, actors.next().unwrap_or_default());
    let phones = phones(&mut chance(), chaos.size.phones);
    let mut plan = Plan { phones, ..Plan::default() };
    // The XMPP server and the connections to it come back slowly. More of its faults would hide all others.
    plan.server = faults(chance(), span.storm / 2, (8000, 20_000), server_fault);
    plan.link = faults(chance(), span.storm, (2000, 8000), link_fault);
    if chaos.backend == Backend::Embedded {
        plan.upwires.push(faults(chance(), span.storm, (2500, 8000), |chance| upwire_fault(chance, 4000)));
    } else {
        let end = span.storm.saturating_sub(STOP);
        for _ in 0..RELAYS {
            let mut faults = faults(chance(), end, (8000, 20_000), |chance| upwire_fault(chance, 20_000));
            // A late kill would leave the lease to run out in the calm. A relay that is stopped gives it back.
            let late = faults.iter_mut().filter(|fault| fault.at + LEASE > span.storm);
            late.for_each(|fault| fault.what = UpwireFault::Stop(Duration::from_millis(100)));
            plan.upwires.push(faults);
        }
        plan.aws = faults(chance(), span.storm, (2500, 8000), aws_fault);
        plan.function = faults(chance(), span.storm, (6000, 15_000), |_| (FunctionKill, Duration::ZERO));
    }
    plan.pushes = pushes(&mut chance(), &span, &plan.phones, chaos.size.pushes_per_second);
    plan.roll_call = registrations(&plan.phones).into_iter().map(|of| roll_call(of, span.end)).collect();
    for phone in &mut plan.phones {
        let applications = phone.applications;
        phone.steps = line(&mut chance(), &span);
        phone.steps.extend(answers(&mut chance(), &span));
        (0..applications).for_each(|number| phone.steps.extend(removals(&mut chance(), &span, number)));
        phone.steps.sort_by_key(|step| step.at);
    }
    plan
}

fn phones(chance: &mut Chance, count: usize) -> Vec<PhonePlan> {
    let mut phones: Vec<PhonePlan> = Vec::new();
    let mut accounts = 0..;
    while phones.len() < count {
        let account = accounts.next().unwrap_or_default();
        let of_account = if account % ACCOUNTS_PER_PAIR == 1 { 2 } else { 1 };
        phones.extend((0..of_account).map(|_| PhonePlan {
            account,
            greets: chance.percent(60),
            applications: if chance.percent(40) { 2 } else { 1 },
            steps: Vec::new(),
        }));
    }
    phones.truncate(count);
    phones
}

/// Draws at least one fault of one kind, one after the other. The last begins before `end`.
fn faults<T>(
    mut chance: Chance,
    end: Duration,
    (gap_min, gap_max): (u64, u64),
    fault: impl Fn(&mut Chance) -> (T, Duration),
) -> Vec<Timed<T>> {
    let mut faults = Vec::new();
    let first_by = (end.as_millis() as u64).min(gap_max).max(QUIET_MILLIS);
    let mut at = chance.millis(QUIET_MILLIS, first_by);
    while at < end || faults.is_empty() {
        let (what, lasting) = fault(&mut chance);
        faults.push(Timed { at, what });
        at += lasting + chance.millis(gap_min, gap_max);
    }
    faults
}

fn upwire_fault(chance: &mut Chance, hang_max: u64) -> (UpwireFault, Duration) {
    let away = chance.choose(&[(2, (0, 50)), (2, (200, 1000)), (1, (1000, 3000))]);
    let away = chance.millis(away.0, away.1);
    match chance.below(10) {
        0..5 => (UpwireFault::Kill(away), away),
        5..9 => (UpwireFault::Stop(away), away),
        _ => {
            let lasting = chance.millis(500, hang_max);
            (UpwireFault::Hang(lasting), lasting)
        }
    }
}

fn server_fault(chance: &mut Chance) -> (ServerFault, Duration) {
    let lasting = chance.millis(200, 4000);
    let fault = match chance.below(10) {
        0..5 => ServerFault::Kill(lasting),
        5..7 => ServerFault::Stop(lasting),
        _ => ServerFault::Hang(lasting),
    };
    (fault, lasting)
}

fn link_fault(chance: &mut Chance) -> (LinkFault, Duration) {
    match chance.below(3) {
        0 => {
            let lasting = chance.millis(200, 3000);
            (LinkFault::Cut(lasting), lasting)
        }
        1 => (LinkFault::Reset, Duration::ZERO),
        _ => {
            let lasting = chance.millis(500, 7000);
            (LinkFault::Stall(lasting), lasting)
        }
    }
}

fn aws_fault(chance: &mut Chance) -> (AwsFault, Duration) {
    // Cuts either one relay from the tables for long enough to lose its lease, or several ways for a short time.
    let (ways, lasting) = if chance.percent(15) {
        (vec![Way::RelayToTables(chance.below(RELAYS))], chance.millis(15_000, 18_000))
    } else {
        let mut ways = vec![Way::IngressToQueue, Way::IngressToTables];
        ways.extend((0..RELAYS).flat_map(|relay| [Way::RelayToQueue(relay), Way::RelayToTables(relay)]));
        let one = ways[chance.below(ways.len())];
        ways.retain(|way| *way == one || chance.percent(40));
        (ways, chance.millis(300, 6000))
    };
    (AwsFault { ways, lasting }, lasting)
}

/// Returns the phone and the application of each registration.
fn registrations(phones: &[PhonePlan]) -> Vec<(usize, usize)> {
    let of_phone = |(phone, plan): (usize, &PhonePlan)| {
        (0..plan.applications).map(move |application| (phone, application)).collect::<Vec<_>>()
    };
    phones.iter().enumerate().flat_map(of_phone).collect()
}

fn roll_call((phone, application): (usize, usize), at: Duration) -> Timed<PushPlan> {
    let what = PushPlan { phone, application, sender: 0, ttl: None, urgency: None, topic: None, bytes: 40 };
    Timed { at, what }
}

fn pushes(chance: &mut Chance, span: &Span, phones: &[PhonePlan], per_second: usize) -> Vec<Timed<PushPlan>> {
    let registrations = registrations(phones);
    // Moments of each registration at which many pushes come at once. The last is in the calm, when its phone may be
    // away.
    let bursts: Vec<[Duration; 3]> = registrations
        .iter()
        .map(|_| {
            let storm = span.storm.as_millis() as u64;
            let calm = span.storm + (span.calm() - span.settling) / 3;
            [chance.millis(0, storm), chance.millis(0, storm), calm]
        })
        .collect();
    let end = span.end.as_millis() as u64;
    let count = per_second as u64 * span.end.as_secs();
    let mut pushes: Vec<Timed<PushPlan>> = (0..count)
        .map(|_| {
            let which = chance.below(registrations.len());
            let at = match chance.percent(30) {
                true => bursts[which][chance.below(3)] + chance.millis(0, 300),
                false => chance.millis(0, end),
            };
            let (phone, application) = registrations[which];
            Timed { at, what: push(chance, phone, application) }
        })
        .collect();
    pushes.sort_by_key(|push| push.at);
    pushes
}

fn push(chance: &mut Chance, phone: usize, application: usize) -> PushPlan {
    let short = 2 + chance.below(9) as u32;
    let long = 3600 + chance.below(86_400) as u32;
    let bytes = chance.choose(&[(80, (40, 120)), (15, (800, 1200)), (5, (4096, 4096))]);
    PushPlan {
        phone,
        application,
        sender: chance.below(SENDERS_PER_REGISTRATION),
        ttl: chance.choose(&[(50, None), (30, Some(long)), (14, Some(short)), (6, Some(0))]),
        urgency: chance.choose(&[
            (60, None),
            (5, Some("normal")),
            (15, Some("high")),
            (10, Some("low")),
            (10, Some("very-low")),
        ]),
        topic: chance.percent(15).then(|| chance.below(3) as u8),
        bytes: bytes.0 + chance.below(bytes.1 - bytes.0 + 1),
    }
}

/// Draws the cuts and stalls of a phone's connection, and its absences.
fn line(chance: &mut Chance, span: &Span) -> Vec<Timed<Step>> {
    #[derive(Clone, Copy)]
    enum Episode {
        CutShortly,
        CutForLong,
        Reset,
        Roam,
        Stall,
        Away,
    }
    use Episode::{Away, CutForLong, CutShortly, Reset, Roam, Stall};

    let mut steps = Vec::new();
    let mut resource = 0;
    let mut step = |at, what| steps.push(Timed { at, what });
    let mut at = chance.millis(0, 4000);
    while at < span.storm {
        let episode =
            chance.choose(&[(5, CutShortly), (3, CutForLong), (2, Reset), (2, Roam), (2, Stall), (4, Away)]);
        let hibernation = HIBERNATION.as_millis() as u64;
        let lasting = match episode {
            CutShortly => chance.millis(100, 2500),
            CutForLong => chance.millis(hibernation + 500, hibernation + 3000),
            Reset | Roam => Duration::ZERO,
            Stall => chance.millis(300, STALL_MAX.as_millis() as u64),
            Away => chance.millis(100, 6000),
        }
        .min(span.storm - at);
        match episode {
            CutShortly | CutForLong => {
                step(at, Step::Cut);
                step(at + lasting, Step::Mend);
            }
            Reset => step(at, Step::Reset),
            Roam => step(at, Step::Roam),
            Stall => {
                step(at, Step::Stall);
                step(at + lasting, Step::Flow);
            }
            Away => {
                resource += u8::from(chance.percent(20));
                step(at, Step::Leave);
                step(at + lasting, Step::Return(resource));
            }
        }
        at += lasting + chance.millis(500, 5000);
    }
    if chance.percent(60) {
        step(span.storm + chance.millis(0, 500), Step::Leave);
        step(span.end - Duration::from_millis(500), Step::Return(resource));
    }
    steps
}

/// Draws the manners in which a phone answers.
fn answers(chance: &mut Chance, span: &Span) -> Vec<Timed<Step>> {
    let mut steps = Vec::new();
    let mut at = chance.millis(0, 6000);
    while at < span.storm {
        let manner = match chance.below(7) {
            0..3 => Manner::Late(chance.millis(20, 1500)),
            // Longer than the relay waits for an answer.
            3 => Manner::Late(chance.millis(3000, 7000)),
            4..6 => Manner::Never,
            _ => Manner::Busy,
        };
        steps.push(Timed { at, what: Step::Answer(manner) });
        at += chance.millis(500, 5000);
        steps.push(Timed { at, what: Step::Answer(Manner::Result) });
        at += chance.millis(1000, 8000);
    }
    steps
}

/// Draws the moments at which an application is removed and installed again.
fn removals(chance: &mut Chance, span: &Span, application: usize) -> Vec<Timed<Step>> {
    let mut steps = Vec::new();
    let mut at = chance.millis(0, 90_000);
    while at < span.storm {
        steps.push(Timed { at, what: Step::Remove(application) });
        at += chance.millis(200, 6000);
        steps.push(Timed { at, what: Step::Install(application) });
        at += chance.millis(5000, 60_000);
    }
    steps
}
