//! The figures of one run, and their medians over several.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::bench::Account;

/// The measures of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    Delivered,
    Accepted,
    ClientP50,
    ClientP99,
    AnswerP50,
    AnswerP99,
    Backlog,
    Errors,
    Lost,
    Duplicates,
    PushServerCpu,
    PushServerWritten,
    XmppServerCpu,
    GeneratorCpu,
    GeneratorShare,
    OthersShare,
}

impl Measure {
    /// Returns the name with its unit, as the JSON has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered_per_second",
            Self::Accepted => "accepted_per_second",
            Self::ClientP50 => "post_to_client_p50_ms",
            Self::ClientP99 => "post_to_client_p99_ms",
            Self::AnswerP50 => "post_to_201_p50_ms",
            Self::AnswerP99 => "post_to_201_p99_ms",
            Self::Backlog => "backlog_at_end",
            Self::Errors => "errors",
            Self::Lost => "lost",
            Self::Duplicates => "duplicates",
            Self::PushServerCpu => "push_server_cpu_us_per_push",
            Self::PushServerWritten => "push_server_bytes_written_per_push",
            Self::XmppServerCpu => "xmpp_server_cpu_us_per_push",
            Self::GeneratorCpu => "load_generator_cpu_us_per_push",
            Self::GeneratorShare => "load_generator_share_of_a_core",
            Self::OthersShare => "other_processes_share_of_the_machine",
        }
    }

    /// Returns whether the rounds add up. Otherwise, their median counts.
    fn adds_up(self) -> bool {
        matches!(self, Self::Errors | Self::Lost | Self::Duplicates)
    }
}

/// The figures of one run, without the measures that do not apply.
pub(crate) type Figures = BTreeMap<Measure, f64>;

/// Returns the figures that the journal gives.
pub(crate) fn of_account(account: &Account, window: Duration) -> Figures {
    let per_second = |count: usize| count as f64 / window.as_secs_f64();
    let mut figures = Figures::from([
        (Measure::Delivered, per_second(account.delivered)),
        (Measure::Accepted, per_second(account.accepted)),
        (Measure::Backlog, account.backlog as f64),
        (Measure::Errors, account.errors as f64),
        (Measure::Lost, account.lost as f64),
        (Measure::Duplicates, account.duplicates as f64),
    ]);
    let quantiles = [
        (Measure::ClientP50, &account.to_client, 0.5),
        (Measure::ClientP99, &account.to_client, 0.99),
        (Measure::AnswerP50, &account.to_answer, 0.5),
        (Measure::AnswerP99, &account.to_answer, 0.99),
    ];
    for (measure, sorted, quantile) in quantiles {
        let place = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
        if let Some(time) = sorted.get(place) {
            figures.insert(measure, time.as_secs_f64() * 1e3);
        }
    }
    figures
}

/// Combines the figures of several rounds into one set.
pub(crate) fn combine(rounds: &[Figures]) -> Figures {
    let measures = rounds.iter().flat_map(|round| round.keys().copied());
    let combined = measures.filter_map(|measure| {
        let values = rounds.iter().filter_map(|round| round.get(&measure).copied());
        let value = if measure.adds_up() { Some(values.sum()) } else { median(values.collect()) };
        Some((measure, value?))
    });
    combined.collect()
}

/// Returns the median; of two middle values, the lower.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
