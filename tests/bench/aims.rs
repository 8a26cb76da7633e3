//! The aims of the project, as ratios within one run, each met or not.

use e2e::Kind;

use crate::contestant::{Who, server_name};
use crate::figures::{Figures, Measure, median};
use crate::plan::{Load, Part};
use crate::registering::Rates;
use crate::results::Results;

/// Least ratio to Prosody's ceiling.
const OF_PROSODY_MIN: f64 = 0.92;
/// Least ratio to ejabberd's ceiling.
const OF_EJABBERD_MIN: f64 = 0.68;
/// Least ratio to the best of mod_unified_push.
const OF_MODULE_MIN: f64 = 2.4;
/// Greatest ratios to the best median latency of mod_unified_push, each from this number of senders on.
const OF_MODULE_P50_MAX: [(usize, f64); 3] = [(64, 0.15), (16, 0.50), (1, 0.70)];
/// Greatest ratio of the p99 to the median, under a steady load.
const P99_OF_P50_MAX: f64 = 3.0;
/// Least ratio of the registrations per second to those of mod_unified_push.
const OF_MODULE_REGISTERED_MIN: f64 = 5.0;
/// Largest size of the binary in megabytes.
const BINARY_MAX: f64 = 15.0;
/// Most memory with nothing to do, in megabytes.
const IDLE_MAX: f64 = 12.0;
/// Most memory with many registrations, in megabytes.
const REGISTERED_MAX: f64 = 20.0;

/// One aim, and the measured ratio.
pub(crate) struct Aim {
    pub(crate) what: String,
    /// True if the ratio has to be at least `aim`; false: at most.
    pub(crate) at_least: bool,
    pub(crate) aim: f64,
    /// The median over the rounds.
    pub(crate) ratio: f64,
    /// The least and the greatest ratio of a round.
    pub(crate) range: (f64, f64),
}

impl Aim {
    pub(crate) fn is_met(&self) -> bool {
        if self.at_least { self.ratio >= self.aim } else { self.ratio <= self.aim }
    }
}

/// Returns every aim whose contestants took part.
pub(crate) fn judge(results: &Results, senders: &[usize]) -> Vec<Aim> {
    let mut aims = Vec::new();
    for (kind, aim) in [(Kind::Prosody, OF_PROSODY_MIN), (Kind::Ejabberd, OF_EJABBERD_MIN)] {
        let ratio = |round| Some(best(results, &upwire(kind), round)? / best(results, &bare(kind), round)?);
        let what = format!("pushes/s: upwire / ceiling of {}", server_name(kind));
        aims.extend(over_rounds(results, what, true, aim, ratio));
    }
    let ratio =
        |round| Some(best(results, &upwire(Kind::Prosody), round)? / best(results, &is_module, round)?);
    let what = "pushes/s: upwire (Prosody) / mod_unified_push's best".to_owned();
    aims.extend(over_rounds(results, what, true, OF_MODULE_MIN, ratio));
    for &count in senders {
        let ratio = |round| {
            // Each sender has one push on its way at a time, which is all that mod_unified_push can do.
            let upwire = |who, load| who == Who::Upwire(Kind::Prosody) && load == Load::Arrived(count);
            let module = |who, load| is_module(who, load) && load == Load::Answered(count);
            Some(fastest(results, &upwire, round)? / fastest(results, &module, round)?)
        };
        let what = format!("POST-to-client p50, {count} senders: upwire (Prosody) / mod_unified_push's best");
        let aim = OF_MODULE_P50_MAX.iter().find(|(least, _)| count >= *least).map(|(_, aim)| *aim);
        aims.extend(aim.and_then(|aim| over_rounds(results, what, false, aim, ratio)));
    }
    for kind in [Kind::Prosody, Kind::Ejabberd] {
        let steadily = |who, load| who == Who::Upwire(kind) && load == Load::OfCeiling(Part::HALF);
        let value = |round, measure| values(results, &steadily, round, measure).next();
        let ratio = |round| Some(value(round, Measure::ClientP99)? / value(round, Measure::ClientP50)?);
        let what = format!("half of the ceiling, steadily: p99 / p50, upwire ({})", server_name(kind));
        aims.extend(over_rounds(results, what, false, P99_OF_P50_MAX, ratio));
    }
    aims.extend(judge_registered(results));
    aims.extend(judge_sizes(results));
    aims
}

fn judge_registered(results: &Results) -> Vec<Aim> {
    let rates = |is_such: fn(&Who) -> bool, round: usize| {
        results.registered.iter().find(|(who, _)| is_such(who))?.1.get(round).copied()
    };
    let judge = |kind: &str, rate: fn(&Rates) -> f64| {
        let ratio = |round| {
            let upwire = rates(|who| matches!(who, Who::Upwire(_)), round)?;
            Some(rate(&upwire) / rate(&rates(|who| matches!(who, Who::Module(_)), round)?))
        };
        let what = format!("{kind}: upwire (Prosody) / mod_unified_push (storage)");
        over_rounds(results, what, true, OF_MODULE_REGISTERED_MIN, ratio)
    };
    [judge("first registrations/s", |rates| rates.first), judge("renewals/s", |rates| rates.renewed)]
        .into_iter()
        .flatten()
        .collect()
}

fn judge_sizes(results: &Results) -> Vec<Aim> {
    let Some(sizes) = &results.sizes else { return Vec::new() };
    let (crowd, registered) = sizes.registered;
    let aim = |what, aim, value| Aim { what, at_least: false, aim, ratio: value, range: (value, value) };
    vec![
        aim("the binary, MB".to_owned(), BINARY_MAX, sizes.binary),
        aim("memory with nothing to do, MB".to_owned(), IDLE_MAX, sizes.idle),
        aim(format!("memory with {crowd} registrations, MB"), REGISTERED_MAX, registered),
    ]
}

fn upwire(kind: Kind) -> impl Fn(Who, Load) -> bool {
    move |who, _| who == Who::Upwire(kind)
}

fn bare(kind: Kind) -> impl Fn(Who, Load) -> bool {
    move |who, _| who == Who::Bare(kind)
}

fn is_module(who: Who, _: Load) -> bool {
    matches!(who, Who::Module(_))
}

/// Returns the most pushes per second among such cases, in one round.
fn best(results: &Results, is_such: &dyn Fn(Who, Load) -> bool, round: usize) -> Option<f64> {
    values(results, is_such, round, Measure::Delivered).max_by(f64::total_cmp)
}

/// Returns the least median latency among such cases, in one round.
fn fastest(results: &Results, is_such: &dyn Fn(Who, Load) -> bool, round: usize) -> Option<f64> {
    values(results, is_such, round, Measure::ClientP50).min_by(f64::total_cmp)
}

fn values(
    results: &Results,
    is_such: &dyn Fn(Who, Load) -> bool,
    round: usize,
    measure: Measure,
) -> impl Iterator<Item = f64> {
    let cases = results.cases.iter().filter(|case| is_such(case.who, case.load));
    let figures = cases.filter_map(move |case| case.rounds.get(round));
    figures.filter_map(move |figures: &Figures| figures.get(&measure).copied())
}

fn over_rounds(
    results: &Results,
    what: String,
    at_least: bool,
    aim: f64,
    ratio: impl Fn(usize) -> Option<f64>,
) -> Option<Aim> {
    let ratios: Vec<f64> = (0..results.rounds()).filter_map(ratio).collect();
    let least = ratios.iter().copied().min_by(f64::total_cmp)?;
    let most = ratios.iter().copied().max_by(f64::total_cmp)?;
    Some(Aim { what, at_least, aim, ratio: median(ratios)?, range: (least, most) })
}
