//! The plan of a run says who takes part, what they do, and what fails. It is drawn from a seed.

use std::time::Duration;

use push::{MailboxBounds, Urgency};

use crate::chance::Chance;

/// Time in which senders post, phones come and go, and faults strike. After it, everything answers.
pub(crate) const STORM: Duration = Duration::from_secs(600);

/// Added to the key of a sender: key of the chance by which it withdraws pushes. These keys lie beyond those of phones
/// and senders.
const REGRET: u64 = 4000;
/// Key of the chance that draws the bounds of accounts.
const BOUNDS: u64 = 5000;
/// Key of the chance that draws how many calls are slow.
const SLOWNESS: u64 = 5001;
/// Key of the chance that draws an account whose results come late.
const LATENESS: u64 = 5002;

/// The kind of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// SQLite: the queue keeps its order, and a read shows all writes before it.
    Embedded,
    /// SQS and DynamoDB: a push may come twice and in any order, and a read may miss the last writes.
    Cloud,
}

/// The XMPP server that is simulated (docs/xmpp-servers.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A second connection of the component is refused.
    Prosody,
    /// Stanzas are spread over all connections of the component.
    Ejabberd,
}

/// The manner in which a phone takes pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Shows each push, and acknowledges it this many milliseconds later.
    Answers(u64),
    /// Shows each push, and acknowledges it 3 to 40 s later, or just after the relay has given it up.
    Slow,
    /// Shows and answers nothing.
    Silent,
    /// Shows and acknowledges some pushes, shows others without an answer, and rejects others for now.
    Flaky,
}

/// The manner in which a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The phone closes it.
    Close,
    /// Its connection breaks. The session hibernates if it can be resumed.
    Break,
}

/// The manner in which a phone comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// The phone resumes its session if that still hibernates, or else begins one under the same resource.
    Same,
    /// The phone begins a session under another resource. It registers only the applications that are due.
    Renamed,
}

/// A step of a phone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Leave(Leave),
    Return(Return),
    Temper(Temper),
    /// An application goes. The phone refuses its pushes from then on.
    Uninstall(usize),
    /// An application comes back, and registers.
    Install(usize),
}

/// One device.
#[derive(Debug, Clone)]
pub(crate) struct PhonePlan {
    /// Part of its resource, and key of its chance.
    pub(crate) key: u64,
    pub(crate) account: u64,
    /// Numbers of its applications. Two devices of an account share those that have the same number on both.
    pub(crate) applications: Vec<u64>,
    /// True if it sends directed presence.
    pub(crate) greets: bool,
    /// True if its sessions can be resumed.
    pub(crate) resumes: bool,
    pub(crate) temper: Temper,
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// One push of an application server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostPlan {
    pub(crate) at: Duration,
    pub(crate) ttl: u32,
    pub(crate) urgency: Urgency,
    pub(crate) topic: Option<u8>,
    /// Time after the 201 at which the sender withdraws the push, if it still waits.
    pub(crate) withdrawn_after: Option<Duration>,
}

/// An application server, which sends to one application of an account.
#[derive(Debug, Clone)]
pub(crate) struct SenderPlan {
    pub(crate) key: u64,
    pub(crate) account: u64,
    pub(crate) application: u64,
    pub(crate) posts: Vec<PostPlan>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A relay dies, and starts again after this time.
    Crash(usize, Duration),
    /// A relay makes this many more calls of ports, and dies in the one that follows. `true`: that call has had its
    /// effect.
    CrashInCall(usize, u64, bool),
    /// A relay is stopped in good order, and starts again after this time.
    Stop(usize, Duration),
    /// A relay's process, its ports and its stream stand still for this time.
    Pause(usize, Duration),
    /// The XMPP server restarts. Its port for components opens after this time.
    Restart(Duration),
    /// The XMPP server's machine restarts: relays are not told that their connections have ended.
    Vanish(Duration),
    /// All phones go. Then a relay dies, and cannot read the rows of one account as it starts again. The phones of that
    /// account come back when the rows can be read, the others before the relay does.
    ComeBackFirst(usize, u64),
    /// The rows of one account cannot be read for this time. A relay dies, and starts again meanwhile.
    Row(usize, u64, Duration),
    /// All streams of the component break.
    Cut,
    /// For this time, the first percentage of calls fails. Of the calls that do not fail, the second percentage loses
    /// its answer.
    Calls(Duration, u64, u64),
    /// A stranger answers pushes in place of the phones. `true`: with results; `false`: with errors.
    Stranger(bool),
}

/// The plan of one run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) flavour: Flavour,
    pub(crate) manner: Manner,
    pub(crate) relays: usize,
    pub(crate) hibernation: Duration,
    pub(crate) lifetime_seconds: i64,
    pub(crate) ack_timeout: Duration,
    pub(crate) mailbox: MailboxBounds,
    /// Most registrations of one account.
    pub(crate) registrations_max: usize,
    /// Number of slow calls in a thousand frequent calls of the store. Five times as many of the other calls are slow.
    pub(crate) slow_permille: u64,
    /// Errors of the relays' clocks, in milliseconds.
    pub(crate) skews: Vec<i64>,
    pub(crate) phones: Vec<PhonePlan>,
    pub(crate) senders: Vec<SenderPlan>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    pub(crate) keep_lines: bool,
}

impl Plan {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, 0);
        let flavour = chance.choose(&[(1, Flavour::Embedded), (1, Flavour::Cloud)]);
        let relays = match flavour {
            Flavour::Embedded => 1,
            Flavour::Cloud => chance.choose(&[(1, 1), (1, 2)]),
        };
        let mut plan = Self {
            seed,
            flavour,
            manner: chance.choose(&[(1, Manner::Prosody), (1, Manner::Ejabberd)]),
            relays,
            hibernation: Duration::from_secs(chance.choose(&[(1, 10), (1, 60), (1, 300)])),
            lifetime_seconds: chance.choose(&[(6, 604_800), (1, 180)]),
            ack_timeout: Duration::from_secs(chance.choose(&[(1, 10), (2, 30)])),
            mailbox: MailboxBounds { of_registration: chance.choose(&[(1, 3), (3, 100)]), of_account: 1000 },
            registrations_max: 200,
            slow_permille: Chance::of(seed, SLOWNESS).choose(&[(2, 0), (1, 5), (1, 40)]),
            skews: (0..relays).map(|_| chance.number(0, 4000) as i64 - 2000).collect(),
            phones: Vec::new(),
            senders: Vec::new(),
            faults: Vec::new(),
            keep_lines: false,
        };
        plan.draw_bounds(&mut Chance::of(seed, BOUNDS));
        let accounts = chance.number(1, 4);
        for account in 0..accounts {
            plan.draw_account(account, &mut chance);
        }
        plan.draw_late_account(accounts, &mut Chance::of(seed, LATENESS));
        let storms = chance.choose(&[(2, 0), (3, 2), (3, 6), (1, 15)]);
        for _ in 0..storms {
            let fault = plan.draw_fault(&mut chance);
            plan.faults.push(fault);
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Sets whether the run keeps the lines of its trace.
    pub fn keep_lines(&mut self, keep: bool) {
        self.keep_lines = keep;
    }

    /// Draws bounds that accounts reach, in one plan of four.
    fn draw_bounds(&mut self, chance: &mut Chance) {
        if !chance.percent(25) {
            return;
        }
        if chance.percent(80) {
            self.mailbox.of_account = chance.number(1, 8) as usize;
        }
        if chance.percent(80) {
            self.registrations_max = chance.number(1, 4) as usize;
        }
    }

    fn draw_account(&mut self, account: u64, chance: &mut Chance) {
        let devices = chance.choose(&[(3, 1), (1, 2)]);
        let clones = chance.percent(50);
        let mut applications = Vec::new();
        for device in 0..devices {
            let own = chance.number(1, 3);
            let first = if clones { 0 } else { device * 10 };
            let of_device: Vec<u64> = (first..first + own).collect();
            applications.extend(
                of_device.iter().copied().filter(|one| !applications.contains(one)).collect::<Vec<_>>(),
            );
            let key = account * 4 + device + 1;
            self.phones.push(draw_phone(key, account, of_device, Chance::of(self.seed, key)));
        }
        for application in applications {
            let key = 100 + account * 32 + application;
            let chances = [key, REGRET + key].map(|actor| Chance::of(self.seed, actor));
            self.senders.push(draw_sender(key, account, application, chances));
        }
    }

    /// Draws an account with two devices that have the same application, in one plan of eight. One device acknowledges
    /// slowly. The other one comes and goes, and takes pushes in some of its sessions. So results come late while their
    /// pushes are on the way to another full JID.
    fn draw_late_account(&mut self, account: u64, chance: &mut Chance) {
        if !chance.percent(12) {
            return;
        }
        let mut at = chance.millis(2000, 10_000);
        let mut others = vec![(at, Step::Return(Return::Same))];
        loop {
            at += chance.millis(3000, 30_000);
            if at >= STORM {
                break;
            }
            others.push((at, Step::Leave(Leave::Close)));
            others.push((at, Step::Temper(chance.choose(&[(1, Temper::Answers(100)), (2, Temper::Silent)]))));
            at += Duration::from_millis(500);
            others.push((at, Step::Return(Return::Same)));
        }
        let slow = vec![(Duration::from_secs(1), Step::Return(Return::Same))];
        for (device, temper, steps) in [(1, Temper::Slow, slow), (2, Temper::Answers(100), others)] {
            self.phones.push(PhonePlan {
                key: account * 4 + device,
                account,
                applications: vec![0],
                greets: true,
                resumes: false,
                temper,
                steps,
            });
        }
        let key = 100 + account * 32;
        let chances = [key, REGRET + key].map(|actor| Chance::of(self.seed, actor));
        self.senders.push(draw_sender(key, account, 0, chances));
    }

    fn draw_fault(&self, chance: &mut Chance) -> (Duration, Fault) {
        let at = chance.millis(5000, STORM.as_millis() as u64 - 60_000);
        let relay = chance.below(self.relays);
        let down = chance.millis(200, 20_000);
        let fault = match chance.number(0, 11) {
            0 => Fault::Crash(relay, down),
            1 | 2 => Fault::CrashInCall(relay, chance.number(0, 40), chance.percent(50)),
            3 => Fault::Stop(relay, down),
            4 => Fault::Pause(relay, chance.millis(500, 40_000)),
            5 => Fault::Restart(chance.millis(500, 30_000)),
            6 => Fault::Cut,
            7 | 8 => Fault::Calls(
                chance.millis(1000, 30_000),
                chance.choose(&[(1, 5), (1, 30), (1, 100)]),
                chance.choose(&[(1, 0), (1, 10), (1, 50)]),
            ),
            9 => Fault::Vanish(chance.millis(500, 30_000)),
            10 => Fault::ComeBackFirst(relay, chance.number(0, 1)),
            _ => Fault::Stranger(chance.percent(50)),
        };
        (at, fault)
    }
}

fn draw_temper(chance: &mut Chance) -> Temper {
    match chance.number(0, 9) {
        0 => Temper::Slow,
        1 => Temper::Silent,
        2 => Temper::Flaky,
        _ => Temper::Answers(chance.number(20, 300)),
    }
}

fn draw_phone(key: u64, account: u64, applications: Vec<u64>, mut chance: Chance) -> PhonePlan {
    let mut steps = vec![(chance.millis(0, 20_000), Step::Return(Return::Same))];
    let mut at = steps[0].0;
    loop {
        at += chance.choose(&[(1, Duration::from_secs(15)), (1, Duration::from_secs(90)), (1, STORM / 2)])
            + chance.millis(0, 20_000);
        if at >= STORM {
            break;
        }
        let application = chance.below(applications.len());
        match chance.number(0, 9) {
            0 | 1 => steps.push((at, Step::Temper(draw_temper(&mut chance)))),
            2 => {
                steps.push((at, Step::Uninstall(application)));
                at += chance.millis(1000, 60_000);
                steps.push((at, Step::Install(application)));
            }
            _ => {
                steps.push((at, Step::Leave(chance.choose(&[(1, Leave::Close), (2, Leave::Break)]))));
                at += chance.choose(&[(2, Duration::ZERO), (1, Duration::from_secs(60))])
                    + chance.millis(100, 20_000);
                let back = chance.choose(&[(2, Return::Same), (1, Return::Renamed)]);
                steps.push((at, Step::Return(back)));
            }
        }
    }
    let temper = draw_temper(&mut chance);
    PhonePlan {
        key,
        account,
        applications,
        greets: chance.percent(90),
        resumes: chance.percent(60),
        temper,
        steps,
    }
}

fn draw_sender(
    key: u64,
    account: u64,
    application: u64,
    [mut chance, mut regret]: [Chance; 2],
) -> SenderPlan {
    let pause = chance.choose(&[(1, 5000), (2, 20_000), (2, 60_000)]);
    let (mut at, mut posts) = (Duration::from_secs(2), Vec::new());
    loop {
        at += chance.millis(0, 2 * pause);
        if at >= STORM {
            break;
        }
        let burst = chance.choose(&[(8, 1), (1, 4), (1, 12)]);
        for _ in 0..burst {
            posts.push(PostPlan {
                at: at + chance.millis(0, 50),
                ttl: chance.choose(&[(1, 0), (1, 5), (2, 30), (2, 120), (6, 3600), (4, 86_400)]),
                urgency: chance.choose(&[
                    (1, Urgency::VeryLow),
                    (1, Urgency::Low),
                    (6, Urgency::Normal),
                    (2, Urgency::High),
                ]),
                topic: chance.percent(15).then(|| chance.number(0, 1) as u8),
                withdrawn_after: regret.percent(10).then(|| regret.millis(0, 60_000)),
            });
        }
    }
    SenderPlan { key, account, application, posts }
}
