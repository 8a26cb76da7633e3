//! The plan of a run, as data: who does what, and when.

use std::fmt;
use std::time::Duration;

/// Something at a moment after the start.
#[derive(Clone, Debug)]
pub(super) struct Timed<T> {
    pub(super) at: Duration,
    pub(super) what: T,
}

/// All that will happen; each list is in the order of time.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) phones: Vec<PhonePlan>,
    pub(super) pushes: Vec<Timed<PushPlan>>,
    /// The last push to each registration, sent when everything is mended and everybody back: whoever answers that is
    /// there for what waits, too.
    pub(super) roll_call: Vec<Timed<PushPlan>>,
    /// For each `upwire`: one on SQLite; on AWS two relays, of which one is active.
    pub(super) upwires: Vec<Vec<Timed<UpwireFault>>>,
    pub(super) server: Vec<Timed<ServerFault>>,
    pub(super) link: Vec<Timed<LinkFault>>,
    pub(super) aws: Vec<Timed<AwsFault>>,
    pub(super) function: Vec<Timed<FunctionKill>>,
}

/// A phone and its doings. It is online to begin with.
#[derive(Debug)]
pub(super) struct PhonePlan {
    /// The account of the phone; an account may have two phones.
    pub(super) account: usize,
    /// True if it sends directed presence with each session. Older clients do not.
    pub(super) greets: bool,
    pub(super) applications: usize,
    pub(super) steps: Vec<Timed<Step>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// From now on, it answers pushes so.
    Answer(Manner),
    /// Its connection is closed under it, and it has no network.
    Cut,
    /// It has a network again, and resumes its session if that is still there.
    Mend,
    /// Its connection is reset; it comes back at once.
    Reset,
    /// It comes back by another connection, and the server is not told that the old one is dead.
    Roam,
    /// Nothing passes on its connection, which stays up.
    Stall,
    /// Stalled bytes go on.
    Flow,
    /// It closes its stream.
    Leave,
    /// It logs in anew. Another number is another resource.
    Return(u8),
    /// An application is removed: pushes for it are answered with `item-not-found`.
    Remove(usize),
    /// It is there again, and registers.
    Install(usize),
}

/// The manner in which a phone answers pushes for applications that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Result,
    Late(Duration),
    Never,
    Busy,
}

#[derive(Clone, Debug)]
pub(super) struct PushPlan {
    pub(super) phone: usize,
    pub(super) application: usize,
    /// Which of the senders of this registration; each sends one at a time.
    pub(super) sender: usize,
    pub(super) ttl: Option<u32>,
    pub(super) urgency: Option<&'static str>,
    pub(super) topic: Option<u8>,
    pub(super) bytes: usize,
}

/// `upwire serve` or `upwire relay` ends, or hangs, for so long.
#[derive(Clone, Copy, Debug)]
pub(super) enum UpwireFault {
    Kill(Duration),
    Stop(Duration),
    Hang(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ServerFault {
    Kill(Duration),
    Stop(Duration),
    /// It stays up and does nothing.
    Hang(Duration),
}

/// On the component's connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum LinkFault {
    Cut(Duration),
    Reset,
    Stall(Duration),
}

/// Ways to AWS that are cut, for so long.
#[derive(Clone, Debug)]
pub(super) struct AwsFault {
    pub(super) ways: Vec<Way>,
    pub(super) lasting: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    IngressToQueue,
    IngressToTables,
    RelayToQueue(usize),
    RelayToTables(usize),
}

/// The function is killed, with whatever it is about to answer, and started.
#[derive(Clone, Copy, Debug)]
pub(super) struct FunctionKill;

impl Plan {
    pub(super) fn steps(&self) -> usize {
        self.phones.iter().map(|phone| phone.steps.len()).sum()
    }

    pub(super) fn faults(&self) -> usize {
        let upwires: usize = self.upwires.iter().map(Vec::len).sum();
        upwires + self.server.len() + self.link.len() + self.aws.len() + self.function.len()
    }

    pub(super) fn registrations(&self) -> usize {
        self.phones.iter().map(|phone| phone.applications).sum()
    }

    pub(super) fn accounts(&self) -> usize {
        self.phones.iter().map(|phone| phone.account + 1).max().unwrap_or(0)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (number, phone) in self.phones.iter().enumerate() {
            let PhonePlan { account, greets, applications, steps } = phone;
            let text = format!(
                "phone {number}: of account {account}, {applications} application(s), greets: {greets}"
            );
            lines.push((Duration::ZERO, text));
            lines.extend(steps.iter().map(|step| (step.at, format!("phone {number}: {:?}", step.what))));
        }
        lines.extend(
            self.pushes
                .iter()
                .enumerate()
                .map(|(number, push)| (push.at, format!("push {number}: {:?}", push.what))),
        );
        for (number, faults) in self.upwires.iter().enumerate() {
            lines.extend(faults.iter().map(|fault| (fault.at, format!("upwire {number}: {:?}", fault.what))));
        }
        lines.extend(self.server.iter().map(|fault| (fault.at, format!("XMPP server: {:?}", fault.what))));
        lines.extend(
            self.link.iter().map(|fault| (fault.at, format!("component's connection: {:?}", fault.what))),
        );
        lines.extend(self.aws.iter().map(|fault| (fault.at, format!("ways to AWS: {:?}", fault.what))));
        lines.extend(self.function.iter().map(|fault| (fault.at, "function: killed".to_owned())));
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().try_for_each(|(at, text)| writeln!(f, "{:8.3} {text}", at.as_secs_f64()))
    }
}
