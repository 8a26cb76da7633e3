//! The report for a person, and the aims that are met.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Calls;
use crate::ingress::{Cold, REQUESTS, Warm};
use crate::mailbox::{DRAINED, SINGLES, Stored, TRIES_SECONDS};
use crate::polls::{ENTRIES_MAX, Polls};
use crate::prices::{self, Item, Waiting};
use crate::relay::{PUSHES, Relay, Relays};
use crate::troubles::{OTHERS, Pair, Rounds};

/// Sizes of the bodies that wait, in bytes, as docs/aws/cost.md has them.
const WAITING_BODIES_BYTES: [usize; 3] = [400, 1024, 4096];

pub(crate) struct Report {
    pub(crate) function: PathBuf,
    pub(crate) cold: Cold,
    pub(crate) warm: Warm,
    pub(crate) relays: Relays,
    pub(crate) stored: Stored,
    pub(crate) polls: Vec<Polls>,
    pub(crate) troubles: Vec<Rounds>,
}

/// The size of the function, and its cold start.
pub(crate) struct Starts<'a>(pub(crate) &'a Cold);

/// The polls at each rate, as a table.
pub(crate) struct Rates<'a>(pub(crate) &'a [Polls]);

/// The rates of the others, as a table.
pub(crate) struct Troubles<'a>(pub(crate) &'a [Rounds]);

/// Least share of their rate that other accounts keep.
const KEPT_AT_LEAST: f64 = 0.95;
/// Greatest ratio of the cold start to that of an empty function.
const COLD_AT_MOST: f64 = 1.5;
const SIZE_MB_MAX: f64 = 4.5;

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

struct Aim {
    what: &'static str,
    measured: f64,
    bound: Bound,
    /// True for a count, which is the same on every machine; false for a time.
    counted: bool,
}

impl Report {
    fn aims(&self) -> Vec<Aim> {
        let calls = |kind: usize| per(&self.warm.kinds[kind].calls, REQUESTS);
        let aim = |what, measured, at_most, counted| {
            let bound = Bound::AtMost(at_most);
            Aim { what, measured, bound, counted }
        };
        let beside_empty = self.cold.this.median.as_secs_f64() / self.cold.empty.median.as_secs_f64();
        let mut aims = vec![
            aim("calls per accepted push, function", calls(0), 2.0, true),
            aim("calls per forgery, function", calls(2), 0.0, true),
            aim("calls per delivered push, relay under load", per(self.relay_calls(), PUSHES), 0.25, true),
            aim("calls per kept push, relay", per(&self.stored.kept, SINGLES), 3.0, true),
            aim("calls per push drained of 100, relay", per(&self.stored.drained, DRAINED), 0.25, true),
            aim("size, MB", self.cold.size_mb, SIZE_MB_MAX, true),
            aim("cold start ÷ that of an empty function, medians", beside_empty, COLD_AT_MOST, false),
            aim("memory, peak, MiB", self.warm.memory_peak_mib, 7.0, false),
        ];
        aims.extend(self.troubles.iter().map(|rounds| {
            let bound = Bound::AtLeast(KEPT_AT_LEAST);
            Aim { what: rounds.title(), measured: rounds.ratio(), bound, counted: false }
        }));
        aims
    }

    /// Fails if a count misses its aim.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let missed: Vec<_> =
            self.aims().into_iter().filter(|aim| aim.counted && !aim.is_met()).map(|aim| aim.what).collect();
        anyhow::ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
        Ok(())
    }
}

impl Aim {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.measured <= bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Upwire on AWS: calls, costs, sizes\n\n{}\n", e2e::machine::describe())?;
        writeln!(f, "## Aims\n\n| | measured | aim | |\n| --- | --- | --- | --- |")?;
        for aim in self.aims() {
            let verdict = if aim.is_met() { "met" } else { "missed" };
            let bound = match aim.bound {
                Bound::AtMost(bound) => format!("≤ {bound:.2}"),
                Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
            };
            writeln!(f, "| {} | {:.2} | {bound} | {verdict} |", aim.what, aim.measured)?;
        }
        writeln!(f, "\n## The function ({})\n", self.function.display())?;
        write!(f, "{}", Starts(&self.cold))?;
        writeln!(f, "| request | p50, both emulators included | calls each | |\n| --- | --- | --- | --- |")?;
        for kind in &self.warm.kinds {
            let calls = per(&kind.calls, REQUESTS);
            writeln!(
                f,
                "| {} | {:.2} ms | {calls:.2} | {} |",
                kind.title,
                millis(kind.p50),
                list(&kind.calls)
            )?;
        }
        self.write_relays(f)?;
        self.write_stored(f)?;
        write!(f, "{}{}", Rates(&self.polls), Troubles(&self.troubles))?;
        self.write_costs(f)
    }
}

impl fmt::Display for Starts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.2} MB.\n", self.0.size_mb)?;
        for (whose, starts) in [("Cold start", &self.0.this), ("That of an empty function", &self.0.empty)] {
            let (fastest, median) = (millis(starts.fastest), millis(starts.median));
            writeln!(f, "{whose}: {median:.2} ms (median), {fastest:.2} ms (fastest).\n")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Polls\n\nEach is answered with {ENTRIES_MAX} entries at most, as SQS does while a queue is short.\n\n\
             | pushes a second | polls a push | most that waited for a poll | from the last post to the last arrival |\n\
             | ---: | ---: | ---: | ---: |"
        )?;
        for Polls { rate, pushes, polls, backlog_max, behind } in self.0 {
            let each = *polls as f64 / *pushes as f64;
            writeln!(f, "| {rate} | {each:.2} | {backlog_max} | {:.0} ms |", behind.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Troubles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## One account in trouble\n\nPushes a second that {OTHERS} other accounts get from their mailboxes, and the relay removes.\n\n\
             | removals of the one account | alone | beside it | median ratio |\n| --- | --- | --- | ---: |"
        )?;
        for rounds in self.0 {
            let list = |rate: fn(&Pair) -> f64| {
                rounds.pairs.iter().map(|pair| format!("{:.0}", rate(pair))).collect::<Vec<_>>().join(", ")
            };
            let (alone, beside) = (list(|pair| pair.alone), list(|pair| pair.beside));
            writeln!(f, "| {:?} | {alone} | {beside} | {:.2} |", rounds.trouble, rounds.ratio())?;
        }
        Ok(())
    }
}

impl Report {
    /// Returns the calls of the first round. The calls of all rounds are much alike.
    fn relay_calls(&self) -> &Calls {
        static NONE: Calls = Calls::new();
        self.relays.this.first().map_or(&NONE, |relay| &relay.calls)
    }

    fn write_relays(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## The relay\n\n{PUSHES} pushes that wait in the queue, from the start of the relay until all are delivered and \
             deleted.\n\n\
             | relay | round | pushes/s | its CPU, µs per push | calls | memory MiB | CPU of one core |\n\
             | --- | ---: | ---: | ---: | --- | ---: | --- |"
        )?;
        let Relays { this, base } = &self.relays;
        for (who, rounds) in [("this", this), ("base", base)] {
            for (relay, round) in rounds.iter().zip(1..) {
                let seconds = relay.time.as_secs_f64();
                let shares =
                    relay.cpu.iter().map(|(who, cpu)| format!("{who} {:.0} %", cpu / seconds * 100.0));
                let (rate, micros, calls) = (relay.per_second(), relay.micros(), list(&relay.calls));
                let (memory, shares) = (relay.memory_peak_mib, shares.collect::<Vec<_>>().join(", "));
                writeln!(
                    f,
                    "| {who} | {round} | {rate:.0} | {micros:.0} | {calls} | {memory:.0} | {shares} |"
                )?;
            }
        }
        if !base.is_empty() {
            let ratio = |value: fn(&Relay) -> f64| {
                median(this.iter().zip(base).map(|(it, base)| value(it) / value(base)))
            };
            let (rate, cpu) = (ratio(Relay::per_second), ratio(Relay::micros));
            writeln!(
                f,
                "\nThis beside the base: {rate:.2} of its pushes a second, {cpu:.2} of its CPU per push."
            )?;
        }
        Ok(())
    }

    fn write_stored(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stored { kept, drained, tries, tried, .. } = &self.stored;
        writeln!(
            f,
            "\n## A push that waits\n\n| for a phone that is away | calls each | |\n| --- | --- | --- |"
        )?;
        writeln!(f, "| kept, one by one | {:.2} | {} |", per(kept, SINGLES), list(kept))?;
        writeln!(f, "| drained, {DRAINED} at a time | {:.2} | {} |", per(drained, DRAINED), list(drained))?;
        let what = format!("the phone is tried, {tries} times in {TRIES_SECONDS} s and a moment");
        writeln!(f, "| {what} | {:.2} | {} |", per(tried, *tries), list(tried))
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = &self.warm.kinds[0].calls;
        let items = prices::per_million(accepted, REQUESTS, self.relay_calls(), PUSHES);
        let total = items.iter().map(|item| item.dollars).sum();
        writeln!(
            f,
            "\n## Costs (USD, us-east-1, list prices)\n\n| per million pushes | USD |\n| --- | --- |"
        )?;
        let total = Item { what: "**in all, behind a Function URL**", dollars: total };
        for Item { what, dollars } in items.iter().chain([&total]) {
            writeln!(f, "| {what} | {dollars:.4} |")?;
        }
        writeln!(
            f,
            "\n| per million that wait, in addition | item, bytes | kept | drained | in all | tried once, a page waiting |\n\
             | --- | --- | --- | --- | --- | --- |"
        )?;
        for body_bytes in WAITING_BODIES_BYTES {
            let Waiting { bytes, kept, drained, tried } = prices::waiting(&self.stored, body_bytes);
            let all = kept + drained;
            writeln!(
                f,
                "| bodies of {body_bytes} bytes | {bytes} | {kept:.4} | {drained:.4} | **{all:.4}** | {tried:.4} |"
            )?;
        }
        writeln!(f, "\n| beside that | USD |\n| --- | --- |")?;
        for Item { what, dollars } in prices::others() {
            writeln!(f, "| {what} | {dollars:.4} |")?;
        }
        Ok(())
    }
}

/// Returns the median; of two middle values, the lower.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn per(calls: &Calls, pushes: usize) -> f64 {
    calls.values().sum::<usize>() as f64 / pushes as f64
}

fn list(calls: &Calls) -> String {
    let calls = calls.iter().map(|(call, count)| format!("{call} {count}"));
    calls.collect::<Vec<_>>().join(", ")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
