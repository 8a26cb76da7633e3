//! The check of the marker when a relay starts. A configuration that would end every endpoint is refused.

use backon::{ExponentialBuilder, Retryable};
use push::marker::Misfit;
use push::ports::MarkerWriter;
use relay::{CannotBegin, MarkerKeeper};

use crate::configuration::ConfigurationError;
use crate::live::SECRET;

pub(crate) const TABLE_ID: &str = "UPWIRE_TABLE_ID";

/// Most attempts to read the marker at the start. Few, since the store has just answered.
const ATTEMPTS_MAX: usize = 5;

/// Refuses secrets without the one that signs at present, and a table with another id.
pub(crate) async fn check<S: MarkerWriter>(
    keeper: &MarkerKeeper<S>,
    drop_secrets: bool,
) -> anyhow::Result<()> {
    let delays = ExponentialBuilder::new().with_max_times(ATTEMPTS_MAX - 1);
    let checked = (|| keeper.check()).retry(delays);
    match checked.when(|error| matches!(error, CannotBegin::Unavailable(_))).await {
        Ok(()) => Ok(()),
        Err(CannotBegin::Misfit(Misfit::Secrets)) if drop_secrets => {
            tracing::warn!(
                "the secret that endpoints are signed with is dropped: every endpoint has ended, and phones get new \
                 ones as they register"
            );
            Ok(())
        }
        Err(CannotBegin::Misfit(misfit)) => {
            let (variable, mend) = match misfit {
                Misfit::Secrets => (
                    SECRET,
                    "add that one behind the others, or start once with --drop-secrets to end every endpoint",
                ),
                Misfit::Table => (TABLE_ID, "name the table of this stack, or the id that this table has"),
            };
            Err(ConfigurationError::new(variable, misfit.to_string(), mend).into())
        }
        Err(CannotBegin::Unavailable(error)) => Err(error.into()),
    }
}
