//! The configuration of AWS for commands: region, credentials and endpoints.

use aws::SdkConfig;
use aws_config::{BehaviorVersion, SdkConfig as BaseConfig};
use url::Url;

use crate::configuration::{ConfigurationError, environment};

const REGION: &str = "AWS_REGION";
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS"];

/// Reads the configuration from the usual places: the environment, the profiles, or the machine's role.
pub(crate) async fn read() -> Result<SdkConfig, ConfigurationError> {
    for variable in ENDPOINTS {
        if let Some(url) = environment(variable)? {
            check_endpoint(variable, &url)?;
        }
    }
    let base: BaseConfig =
        aws_config::defaults(BehaviorVersion::latest()).http_client(aws::relay_http_client()).load().await;
    // The profile's endpoint counts if the environment has none.
    base.endpoint_url().map_or(Ok(()), |url| check_endpoint(ENDPOINTS[0], url))?;
    let region = base.region().map(ToString::to_string);
    check_region(region.as_deref())?;
    Ok(aws::for_relay(base))
}

/// Checks that an endpoint is a URL. Otherwise each call would fail, as if AWS did not answer.
fn check_endpoint(variable: &str, text: &str) -> Result<(), ConfigurationError> {
    if Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Ok(());
    }
    let problem = format!("{text:?} is no http or https URL");
    Err(ConfigurationError::new(
        variable,
        problem,
        "unset it, or set it to an endpoint of AWS or an emulator",
    ))
}

/// Checks that a region can be part of a host name. Otherwise each call would fail, too.
fn check_region(region: Option<&str>) -> Result<(), ConfigurationError> {
    let mend = "set it to the region of the queue and the tables, as in eu-central-1";
    match region {
        None => Err(ConfigurationError::new(
            REGION,
            "is missing, and neither a profile nor this machine names a region",
            mend,
        )),
        Some(region) if region.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') => {
            Err(ConfigurationError::new(REGION, format!("{region:?} is no region"), mend))
        }
        Some(_) => Ok(()),
    }
}
