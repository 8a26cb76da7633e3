//! The log: its filter and its form, and the lines that are never written.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use self::bounded::Written;
use crate::configuration::{ConfigurationError, environment};

mod bounded;

const FILTER: &str = "UPWIRE_LOG";
const FORMAT: &str = "UPWIRE_LOG_FORMAT";

/// Crates of this workspace. They log no body, token or JID above trace.
const OURS: [&str; 6] = ["upwire", "push", "embedded", "functions", "relay", "aws"];

/// Crates that hold stanzas or passwords and show them in their warnings.
const HOLD_STANZAS: [&str; 5] = ["tokio_xmpp", "xmpp_parsers", "xso", "rxml", "sasl"];

/// The prefix of the AWS SDK's crates, whose warnings show whole requests and answers.
const AWS_SDK: &str = "aws_";

/// Starts the log to stderr, with `UPWIRE_LOG` and `UPWIRE_LOG_FORMAT`. The returned future logs each minute how many
/// lines were left out.
pub(crate) fn start() -> Result<impl Future<Output = ()> + Send + 'static, ConfigurationError> {
    let filter = filter(environment(FILTER)?.as_deref().unwrap_or("info"))?;
    let layer = layer(environment(FORMAT)?.as_deref())?;
    let written = Written::default();
    Registry::default()
        .with(layer.with_filter(limited(filter)))
        .with(written.clone())
        .try_init()
        .map_err(|error| ConfigurationError::new(FILTER, error.to_string(), "start the log once"))?;
    Ok(written.report())
}

fn layer(format: Option<&str>) -> Result<Box<dyn Layer<Registry> + Send + Sync>, ConfigurationError> {
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        None | Some("human") => Ok(layer.with_ansi(std::io::stderr().is_terminal()).boxed()),
        Some("json") => Ok(layer.json().flatten_event(true).with_span_list(false).boxed()),
        Some(other) => Err(ConfigurationError::new(
            FORMAT,
            format!("{other:?} is not a log format"),
            "set it to \"human\" or \"json\"",
        )),
    }
}

fn filter(value: &str) -> Result<Targets, ConfigurationError> {
    let wrong = |problem: String| {
        ConfigurationError::new(
            FILTER,
            problem,
            "write a level, or levels for crates: \"info\", \"relay=debug,info\"",
        )
    };
    // `Targets` takes a single word that is no level for the name of a crate, and would show nothing.
    for directive in value.split(',').filter(|directive| !directive.contains('=')) {
        if LevelFilter::from_str(directive.trim()).is_err() || directive.trim().is_empty() {
            return Err(wrong(format!("{directive:?} is not a level")));
        }
    }
    let compact: String = value.split_whitespace().collect();
    let targets =
        Targets::from_str(&compact).map_err(|error| wrong(format!("{value:?} is wrong: {error}")))?;
    // "relay=debug" alone shows more of the relay, and not less of the rest.
    Ok(if targets.default_level().is_some() { targets } else { targets.with_default(LevelFilter::INFO) })
}

fn limited(filter: Targets) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let most = filter.iter().map(|(_, level)| level).chain(filter.default_level()).max();
    filter_fn(move |metadata| shows(&filter, metadata.target(), *metadata.level()))
        .with_max_level_hint(most.unwrap_or(LevelFilter::OFF))
}

/// Returns whether an event is shown. Unless trace is enabled, only warnings of dependencies are shown, and none of
/// crates that hold stanzas or speak to AWS. tokio-xmpp puts whole stanzas into its warnings, and JIDs into its debug
/// events.
fn shows(filter: &Targets, target: &str, level: Level) -> bool {
    let source = target.split("::").next().unwrap_or(target);
    filter.would_enable(target, &level)
        && (OURS.contains(&source)
            || filter.would_enable(target, &Level::TRACE)
            || (level <= Level::WARN && !HOLD_STANZAS.contains(&source) && !source.starts_with(AWS_SDK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str, target: &str, level: Level) -> bool {
        shows(&filter(value).unwrap(), target, level)
    }

    #[test]
    fn our_crates_log_at_the_level_asked_for() {
        assert!(shown("info", "relay::component", Level::INFO));
        assert!(!shown("info", "relay::component", Level::DEBUG));
        assert!(shown("debug", "upwire::serve", Level::DEBUG));
        assert!(shown("relay=debug,info", "relay", Level::DEBUG));
        assert!(!shown("relay=debug, info", "functions", Level::DEBUG));
        assert!(shown("relay=debug", "functions", Level::INFO));
        assert!(!shown("off", "relay", Level::ERROR));
    }

    #[test]
    fn dependencies_stay_quiet_below_trace() {
        assert!(shown("debug", "hyper::proto", Level::WARN));
        assert!(!shown("debug", "hyper::proto", Level::INFO));
        assert!(!shown("error", "hyper::proto", Level::WARN));
        assert!(!shown("debug", "tokio_xmpp::stanzastream", Level::ERROR));
        assert!(!shown("tokio_xmpp=debug", "tokio_xmpp::stanzastream", Level::WARN));
        assert!(shown("tokio_xmpp=trace", "tokio_xmpp::stanzastream", Level::DEBUG));
        assert!(shown("trace", "tokio_xmpp::xmlstream", Level::TRACE));
        assert!(!shown("debug", "aws_config::imds::region", Level::WARN));
        assert!(!shown("debug", "aws_smithy_runtime::client", Level::ERROR));
        assert!(shown("debug", "aws::queue", Level::DEBUG));
        // The crate "relay" is ours, and "relay_of_others" is not.
        assert!(!shown("debug", "relay_of_others", Level::DEBUG));
    }

    #[test]
    fn a_wrong_value_names_its_variable_and_the_mend() {
        for value in ["inof", "info,", "relay=loud", "relay=debug,quiet", "a=b=c"] {
            let error = filter(value).expect_err(value).to_string();
            assert!(error.starts_with("UPWIRE_LOG: "), "{error}");
            assert!(error.ends_with("\"relay=debug,info\""), "{error}");
        }
        let error = layer(Some("xml")).err().unwrap().to_string();
        assert_eq!(error, "UPWIRE_LOG_FORMAT: \"xml\" is not a log format; set it to \"human\" or \"json\"");
    }
}
