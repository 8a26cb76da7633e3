//! The `upwire` binary: parses the command line, runs the subcommand, and turns the outcome into an exit code.

use std::future::Future;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::configuration::ConfigurationError;

mod account;
mod admin;
mod assets;
mod aws_configuration;
mod backup;
mod canary;
mod clock;
mod cloudwatch_metrics;
mod command_line;
mod configuration;
#[cfg(test)]
mod configuration_page;
mod distributor;
#[cfg(test)]
mod docs_page;
mod doctor;
mod explain;
mod fetch;
mod health;
mod http;
mod invoice;
mod keygen;
mod legacy_options;
mod live;
mod log;
mod marker;
#[cfg(test)]
mod metrics_page;
mod parts;
mod private;
mod registrations;
mod relay;
mod relay_options;
mod restore;
mod secret;
mod serve;
mod shutdown;
mod store;
mod tenant;
mod trail;
mod values;

/// A UnifiedPush server that speaks XMPP to the phone.
#[derive(Debug, Parser)]
#[command(
    name = "upwire",
    version,
    long_about = "A UnifiedPush server that speaks XMPP to the phone.\n\n\
        Application servers POST pushes to an endpoint; Upwire carries each one over XMPP to the \
        distributor app (for example Conversations), which hands it to the application.",
    after_long_help = command_line::AFTER_HELP
)]
struct Upwire {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Options>),
    Relay(Box<relay::Options>),
    Distributor(Box<distributor::Options>),
    Canary(Box<canary::Options>),
    Health(health::Options),
    Keygen(keygen::Options),
    Secret(secret::Options),
    Clock(clock::Options),
    Backup(backup::Options),
    Restore(restore::Options),
    Registrations(registrations::Options),
    Account(account::Options),
    Explain(explain::Options),
    Doctor(Box<doctor::Options>),
    Tenant(tenant::Options),
    Usage(invoice::Options),
    #[command(hide = true)]
    Assets(assets::Options),
}

fn main() -> ExitCode {
    let outcome = match command_line::parse::<Upwire>(std::env::args_os().collect()) {
        Ok(upwire) => start_without_empty_variables().and_then(|()| run(upwire.command)),
        Err(command_line::Refused::Shown) => return ExitCode::SUCCESS,
        Err(command_line::Refused::Wrong(error)) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln!`: a closed stderr must not cause a panic.
            let _ = writeln!(std::io::stderr(), "upwire: {}", configuration::one_line(&format!("{error:#}")));
            exit_code(&error)
        }
    }
}

/// Makes empty variables count as unset for libraries, which take them for values. A variable cannot be unset safely
/// while the process runs, so the process replaces itself by a new start of this program.
fn start_without_empty_variables() -> anyhow::Result<()> {
    const READ_BY_LIBRARIES: [&str; 2] = ["AWS_", "SSL_CERT_"];
    let empty: Vec<_> = std::env::vars_os()
        .filter(|(_, value)| value.is_empty())
        .map(|(name, _)| name)
        .filter(|name| READ_BY_LIBRARIES.iter().any(|start| name.to_string_lossy().starts_with(start)))
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    let mut anew = process::Command::new(std::env::current_exe()?);
    let mut arguments = std::env::args_os();
    anew.arg0(arguments.next().unwrap_or_default()).args(arguments);
    for name in &empty {
        anew.env_remove(name);
    }
    Err(anyhow::Error::from(anew.exec())
        .context(format!("cannot start anew without the empty {empty:?}: unset them")))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(options) => start(|shutdown| serve::run(*options, shutdown)),
        Command::Relay(options) => start(|shutdown| relay::run(*options, shutdown)),
        Command::Distributor(options) => start(|shutdown| distributor::run(*options, shutdown)),
        Command::Canary(options) => start(|shutdown| canary::run(*options, shutdown)),
        Command::Health(options) => health::run(&options),
        Command::Keygen(options) => keygen::run(&options),
        Command::Secret(options) => secret::run(options),
        Command::Clock(options) => clock::run(options),
        Command::Backup(options) => backup::run(&options),
        Command::Restore(options) => restore::run(&options),
        Command::Registrations(options) => registrations::run(options),
        Command::Account(options) => account::run(options),
        Command::Explain(options) => explain::run(options),
        Command::Doctor(options) => doctor::run(*options),
        Command::Tenant(options) => tenant::run(options),
        Command::Usage(options) => invoice::run(options),
        Command::Assets(options) => assets::run(&options, Upwire::command()),
    }
}

/// Runs a subcommand that ends by a signal.
fn start<F: Future<Output = anyhow::Result<()>>>(
    subcommand: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()> {
    let report = log::start()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.spawn(report);
    command_line::warn_of_unknown_variables::<Upwire>();
    let outcome = runtime.block_on(async { subcommand(shutdown::on_signal()?).await });
    // A write that blocks on a full pipe must not delay the exit.
    runtime.shutdown_background();
    outcome
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigurationError>() { ExitCode::from(command_line::EX_USAGE) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_configuration_exits_with_64_and_a_failure_with_1() {
        let wrong = anyhow::Error::from(ConfigurationError::new("--jid", "is missing", "give one"));
        assert_eq!(exit_code(&wrong), ExitCode::from(64));
        assert_eq!(exit_code(&anyhow::anyhow!("the server went away")), ExitCode::from(1));
    }
}
