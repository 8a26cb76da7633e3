//! The plan of a run, as data: the actions and faults, and their moments.

use std::fmt;
use std::time::Duration;

/// An event at a moment after the start.
#[derive(Clone, Debug)]
pub(super) struct Timed<T> {
    pub(super) at: Duration,
    pub(super) what: T,
}

/// All events of a run. Each list is in the order of time.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) phones: Vec<PhonePlan>,
    pub(super) pushes: Vec<Timed<PushPlan>>,
    /// The last push to each registration, sent when all is mended and every phone is back. A phone that answers it
    /// gets the pushes that wait, too.
    pub(super) roll_call: Vec<Timed<PushPlan>>,
    /// The faults of each `upwire`: of one on SQLite; on AWS of two relays, one of which is active.
    pub(super) upwires: Vec<Vec<Timed<UpwireFault>>>,
    pub(super) server: Vec<Timed<ServerFault>>,
    pub(super) link: Vec<Timed<LinkFault>>,
    pub(super) aws: Vec<Timed<AwsFault>>,
    pub(super) function: Vec<Timed<FunctionKill>>,
}

/// A phone and its steps. It is online at the start.
#[derive(Debug)]
pub(super) struct PhonePlan {
    /// The account of the phone; an account may have two phones.
    pub(super) account: usize,
    /// True if the phone sends directed presence in each session. Older clients do not.
    pub(super) greets: bool,
    pub(super) applications: usize,
    pub(super) steps: Vec<Timed<Step>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The phone answers pushes in this manner from now on.
    Answer(Manner),
    /// The connection of the phone is closed under it, and the phone has no network.
    Cut,
    /// The phone has a network again, and resumes its session if the server still has it.
    Mend,
    /// The connection of the phone is reset. The phone comes back at once.
    Reset,
    /// The phone comes back by another connection, and the server does not learn that the old one is dead.
    Roam,
    /// The connection of the phone stays up, and nothing passes on it.
    Stall,
    /// Stalled bytes go on.
    Flow,
    /// The phone closes its stream.
    Leave,
    /// The phone logs in anew. Each number is another resource.
    Return(u8),
    /// An application is removed: pushes for it are answered with `item-not-found`.
    Remove(usize),
    /// The application is there again, and registers.
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
    /// The number of the sender among those of this registration. Each sends one push at a time.
    pub(super) sender: usize,
    pub(super) ttl: Option<u32>,
    pub(super) urgency: Option<&'static str>,
    pub(super) topic: Option<u8>,
    pub(super) bytes: usize,
}

/// A fault of `upwire serve` or `upwire relay`: it ends or hangs for this time.
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
    /// The server stays up and does nothing.
    Hang(Duration),
}

/// A fault of the component's connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum LinkFault {
    Cut(Duration),
    Reset,
    Stall(Duration),
}

/// Ways to AWS that are cut, and the duration.
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

/// The function is killed amid its requests, and started again.
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
