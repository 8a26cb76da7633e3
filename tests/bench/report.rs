//! Reports for a person (Markdown) and for a program (JSON).

use std::fmt::{self, Write};

use e2e::bench::BODY_BYTES;
use e2e::machine;
use serde_json::{Value, json};

use crate::aims::Aim;
use crate::contestant::{PHONES, Who};
use crate::figures::{Figures, Measure, combine, median};
use crate::plan::{Load, Plan};
use crate::registering::Rates;
use crate::results::{Case, Results};

/// Largest share of the machine that other processes may take without spoiling a run. It includes the kernel's own work
/// for the benchmark.
pub(crate) const OTHERS_SHARE_MAX: f64 = 0.12;
const PERCENT: f64 = 100.0;

/// Returns the report for people.
pub(crate) fn markdown(results: &Results, aims: &[Aim], plan: &Plan) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(text, "# Upwire's bench\n")?;
    writeln!(text, "{}. Pushes of {BODY_BYTES} bytes to {PHONES} phones.", machine::describe())?;
    writeln!(
        text,
        "Medians of {} rounds, each of {:.1} s after {:.1} s of warming up, contestants in turn.\n",
        results.rounds(),
        plan.window.as_secs_f64(),
        plan.warm_up.as_secs_f64(),
    )?;
    write_aims(&mut text, aims)?;
    write_doubts(&mut text, results)?;
    write_speed(&mut text, results)?;
    write_cost(&mut text, results)?;
    write_registered(&mut text, results, plan)?;
    Ok(text)
}

fn write_aims(text: &mut String, aims: &[Aim]) -> fmt::Result {
    writeln!(
        text,
        "## Aims\n\n| ratio within a round, or size | aim | median (range) | |\n| --- | ---: | ---: | --- |"
    )?;
    for aim in aims {
        let sign = if aim.at_least { '≥' } else { '≤' };
        let verdict = if aim.is_met() { "met" } else { "**missed**" };
        let Aim { what, aim, ratio, range: (least, most), .. } = aim;
        writeln!(text, "| {what} | {sign} {aim:.2} | {ratio:.2} ({least:.2}–{most:.2}) | {verdict} |")?;
    }
    writeln!(text)
}

/// Warns if other processes disturbed the run.
fn write_doubts(text: &mut String, results: &Results) -> fmt::Result {
    let others = |case: &Case| combine(&case.rounds).get(&Measure::OthersShare).copied().unwrap_or_default();
    let disturbed = results.cases.iter().filter(|case| others(case) > OTHERS_SHARE_MAX).count();
    if disturbed > 0 {
        writeln!(
            text,
            "**Other processes took more than {:.0} % of the machine in {disturbed} of {} cases: their speed, and \
             the ratios made of it, are not to be trusted.** CPU time per push is.\n",
            OTHERS_SHARE_MAX * PERCENT,
            results.cases.len()
        )?;
    }
    Ok(())
}

fn write_speed(text: &mut String, results: &Results) -> fmt::Result {
    writeln!(
        text,
        "## Speed\n\nA sender posts when its last push was answered with 201, or (\"arrived\") when it has also \
         arrived, so that nothing piles up. A steady load posts at moments planned ahead; latencies count from those. Backlog: accepted but not arrived when the window ended. A bare \
         component has no senders, but so many pushes unanswered.\n\n\
         | contestant | load | delivered/s | accepted/s | backlog | to client p50 ms | p99 | to 201 p50 ms | p99 \
         | errors | lost | twice |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for case in &results.cases {
        let figures = combine(&case.rounds);
        let show = |measure, decimals| show(&figures, measure, 1.0, decimals);
        let is_bare = matches!(case.who, Who::Bare(_));
        let unless_bare = |cell: String| if is_bare { "–".to_owned() } else { cell };
        let cells = [
            case.who.to_string(),
            load(case.load),
            show(Measure::Delivered, 0),
            unless_bare(show(Measure::Accepted, 0)),
            unless_bare(show(Measure::Backlog, 0)),
            show(Measure::ClientP50, 2),
            show(Measure::ClientP99, 2),
            unless_bare(show(Measure::AnswerP50, 2)),
            unless_bare(show(Measure::AnswerP99, 2)),
            show(Measure::Errors, 0),
            show(Measure::Lost, 0),
            show(Measure::Duplicates, 0),
        ];
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    writeln!(text)
}

fn write_cost(text: &mut String, results: &Results) -> fmt::Result {
    writeln!(
        text,
        "## Cost\n\nCPU time in µs for each push delivered. With all {} cores at work, what one takes the others \
         lack: the load generator (one thread) and processes that are none of ours included.\n\n\
         | contestant | load | push server µs | bytes it writes to disk | XMPP server µs | load generator µs | load generator, of a core \
         | others, of the machine |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        machine::cores()
    )?;
    for case in &results.cases {
        let figures = combine(&case.rounds);
        let cells = [
            case.who.to_string(),
            load(case.load),
            show(&figures, Measure::PushServerCpu, 1.0, 0),
            show(&figures, Measure::PushServerWritten, 1.0, 0),
            show(&figures, Measure::XmppServerCpu, 1.0, 0),
            show(&figures, Measure::GeneratorCpu, 1.0, 0),
            show(&figures, Measure::GeneratorShare, PERCENT, 0) + " %",
            show(&figures, Measure::OthersShare, PERCENT, 0) + " %",
        ];
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    writeln!(text, "\n| process | most memory over all runs, MiB |\n| --- | ---: |")?;
    for (title, mib) in &results.memory_peaks_mib {
        writeln!(text, "| {title} | {mib:.0} |")?;
    }
    Ok(())
}

fn write_registered(text: &mut String, results: &Results, plan: &Plan) -> fmt::Result {
    if results.registered.is_empty() {
        return Ok(());
    }
    let count = plan.registrations;
    writeln!(text, "\n## Registrations\n\n{count} at a time, then a renewal of each.\n")?;
    writeln!(text, "| contestant | first/s | renewed/s |\n| --- | ---: | ---: |")?;
    for (who, rounds) in &results.registered {
        let middle = |rate: fn(&Rates) -> f64| median(rounds.iter().map(rate).collect()).unwrap_or_default();
        writeln!(text, "| {who} | {:.0} | {:.0} |", middle(|it| it.first), middle(|it| it.renewed))?;
    }
    Ok(())
}

/// Describes a load in words.
pub(crate) fn load(load: Load) -> String {
    match load {
        Load::Answered(1) => "1 sender".to_owned(),
        Load::Answered(count) => format!("{count} senders"),
        Load::Arrived(1) => "1 sender, arrived".to_owned(),
        Load::Arrived(count) => format!("{count} senders, arrived"),
        Load::OfCeiling(part) => format!("{} % of the ceiling, steadily", part.percent()),
        Load::Bare(bound) => format!("{bound} unanswered"),
    }
}

fn show(figures: &Figures, measure: Measure, factor: f64, decimals: usize) -> String {
    figures.get(&measure).map_or("–".to_owned(), |value| format!("{:.decimals$}", value * factor))
}

/// Returns the report for programs: every round of every case.
pub(crate) fn json(results: &Results, aims: &[Aim], plan: &Plan) -> Value {
    let aims = aims.iter().map(|aim| {
        json!({
            "what": aim.what,
            "aim": if aim.at_least { json!({"at_least": aim.aim}) } else { json!({"at_most": aim.aim}) },
            "ratio": aim.ratio,
            "least": aim.range.0,
            "most": aim.range.1,
            "met": aim.is_met(),
        })
    });
    json!({
        "machine": machine::describe(),
        "body_bytes": BODY_BYTES,
        "phones": PHONES,
        "window_seconds": plan.window.as_secs_f64(),
        "warm_up_seconds": plan.warm_up.as_secs_f64(),
        "aims": aims.collect::<Vec<_>>(),
        "cases": results.cases.iter().map(case_json).collect::<Vec<_>>(),
        "memory_peak_mib": results.memory_peaks_mib.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn case_json(case: &Case) -> Value {
    let (load_kind, count) = match case.load {
        Load::Answered(count) => ("senders_wait_for_201", count),
        Load::Arrived(count) => ("senders_wait_for_arrival", count),
        Load::OfCeiling(part) => ("steady_percent_of_ceiling", usize::from(part.percent())),
        Load::Bare(bound) => ("unanswered_max", bound),
    };
    json!({
        "contestant": case.who.to_string(),
        "load": load_kind,
        "count": count,
        "median": figures_json(&combine(&case.rounds)),
        "rounds": case.rounds.iter().map(figures_json).collect::<Vec<_>>(),
    })
}

fn figures_json(figures: &Figures) -> Value {
    figures.iter().map(|(measure, value)| (measure.name().to_owned(), json!(value))).collect()
}
