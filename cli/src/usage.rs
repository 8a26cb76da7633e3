//! The command line's errors: whatever clap refuses becomes one line with exit code 64, and an empty
//! environment variable counts as unset.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};

use crate::configuration::{ConfigurationError, one_line};

/// `EX_USAGE` of sysexits.h: wrong usage or configuration.
pub(crate) const EX_USAGE: u8 = 64;

/// Ends the help of `upwire` and of its long-running subcommands.
pub(crate) const AFTER_HELP: &str = "\
Environment, for every subcommand that runs on:
  UPWIRE_LOG         what is logged to stderr: a level (error, warn, info, debug, trace), or
                     levels for single crates, as \"relay=debug,info\" [default: info]
  UPWIRE_LOG_FORMAT  \"human\", or \"json\" for one JSON object a line [default: human]
  SSL_CERT_FILE      a file of certificates to trust instead of the system's, in PEM
An empty variable counts as unset. No message body, endpoint token or JID is logged above trace.

Exit codes:
  0   done, or stopped by SIGTERM or Ctrl-C
  1   failed while running
  64  wrong usage or configuration; one line on stderr names the option or variable and the mend";

/// The help of whatever runs a relay, before [`AFTER_HELP`].
pub(crate) const AFTER_SERVER_HELP: &str = "\
At the administration address:
  /healthz  200 while the process runs
  /readyz   200 while the component is connected to the XMPP server and the disk has room, else 503
  /metrics  for Prometheus

SIGHUP has the files of the access list and of the secrets read again. All of them have to be right, or nothing \
changes. New secrets come in front; one that is no longer in its file verifies until a restart.
SIGTERM or Ctrl-C finishes what is in flight, for ten seconds at most; a second one stops at once.";

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Help or the version was asked for, and has been printed.
    Shown,
    /// The command line, or a variable that stands for an option, is wrong.
    Wrong(ConfigurationError),
}

/// Parses the command line and the environment variables that options name.
pub(crate) fn parse<P: Parser>(arguments: Vec<OsString>) -> Result<P, Refused> {
    let mut command = without_empty_variables(P::command()).arg_required_else_help(false);
    command.build();
    command
        .clone()
        .try_get_matches_from(&arguments)
        .and_then(|mut matches| P::from_arg_matches_mut(&mut matches))
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let _ = error.print();
                Refused::Shown
            }
            _ => Refused::Wrong(explain(&error, &command, &arguments)),
        })
}

/// clap takes an empty variable for a value; here it counts as unset.
fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|argument| {
            // Where it is not set at all, the name stays: the help shows it.
            let value = argument.get_env().and_then(std::env::var_os);
            if value.is_some_and(|value| value.is_empty()) {
                argument.env(None::<&'static str>)
            } else {
                argument
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Folds clap's several paragraphs into one line: what is wrong, its tip, and where to read on.
fn explain(error: &clap::Error, command: &Command, arguments: &[OsString]) -> ConfigurationError {
    let (help, command) = subcommand(command, arguments);
    let rendered = error.render().to_string();
    let mut said = rendered.split("\n\n").map(|paragraph| one_line(paragraph.trim())).filter(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let problem = said.next().unwrap_or_default();
    let problem = problem.strip_prefix("error: ").unwrap_or(&problem).to_owned();
    let mut mend: Vec<_> = said.map(|tip| tip.strip_prefix("tip: ").unwrap_or(&tip).to_owned()).collect();
    let wrong = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => {
            command.get_arguments().find(|candidate| candidate.to_string() == *argument)
        }
        _ => None,
    };
    let example = wrong.and_then(|option| option.get_default_values().first());
    if let Some(example) = example.filter(|_| !problem.contains("as in ")) {
        mend.push(format!("write it as {}", example.to_string_lossy()));
    }
    mend.push(format!("see `{help}`"));
    let variable = wrong.and_then(variable);
    ConfigurationError::usage(variable, problem, mend.join("; "))
}

/// The `--help` to read, and the (sub)command that the arguments are for.
fn subcommand<'a>(command: &'a Command, arguments: &[OsString]) -> (String, &'a Command) {
    arguments.iter().skip(1).find_map(|argument| command.find_subcommand(argument)).map_or_else(
        || ("upwire --help".into(), command),
        |found| (format!("upwire {} --help", found.get_name()), found),
    )
}

/// The environment variable that can stand for an option, if the value came from there.
fn variable(option: &clap::Arg) -> Option<String> {
    let name = option.get_env().filter(|name| std::env::var_os(name).is_some())?;
    name.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Example {
        #[command(subcommand)]
        command: Subcommands,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Subcommands {
        Serve {
            #[arg(long)]
            listen: std::net::SocketAddr,
            #[arg(long, default_value = "100")]
            most: u8,
            // Set in every test run by cargo.
            #[arg(long, env = "CARGO_PKG_NAME")]
            port: Option<u16>,
        },
    }

    fn refusal(arguments: &str) -> String {
        let arguments = arguments.split(' ').map(OsString::from).collect();
        match parse::<Example>(arguments) {
            Err(Refused::Wrong(error)) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn every_refusal_is_one_line_that_names_what_is_wrong_and_the_mend() {
        assert_eq!(
            refusal("upwire"),
            "'upwire' requires a subcommand but one was not provided [subcommands: serve, help]; \
             see `upwire --help`"
        );
        assert_eq!(
            refusal("upwire serve --listen here --port 1"),
            "invalid value 'here' for '--listen <LISTEN>': invalid socket address syntax; see `upwire serve --help`"
        );
        assert_eq!(
            refusal("upwire serve --listen 127.0.0.1:1 --most 1000"),
            "invalid value '1000' for '--most <MOST>': 1000 is not in 0..=255; write it as 100; see `upwire serve --help`"
        );
        assert_eq!(
            refusal("upwire serve --listn 127.0.0.1:1"),
            "unexpected argument '--listn' found; a similar argument exists: '--listen'; see `upwire serve --help`"
        );
    }

    #[test]
    fn a_wrong_variable_is_named() {
        assert_eq!(
            refusal("upwire serve --listen 127.0.0.1:1"),
            "CARGO_PKG_NAME: invalid value 'cli' for '--port <PORT>': invalid digit found in string; \
             see `upwire serve --help`"
        );
    }
}
