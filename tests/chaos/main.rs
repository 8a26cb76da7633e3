//! `make chaos`: everything fails for a minute, by a plan that is drawn from a seed, and no push that got a 201 is
//! lost.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use e2e::Kind;
use e2e::chaos::{Backend, Chaos, Size};

const USAGE: &str = "[--seed NUMBER] [--backend embedded|cloud|both] [--server prosody|ejabberd] \
                     [--seconds NUMBER] [--plan]";

struct Options {
    runs: Vec<Chaos>,
    /// True if the plan is printed and not run.
    plan_only: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    let mut kept = true;
    for chaos in options.runs {
        if options.plan_only {
            print!("{}", chaos.plan());
            continue;
        }
        println!("chaos, seed {}: begins", chaos.seed);
        let report = chaos.run().await;
        print!("{report}");
        kept &= report.is_kept();
    }
    ensure!(kept, "a promise was broken");
    Ok(())
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (mut seed, mut seconds, mut plan_only) = (None, 60, false);
        let (mut backends, mut server) = (vec![Backend::Embedded, Backend::Cloud], None);
        while let Some(argument) = arguments.next() {
            if argument == "--plan" {
                plan_only = true;
                continue;
            }
            let value = arguments.next().with_context(|| format!("{argument} without a value; {USAGE}"))?;
            match (argument.as_str(), value.as_str()) {
                ("--seed", number) => seed = Some(number.parse().context("--seed")?),
                ("--seconds", number) => seconds = number.parse().context("--seconds")?,
                ("--backend", "embedded") => backends = vec![Backend::Embedded],
                ("--backend", "cloud") => backends = vec![Backend::Cloud],
                ("--backend", "both") => {}
                ("--server", "prosody") => server = Some(Kind::Prosody),
                ("--server", "ejabberd") => server = Some(Kind::Ejabberd),
                _ => bail!("{argument} {value}? {USAGE}"),
            }
        }
        let seed = match seed {
            Some(seed) => seed,
            None => seed_of_the_clock()?,
        };
        let runs = backends
            .into_iter()
            .map(|backend| {
                let (by_default, pushes_per_second) = match backend {
                    Backend::Embedded => (Kind::Prosody, 80),
                    // The emulator and the function take some 50 pushes per second on two cores.
                    Backend::Cloud => (Kind::Ejabberd, 30),
                };
                let size = Size { seconds, phones: 30, pushes_per_second };
                Chaos { seed, backend, server: server.unwrap_or(by_default), size }
            })
            .collect();
        Ok(Self { runs, plan_only })
    }
}

#[expect(clippy::disallowed_methods, reason = "a seed that was not given is as good as any, and printed")]
fn seed_of_the_clock() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
