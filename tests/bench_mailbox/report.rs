//! The report for a person, and the aims that are met.

use std::fmt;

use anyhow::ensure;
use e2e::bench::BODY_BYTES;

use crate::drain::{Drained, Round};
use crate::million::Million;
use crate::plan::Plan;
use crate::presences::{BURST, Presences};
use crate::stage::{Run, SENDERS, median, server_name};

/// Least ratio of the drained rate to the direct rate of the same phones.
const OF_DIRECT_MIN: f64 = 0.8;
/// Most memory in megabytes, whatever waits.
const MEMORY_MB_MAX: f64 = 40.0;
/// Greatest ratio of the median latency to that with nothing waiting.
const OF_EMPTY_P50_MAX: f64 = 1.5;
/// Greatest ratio of the CPU time of presences with a hundred times as much waiting. Each presence reads a page at most;
/// where little waits, most find nothing new.
const OF_QUIET_PRESENCES_MAX: f64 = 4.0;
/// Largest loss beside the base: more than chance causes on a machine that does little else.
const LOSS_MAX: f64 = 0.15;
/// Largest share of the machine that other processes may take without spoiling a run.
const OTHERS_SHARE_MAX: f64 = 0.12;
const MICROS: f64 = 1e6;

pub(crate) struct Report {
    pub(crate) plan: Plan,
    pub(crate) drains: Vec<Drained>,
    /// The measurements through each server, with nothing waiting and with much.
    pub(crate) millions: Vec<Million>,
    pub(crate) presences: Vec<Presences>,
}

struct Aim {
    what: String,
    /// True if `measured` has to be at least `aim`; false: at most.
    at_least: bool,
    aim: f64,
    measured: f64,
}

impl Aim {
    fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.aim } else { self.measured <= self.aim }
    }
}

impl Drained {
    /// Returns the median of a value over the rounds.
    fn of_rounds(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    fn ratio(&self) -> f64 {
        self.of_rounds(|round| round.drained.per_second() / round.direct.per_second())
    }

    /// Returns the CPU time of Upwire per push, in microseconds.
    fn micros(&self, run: impl Fn(&Round) -> &Run) -> f64 {
        micros(&self.rounds, run)
    }

    /// Compares this binary with the base: pushes per second, and CPU microseconds per push.
    fn beside_base(&self) -> Vec<BesideBase> {
        let runs: [(&'static str, OfRound); 3] = [
            ("drained", |round| &round.drained),
            ("directly", |round| &round.direct),
            ("kept", |round| &round.kept),
        ];
        let compare = |(what, run): (_, OfRound)| {
            let rate = |rounds: &[Round]| median(rounds.iter().map(|round| run(round).per_second()));
            let of = |rounds: &[Round]| (rate(rounds), micros(rounds, run));
            BesideBase { what, base: of(&self.of_base), this: of(&self.rounds) }
        };
        if self.of_base.is_empty() { Vec::new() } else { runs.into_iter().map(compare).collect() }
    }

    fn server_micros(&self, run: impl Fn(&Round) -> &Run) -> f64 {
        let pushes: usize = self.rounds.iter().map(|round| run(round).pushes).sum();
        self.rounds.iter().map(|round| run(round).xmpp_server).sum::<f64>() * MICROS / pushes as f64
    }
}

/// Returns the CPU time of Upwire per push in microseconds, over all rounds. The clock of Linux is too coarse for one.
fn micros(rounds: &[Round], run: impl Fn(&Round) -> &Run) -> f64 {
    let pushes: usize = rounds.iter().map(|round| run(round).pushes).sum();
    rounds.iter().map(|round| run(round).upwire).sum::<f64>() * MICROS / pushes as f64
}

/// Picks one measurement of a round.
type OfRound = fn(&Round) -> &Run;

/// Pushes per second and CPU microseconds per push, of two binaries.
struct BesideBase {
    what: &'static str,
    base: (f64, f64),
    this: (f64, f64),
}

impl BesideBase {
    /// Returns whether this binary delivers less, or takes more CPU time per push.
    fn is_lost(&self) -> bool {
        self.this.0 < self.base.0 * (1.0 - LOSS_MAX) || self.this.1 > self.base.1 * (1.0 + LOSS_MAX)
    }
}

impl Report {
    fn aims(&self) -> Vec<Aim> {
        let of_direct = self.drains.iter().map(|drained| Aim {
            what: format!("pushes/s, {}: drained / directly, {}", drained.case, server_name(drained.kind)),
            at_least: true,
            aim: OF_DIRECT_MIN,
            measured: drained.ratio(),
        });
        let mut aims: Vec<Aim> = of_direct.collect();
        aims.extend(self.presences.iter().map(|presences| Aim {
            what: format!(
                "CPU of {BURST} presences: {} waiting / {}, {}",
                presences.much.0,
                presences.little.0,
                server_name(presences.kind)
            ),
            at_least: false,
            aim: OF_QUIET_PRESENCES_MAX,
            measured: presences.much.1 / presences.little.1,
        }));
        for pair in self.millions.chunks(2) {
            let [empty, full] = pair else { continue };
            let (waiting, server) = (full.waiting, server_name(full.kind));
            aims.push(Aim {
                what: format!("memory with {waiting} waiting, MB, {server}"),
                at_least: false,
                aim: MEMORY_MB_MAX,
                measured: full.memory / 1e6,
            });
            aims.push(Aim {
                what: format!("POST-to-client p50: {waiting} waiting / none, {server}"),
                at_least: false,
                aim: OF_EMPTY_P50_MAX,
                measured: full.p50.as_secs_f64() / empty.p50.as_secs_f64(),
            });
        }
        aims
    }

    /// Checks the aims. A lost push has ended the benchmark before.
    ///
    /// # Errors
    /// An aim is missed, and the run is not quick.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let missed = self.aims().into_iter().filter(|aim| !aim.is_met()).map(|aim| aim.what);
        let lost = self.drains.iter().flat_map(|drained| {
            let lost = drained.beside_base().into_iter().filter(BesideBase::is_lost);
            let server = server_name(drained.kind);
            lost.map(move |row| format!("{}, beside the base: {}, {server}", drained.case, row.what))
        });
        let missed: Vec<String> = missed.chain(lost).collect();
        ensure!(missed.is_empty() || self.plan.quick, "missed: {}", missed.join("; "));
        Ok(())
    }

    fn write_doubts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = || self.drains.iter().flat_map(|drained| &drained.rounds);
        let disturbed =
            |round: &&Round| [&round.direct, &round.drained].iter().any(|run| run.others > OTHERS_SHARE_MAX);
        let (count, all) = (rounds().filter(disturbed).count(), rounds().count());
        if count > 0 {
            writeln!(
                f,
                "\n**Other processes took more than {:.0} % of the machine in {count} of {all} rounds: speeds, and the \
                 ratios made of them, are not to be trusted.** CPU time per push is.",
                OTHERS_SHARE_MAX * 100.0
            )?;
        }
        Ok(())
    }

    fn write_drains(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Drained\n\nPushes per second: drained, from the moment at which all phones greet at once until all is \
             acknowledged and the mailbox is empty; directly, from the first POST of {SENDERS} senders until all is \
             acknowledged and the queue is empty; kept, from the first POST until all is in the mailbox. Medians of \
             {} rounds.\n\n\
             | through | phones | drained/s | directly/s | ratio | kept/s | upwire µs: drained | directly | kept \
             | XMPP server µs: drained | directly | twice |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            self.plan.rounds
        )?;
        for drained in &self.drains {
            let rates = [
                drained.of_rounds(|round| round.drained.per_second()),
                drained.of_rounds(|round| round.direct.per_second()),
                drained.of_rounds(|round| round.kept.per_second()),
            ]
            .map(|rate| format!("{rate:.0}"));
            let micros = [
                drained.micros(|round| &round.drained),
                drained.micros(|round| &round.direct),
                drained.micros(|round| &round.kept),
                drained.server_micros(|round| &round.drained),
                drained.server_micros(|round| &round.direct),
            ]
            .map(|micros| format!("{micros:.0}"));
            writeln!(
                f,
                "| {} | {} | {} | {} | {:.2} | {} | {} | {} |",
                server_name(drained.kind),
                drained.case,
                rates[0],
                rates[1],
                drained.ratio(),
                rates[2],
                micros.join(" | "),
                drained.rounds.iter().map(|round| round.twice).sum::<u64>(),
            )?;
        }
        Ok(())
    }

    fn write_beside_base(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Beside the base\n\n\
             | through | phones | what | pushes/s: base | this | ratio | upwire µs: base | this | ratio | |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
        )?;
        for drained in &self.drains {
            for row in drained.beside_base() {
                let ((base, base_micros), (this, micros)) = (row.base, row.this);
                let verdict = if row.is_lost() { "**lost**" } else { "" };
                writeln!(
                    f,
                    "| {} | {} | {} | {base:.0} | {this:.0} | {:.2} | {base_micros:.0} | {micros:.0} | {:.2} | {verdict} |",
                    server_name(drained.kind),
                    drained.case,
                    row.what,
                    this / base,
                    micros / base_micros
                )?;
            }
        }
        Ok(())
    }

    fn write_presences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Presences\n\nProcessor time of Upwire for {BURST} presences of a phone at once, on average of {} \
             bursts. It acknowledges nothing, and gets one push for each presence. For each of 60 \
             applications of its account, one push waits, or many do.\n\n\
             | through | waiting | ms | waiting | ms |\n| --- | ---: | ---: | ---: | ---: |",
            self.plan.bursts
        )?;
        for Presences { kind, little, much } in &self.presences {
            let [few, many] =
                [little, much].map(|(waiting, seconds)| format!("{waiting} | {:.1}", seconds * 1e3));
            writeln!(f, "| {} | {few} | {many} |", server_name(*kind))?;
        }
        Ok(())
    }

    fn write_millions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Much waits\n\n{} of each of {} phones that stay away, which a sweep tries meanwhile. To a phone that is \
             there: {} pushes one at a time, then as many by {SENDERS} senders.\n\n\
             | through | waiting | memory, MB | file, MB | start, s | deliveries failed | to client p50 ms | p99 | pushes/s |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            self.plan.crowd.pushes_each, self.plan.crowd.phones, self.plan.fresh
        )?;
        for million in &self.millions {
            writeln!(
                f,
                "| {} | {} | {:.0} | {:.0} | {:.1} | {:.0} | {:.2} | {:.2} | {:.0} |",
                server_name(million.kind),
                million.waiting,
                million.memory / 1e6,
                million.file_bytes as f64 / 1e6,
                million.start.as_secs_f64(),
                million.failed,
                million.p50.as_secs_f64() * 1e3,
                million.p99.as_secs_f64() * 1e3,
                million.per_second,
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Upwire's mailbox\n")?;
        writeln!(f, "{}. Pushes of {BODY_BYTES} bytes.\n", e2e::machine::describe())?;
        writeln!(f, "## Aims\n\n| | aim | measured | |\n| --- | ---: | ---: | --- |")?;
        for aim in self.aims() {
            let sign = if aim.at_least { '≥' } else { '≤' };
            let verdict = if aim.is_met() { "met" } else { "**missed**" };
            writeln!(f, "| {} | {sign} {:.2} | {:.2} | {verdict} |", aim.what, aim.aim, aim.measured)?;
        }
        self.write_doubts(f)?;
        if !self.drains.is_empty() {
            self.write_drains(f)?;
        }
        if self.plan.base.is_some() {
            self.write_beside_base(f)?;
        }
        if !self.presences.is_empty() {
            self.write_presences(f)?;
        }
        if !self.millions.is_empty() {
            self.write_millions(f)?;
        }
        Ok(())
    }
}
