//! `upwire secret`: retires the secret that the first start made, and that the database keeps.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use embedded::Database;

use crate::configuration::existing;
use crate::serve::KEPT_SECRET;

/// Retire the secret that the first start made.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "The secret that `upwire serve` made at its first start, without UPWIRE_SECRET, is kept in the database. It \
        goes on verifying endpoints behind UPWIRE_SECRET for as long as it is there.",
    arg_required_else_help = true
)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Retire(Retire),
}

/// Remove it from the database, while the server is stopped.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Removes the secret that the first start made from the database. The URLs that it has signed are dead \
        from then on. Phones get others as they renew once UPWIRE_SECRET is set: wait for the time in \
        UPWIRE_REGISTRATION_TTL (a week, unless you changed it) after you set it, and a few days more, in which \
        applications tell their servers. Without UPWIRE_SECRET, the next start makes \
        another one.",
    after_long_help = "Exit codes: 0 retired, or there was none; 1 the database cannot be used, or the server runs; 64 wrong usage."
)]
struct Retire {
    /// The SQLite file
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", default_value = "upwire.db")]
    database: PathBuf,
}

/// Runs the action, and prints the outcome.
pub(crate) fn run(Options { action: Action::Retire(retire) }: Options) -> anyhow::Result<()> {
    let file = existing(&retire.database)?;
    let retired = tokio::runtime::Runtime::new()?.block_on(async {
        let database = Database::open(file)
            .map_err(|error| anyhow!("the database (UPWIRE_DATABASE) cannot be opened: {error}"))?;
        let retired = database.forget_setting(KEPT_SECRET).await?;
        database.fold_log()?;
        anyhow::Ok(retired)
    })?;
    let said = if retired {
        "the secret of the first start is retired: endpoints that it signed are dead"
    } else {
        "there is no secret of a first start: nothing was changed"
    };
    // Not `println!`: a closed stdout must not cause a panic after the work is done.
    let _ = writeln!(std::io::stdout(), "{said}");
    Ok(())
}
