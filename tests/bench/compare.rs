//! `make bench-compare`: the gains and losses of this commit beside another, as ratios within each round.

use anyhow::ensure;

use crate::contestant::Who;
use crate::figures::{Figures, Measure, median};
use crate::plan::Load;
use crate::report;
use crate::results::{Case, Results};

/// Largest loss of a measure: more than chance causes on a machine that does little else.
const LOSS_MAX: f64 = 0.15;
/// Bytes per push below which the measure consists of single events: a commit here, a wake-up there.
const BYTES_MIN: f64 = 100.0;

/// The measures that are compared, each with true if more of it is better.
const MEASURES: [(Measure, bool); 5] = [
    (Measure::Delivered, true),
    (Measure::ClientP50, false),
    (Measure::ClientP99, false),
    (Measure::PushServerCpu, false),
    (Measure::PushServerWritten, false),
];

/// This commit beside the base, in one case.
struct Row {
    what: String,
    /// The medians of the base and of this commit.
    medians: (f64, f64),
    /// Ratio of this commit to the base: the median over the rounds; then the least and the greatest.
    ratio: f64,
    range: (f64, f64),
    /// Loss as a part of the base's value; negative for a gain.
    loss: f64,
}

/// Prints a row for each case and measure.
///
/// # Errors
/// A measure has lost more than [`LOSS_MAX`].
pub(crate) fn compare(results: &Results) -> anyhow::Result<()> {
    let pairs = results.cases.iter().filter_map(|case| Some((case, base_of(case, results)?)));
    let rows: Vec<Row> = pairs.flat_map(|(case, base)| rows(case, base)).collect();
    ensure!(!rows.is_empty(), "there is nothing to compare");
    println!("| what | base | this | ratio (range) | |\n| --- | ---: | ---: | ---: | --- |");
    for row in &rows {
        let ((base, this), (least, most)) = (row.medians, row.range);
        let verdict = if row.is_lost() { "**lost**" } else { "" };
        println!(
            "| {} | {base:.2} | {this:.2} | {:.2} ({least:.2}–{most:.2}) | {verdict} |",
            row.what, row.ratio
        );
    }
    let lost: Vec<&str> = rows.iter().filter(|row| row.is_lost()).map(|row| row.what.as_str()).collect();
    ensure!(lost.is_empty(), "lost more than {:.0} %: {}", LOSS_MAX * 100.0, lost.join("; "));
    Ok(())
}

impl Row {
    fn is_lost(&self) -> bool {
        self.loss > LOSS_MAX
    }
}

fn base_of<'a>(case: &Case, results: &'a Results) -> Option<&'a Case> {
    let Who::Upwire(kind) = case.who else { return None };
    results.cases.iter().find(|other| other.who == Who::Base(kind) && other.load == case.load)
}

/// Returns whether a measure is compared under this load. The p99 counts only if the load alone decides when pushes
/// come.
fn is_steady(measure: Measure, load: Load) -> bool {
    measure != Measure::ClientP99 || matches!(load, Load::OfCeiling(_))
}

fn rows(case: &Case, base: &Case) -> Vec<Row> {
    let row = |(measure, more_is_better)| {
        let value = |round: &Figures| round.get(&measure).copied();
        let pairs: Vec<(f64, f64)> = (base.rounds.iter().zip(&case.rounds))
            .filter_map(|(base, this)| Some((value(base)?, value(this)?)))
            .collect();
        let floor = if measure == Measure::PushServerWritten { BYTES_MIN } else { f64::EPSILON };
        let ratio = |(base, this): &(f64, f64)| this.max(floor) / base.max(floor);
        let ratios = || pairs.iter().map(ratio);
        let ratio = median(ratios().collect())?;
        let loss = if more_is_better { 1.0 - ratio } else { ratio - 1.0 };
        Some(Row {
            what: format!("{}, {}: {}", case.who, report::load(case.load), measure.name()),
            medians: (
                median(pairs.iter().map(|(base, _)| *base).collect())?,
                median(pairs.iter().map(|(_, this)| *this).collect())?,
            ),
            ratio,
            range: (ratios().min_by(f64::total_cmp)?, ratios().max_by(f64::total_cmp)?),
            loss,
        })
    };
    let measures = MEASURES.into_iter().filter(|(measure, _)| is_steady(*measure, case.load));
    measures.filter_map(row).collect()
}
