//! `make bench-crowd`: the effect on a healthy phone of many silent phones, and of many that come back at once. Each
//! row is a ratio within one run: beside the crowd, and before it.

mod greet;
mod silent;
mod stage;
mod stand_in;

use std::fs;
use std::time::Duration;

use anyhow::{bail, ensure};
use e2e::profile_folder;
use tokio::task::LocalSet;

use greet::Greeted;
use silent::{Crowd, Silent};
use stage::Latency;

const USAGE: &str = "cargo bench -p e2e --bench bench-crowd -- [--quick]";
/// Greatest ratio of the p99 beside the crowd to the p99 without it.
const OF_ALONE_MAX: f64 = 2.0;

struct Size {
    silent: usize,
    greeting: usize,
    alone: Duration,
}

const FULL: Size = Size { silent: 1500, greeting: 20_000, alone: Duration::from_secs(10) };
const QUICK: Size = Size { silent: 100, greeting: 500, alone: Duration::from_secs(2) };

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let size = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => FULL,
        ["--quick"] => QUICK,
        _ => bail!("{arguments:?}? {USAGE}"),
    };
    // All phones and senders share one thread, which leaves the other cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (silent, greeted) = LocalSet::new().block_on(&runtime, measure(&size))?;
    let report = report(&size, &silent, &greeted);
    println!("{report}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("crowd.md"), &report)?;
    ensure!(greeted.refused == 0, "{} renewals were refused", greeted.refused);
    Ok(())
}

async fn measure(size: &Size) -> anyhow::Result<(Vec<Silent>, Greeted)> {
    let mut silent = Vec::new();
    for crowd in Crowd::ALL {
        eprintln!("{} silent full JIDs {crowd} …", size.silent);
        let measured = silent::measure(crowd, size.silent, size.alone).await?;
        eprint!("{}", row(&crowd.to_string(), &measured.alone, &measured.beside));
        silent.push(measured);
    }
    Ok((silent, greet::measure(size.greeting, size.alone).await?))
}

fn report(size: &Size, silent: &[Silent], greeted: &Greeted) -> String {
    let mut report = format!(
        "# Upwire beside a crowd\n\n{}. A healthy phone gets 100 pushes a second; milliseconds from POST to phone.\n\n\
         | beside | p50 alone | p50 | p99 alone | p99 | ratio | aim | most | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
        e2e::machine::describe()
    );
    for Silent { crowd, alone, beside } in silent {
        report += &row(&format!("{} silent full JIDs {crowd}", size.silent), alone, beside);
    }
    let Greeted { phones, refused, drained_per_second, direct_per_second, rest, upwire_cpu, alone, beside } =
        greeted;
    report += &row(&format!("{phones} phones that come back within ten seconds"), alone, beside);
    report += &format!(
        "\nThose {phones} come under new resources, renew three registrations each, and have one push waiting: {refused} renewals \
         refused, {drained_per_second:.0} pushes drained a second (directly {direct_per_second:.0}), all answered and arrived \
         {:.2} s after the last greeting, {upwire_cpu:.1} s of Upwire's CPU.\n",
        rest.as_secs_f64()
    );
    report
}

fn row(what: &str, alone: &Latency, beside: &Latency) -> String {
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let ratio = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
    let verdict = if ratio <= OF_ALONE_MAX { "met" } else { "**missed**" };
    format!(
        "| {what} | {} | {} | {} | {} | {ratio:.2} | ≤ {OF_ALONE_MAX:.1} | {} | {verdict} |\n",
        ms(alone.p50),
        ms(beside.p50),
        ms(alone.p99),
        ms(beside.p99),
        ms(beside.most)
    )
}
