//! The report for a person.

use std::fmt;

use e2e::bench::BODY_BYTES;

use crate::Run;

pub(crate) struct Report {
    /// Number of pushes in each run.
    pub(crate) pushes: usize,
    /// The runs of each case, the plain push first.
    pub(crate) rows: Vec<(&'static str, Vec<Run>)>,
}

impl Report {
    /// Returns the CPU time per push in microseconds, over all rounds. The clock of Linux is too coarse for one.
    fn micros(&self, runs: &[Run]) -> f64 {
        runs.iter().map(|run| run.cpu).sum::<f64>() * 1e6 / (self.pushes * runs.len()) as f64
    }
}

/// Returns the median of the runs' p50, in milliseconds.
fn median_p50(runs: &[Run]) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| run.p50.as_secs_f64() * 1e3).collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What senders cost\n\n{}. Pushes of {BODY_BYTES} bytes.\n", e2e::machine::describe())?;
        writeln!(
            f,
            "One request after the other through `upwire serve` and ejabberd, {} pushes a round, {} rounds; p50 is from the \
             request to its answer, and its median over the rounds; CPU is Upwire's for one push, its delivery included.\n\n\
             | | p50, ms | × plain | CPU, µs/push | × plain |\n| --- | ---: | ---: | ---: | ---: |",
            self.pushes,
            self.rows[0].1.len()
        )?;
        let plain = &self.rows[0].1;
        for (title, runs) in &self.rows {
            let (p50, micros) = (median_p50(runs), self.micros(runs));
            let (times, cost) = (p50 / median_p50(plain), micros / self.micros(plain));
            writeln!(f, "| {title} | {p50:.2} | {times:.2} | {micros:.0} | {cost:.2} |")?;
        }
        Ok(())
    }
}
