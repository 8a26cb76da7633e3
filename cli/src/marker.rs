//! The check of the marker when a relay starts. A configuration that would end every endpoint is refused.

use backon::{ExponentialBuilder, Retryable};
use push::marker::Misfit;
use push::ports::MarkerWriter;
use relay::{CannotBegin, MarkerKeeper};

use crate::configuration::ConfigurationError;
use crate::live::SECRET;
use crate::relay_options::RelaySettings;

pub(crate) const TABLE_ID: &str = "UPWIRE_TABLE_ID";

/// Most attempts to read the marker at the start. Few, since the store has just answered.
const ATTEMPTS_MAX: usize = 5;

/// Refuses secrets without the one that signs at present, and a table with another id.
pub(crate) async fn check<S: MarkerWriter>(
    keeper: &MarkerKeeper<S>,
    settings: &RelaySettings,
) -> anyhow::Result<()> {
    let delays = ExponentialBuilder::new().with_max_times(ATTEMPTS_MAX - 1);
    let checked = (|| keeper.check()).retry(delays);
    match checked.when(|error| matches!(error, CannotBegin::Unavailable(_))).await {
        Ok(()) => Ok(()),
        Err(CannotBegin::Misfit(Misfit::Secrets)) if settings.drop_secrets => {
            tracing::warn!(
                "the secret that endpoints are signed with is dropped: every endpoint has ended, and phones get new \
                 ones as they register"
            );
            Ok(())
        }
        Err(CannotBegin::Misfit(misfit)) => Err(refusal(misfit, settings.secret.is_some()).into()),
        Err(CannotBegin::Unavailable(error)) => Err(error.into()),
    }
}

fn refusal(misfit: Misfit, has_secret: bool) -> ConfigurationError {
    let problem = misfit.to_string();
    let (variable, problem, mend) = match misfit {
        Misfit::Secrets if has_secret => (
            SECRET,
            problem,
            "add that one behind the others, or start once with --drop-secrets to end every endpoint",
        ),
        Misfit::Secrets => (
            SECRET,
            format!("is not set, and the database {problem}"),
            "set it, or UPWIRE_SECRET_FILE, again to that one, or start once with --drop-secrets to end every endpoint",
        ),
        Misfit::Table => (TABLE_ID, problem, "name the table of this stack, or the id that this table has"),
    };
    ConfigurationError::new(variable, problem, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_missing_is_set_again_or_added() {
        let told = |has_secret| refusal(Misfit::Secrets, has_secret).to_string();
        assert!(
            told(true).starts_with("UPWIRE_SECRET: lacks the secret")
                && told(true).contains("; add that one")
        );
        assert!(told(false).starts_with("UPWIRE_SECRET: is not set, and the database lacks the secret"));
        assert!(told(false).contains("; set it, or UPWIRE_SECRET_FILE, again"));
    }
}
