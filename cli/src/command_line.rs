//! Parses the command line. A refusal of clap becomes one line with exit code 64, and an empty environment variable
//! counts as unset.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Parser};

use crate::configuration::{ConfigurationError, one_line};

/// `EX_USAGE` of sysexits.h: wrong usage or configuration.
pub(crate) const EX_USAGE: u8 = 64;

/// Similarity, from 0 to 1, at which a name counts as another one misspelt.
const LIKENESS_MIN: f64 = 0.75;

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

/// The end of the help of commands that run a relay, before [`AFTER_HELP`].
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
    /// Help or the version was requested, and has been printed.
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

/// Makes empty variables count as unset; clap takes them for values.
fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|argument| {
            // A variable that is not set keeps its name, which the help shows.
            let value = argument.get_env().and_then(std::env::var_os);
            if value.is_some_and(|value| value.is_empty()) {
                argument.env(None::<&'static str>)
            } else {
                argument
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Folds clap's paragraphs into one line: the problem, the tip, and where to read on.
fn explain(error: &clap::Error, command: &Command, arguments: &[OsString]) -> ConfigurationError {
    let (help, command) = subcommand(command, arguments);
    let mut rendered = error.render().to_string();
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.contains('@')
    {
        // The log has no JID (docs/configuration.md, "The log"), and no password of a URL.
        rendered = rendered.replacen(&format!(" '{value}'"), "", 1);
    }
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
    let has_example = ["as in ", "write it as "].iter().any(|example| problem.contains(example));
    if let Some(example) = example.filter(|_| !has_example) {
        mend.push(format!("write it as {}", example.to_string_lossy()));
    }
    mend.push(format!("see `{help}`"));
    let variable = wrong.and_then(|option| variable(option, arguments));
    ConfigurationError::usage(variable, problem, mend.join("; "))
}

/// Returns the `--help` to read, and the (sub)command of the arguments.
fn subcommand<'a>(command: &'a Command, arguments: &[OsString]) -> (String, &'a Command) {
    arguments.iter().skip(1).find_map(|argument| command.find_subcommand(argument)).map_or_else(
        || ("upwire --help".into(), command),
        |found| (format!("upwire {} --help", found.get_name()), found),
    )
}

/// Returns the environment variable of an option, if the value came from there. A flag takes precedence.
fn variable(option: &clap::Arg, arguments: &[OsString]) -> Option<String> {
    let name = option.get_env().filter(|name| std::env::var_os(name).is_some())?;
    let flag = format!("--{}", option.get_long()?);
    let is_flag = |argument: &OsString| {
        argument
            .to_str()
            .and_then(|text| text.strip_prefix(&flag))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if arguments.iter().any(is_flag) { None } else { name.to_str().map(str::to_owned) }
}

/// Warns of variables that nothing reads, since a misspelt one would be ignored silently.
pub(crate) fn warn_of_unknown_variables<P: CommandFactory>() {
    let known = known_variables(&P::command());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        match unknown(&name, &known) {
            Some(Some(nearest)) => {
                tracing::warn!(
                    "{name} is no variable of Upwire's, and changes nothing; did you mean {nearest}?"
                );
            }
            Some(None) => tracing::warn!("{name} is no variable of Upwire's, and changes nothing"),
            None => {}
        }
    }
}

/// The password of a distributor's account, which has no option.
pub(crate) const DISTRIBUTOR_PASSWORD: &str = "UPWIRE_PASSWORD";

/// Returns the variables of all options, and those that belong to no option.
fn known_variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|option| option.get_env()?.to_str().map(str::to_owned));
    let others = command.get_subcommands().flat_map(known_variables);
    own.chain(others)
        .chain(["UPWIRE_LOG", "UPWIRE_LOG_FORMAT", DISTRIBUTOR_PASSWORD].map(str::to_owned))
        .collect()
}

/// Returns `Some` if the variable looks like one of ours and is none. It contains the most similar variable, if one is
/// similar enough.
fn unknown<'a>(name: &str, known: &'a [String]) -> Option<Option<&'a str>> {
    let looks_like_ours = name.to_ascii_uppercase().starts_with("UPWIRE");
    // Kubernetes sets these for a service of this name.
    let is_of_a_service = name.starts_with("UPWIRE_SERVICE_") || name.starts_with("UPWIRE_PORT");
    if !looks_like_ours || is_of_a_service || known.iter().any(|known| known == name) {
        return None;
    }
    let likeness =
        |known: &&String| strsim::normalized_damerau_levenshtein(&name.to_ascii_uppercase(), known);
    let nearest = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    Some(nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN).map(String::as_str))
}

/// Parses the options of one command, after its name.
#[cfg(test)]
pub(crate) fn parse_options<O: clap::Args>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<O, clap::Error> {
    O::augment_args(Command::new("upwire"))
        .try_get_matches_from(arguments)
        .and_then(|matches| O::from_arg_matches(&matches))
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
            #[arg(long, value_parser = functions::settings::public_url)]
            public_url: Option<url::Url>,
            #[arg(long, default_value = "localhost:5347")]
            xmpp_server: relay::ServerAddress,
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
    fn the_password_of_a_distributor_is_a_variable_of_ours() {
        let known = known_variables(&Example::command());
        assert_eq!(unknown("UPWIRE_PASSWORD", &known), None);
        assert!(unknown("UPWIRE_PASWORD", &known).is_some());
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
    fn an_example_is_given_once() {
        let refusal = refusal("upwire serve --listen 127.0.0.1:1 --xmpp-server 127.0.0.1");
        assert_eq!(refusal.matches("write it as").count(), 1, "{refusal}");
    }

    #[test]
    fn a_value_that_may_be_a_jid_or_have_a_password_is_not_repeated() {
        assert_eq!(
            refusal("upwire serve --public-url https://juliet:sesame@example.com"),
            "invalid value for '--public-url <PUBLIC_URL>': it has more than scheme, host, port and path; \
             write it as https://push.example.com; see `upwire serve --help`"
        );
    }

    #[test]
    fn a_misspelt_variable_is_told_from_all_others() {
        let known =
            ["UPWIRE_PUBLIC_URL", "UPWIRE_COMPONENT_SECRET", "UPWIRE_COMPONENT_SECRET_FILE", "UPWIRE_ACL"]
                .map(str::to_owned);
        for (name, nearest) in [
            ("UPWIRE_PUBLIC_URI", Some("UPWIRE_PUBLIC_URL")),
            ("UPWIRE_PUBLICURL", Some("UPWIRE_PUBLIC_URL")),
            ("upwire_acl", Some("UPWIRE_ACL")),
            ("UPWIRE_COMPONENT_SECERT", Some("UPWIRE_COMPONENT_SECRET")),
            ("UPWIRE_SOMETHING_ELSE_ALTOGETHER", None),
        ] {
            assert_eq!(unknown(name, &known), Some(nearest), "{name}");
        }
        for name in ["UPWIRE_ACL", "PATH", "UPWIRE_SERVICE_HOST", "UPWIRE_PORT_8080_TCP", "UPWIRE_PORT"] {
            assert_eq!(unknown(name, &known), None, "{name}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named() {
        assert_eq!(
            refusal("upwire serve --listen 127.0.0.1:1"),
            "CARGO_PKG_NAME: invalid value 'upwire' for '--port <PORT>': invalid digit found in string; \
             see `upwire serve --help`"
        );
        assert!(
            refusal("upwire serve --listen 127.0.0.1:1 --port=x")
                .starts_with("invalid value 'x' for '--port")
        );
    }
}
