//! Configuration of the calls to AWS, for ingress and relay: one HTTP client for all SDKs, and timeouts for every call.

use std::{collections::HashMap, env::VarError, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder,
    tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_types::{
    SdkConfig,
    region::Region,
    service_config::{LoadServiceConfig, ServiceConfigKey},
};

/// The root certificates of AWS (<https://www.amazontrust.com/repository/>). With these alone, a function starts some
/// milliseconds sooner than with the system's more than a hundred.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Timeout of an attempt of the ingress, including the connection.
const INGRESS_ATTEMPT: Duration = Duration::from_millis(600);
/// Timeout of a call of the ingress, with all its attempts. Some gateways ban a host that takes more than two seconds
/// (docs/senders.md, "What senders do"); the ingress also bounds all calls of a request together.
const INGRESS_CALL: Duration = Duration::from_millis(1300);
const INGRESS_ATTEMPTS: u32 = 3;
const INGRESS_BACKOFF: Duration = Duration::from_millis(50);
/// Longest idle time of the ingress's connections. An environment freezes between two pushes, and AWS may close its
/// connections meanwhile; each of those would cost an attempt.
const INGRESS_POOL_IDLE: Duration = Duration::from_secs(12);

/// Timeout of an attempt of the relay. A long poll takes 20 s; all other calls are far shorter.
const RELAY_ATTEMPT: Duration = Duration::from_secs(25);
const RELAY_CALL: Duration = Duration::from_secs(40);
const RELAY_ATTEMPTS: u32 = 3;
/// First backoff of the relay. Short, since a push whose write is throttled goes back to the queue alone.
const RELAY_BACKOFF: Duration = Duration::from_millis(100);
/// Longest idle time of the relay's connections: the SDK's default.
const RELAY_POOL_IDLE: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(3);

/// Timeout of an attempt to renew the lease. The holder renews it every few seconds, and has to notice in time that it
/// could not.
const LEASE_ATTEMPT: Duration = Duration::from_secs(3);
const LEASE_CALL: Duration = Duration::from_secs(5);
const LEASE_ATTEMPTS: u32 = 2;

/// A variable that Lambda sets for each function is missing or not text.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {cause}")]
pub struct ConfigError {
    variable: &'static str,
    cause: VarError,
}

/// Makes the configuration of the ingress from the variables that Lambda sets. It needs no lookups, as `aws-config`
/// would make.
///
/// `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_SQS` and `AWS_ENDPOINT_URL_DYNAMODB` can name emulators.
///
/// # Errors
/// The variables lack the region or the credentials.
pub fn for_ingress(environment: impl Fn(&str) -> Result<String, VarError>) -> Result<SdkConfig, ConfigError> {
    let variable = |name| environment(name).map_err(|cause| ConfigError { variable: name, cause });
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID")?,
        variable("AWS_SECRET_ACCESS_KEY")?,
        variable("AWS_SESSION_TOKEN").ok(),
        None,
        "environment",
    );
    let endpoint_of = |(service, name)| Some((service, variable(name).ok()?));
    let endpoints = [("SQS", "AWS_ENDPOINT_URL_SQS"), ("DynamoDB", "AWS_ENDPOINT_URL_DYNAMODB")];
    let trust = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let mut config = SdkConfig::builder()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .service_config(ServiceEndpoints(endpoints.into_iter().filter_map(endpoint_of).collect()))
        .http_client(http_client(trust, INGRESS_POOL_IDLE));
    config.set_endpoint_url(variable("AWS_ENDPOINT_URL").ok());
    config.set_retry_config(Some(retries(INGRESS_ATTEMPTS, INGRESS_BACKOFF)));
    config.set_timeout_config(Some(timeouts(INGRESS_ATTEMPT, INGRESS_ATTEMPT, INGRESS_CALL)));
    Ok(config.build())
}

/// Makes the configuration of the relay. `base` has the credentials and the region that `aws-config` found.
#[must_use]
pub fn for_relay(base: SdkConfig) -> SdkConfig {
    let http_client = base.http_client().unwrap_or_else(relay_http_client);
    base.into_builder()
        .http_client(http_client)
        .retry_config(retries(RELAY_ATTEMPTS, RELAY_BACKOFF))
        .timeout_config(timeouts(CONNECT, RELAY_ATTEMPT, RELAY_CALL))
        .build()
}

/// Makes a standard retry policy. The adaptive one would slow all calls of a process to the rate of one throttled key.
fn retries(attempts: u32, backoff: Duration) -> RetryConfig {
    RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(backoff)
}

/// Configures the calls for the lease, with timeouts of their own.
pub(crate) fn for_lease(config: &aws_sdk_dynamodb::Config) -> aws_sdk_dynamodb::Config {
    config
        .to_builder()
        .retry_config(RetryConfig::standard().with_max_attempts(LEASE_ATTEMPTS))
        .timeout_config(timeouts(LEASE_ATTEMPT, LEASE_ATTEMPT, LEASE_CALL))
        .build()
}

/// Makes the HTTP client of the relay, which `aws-config` also uses to find credentials. It trusts the system's
/// certificates, and those of AWS even if `SSL_CERT_FILE` names only the XMPP server's.
#[must_use]
pub fn relay_http_client() -> SharedHttpClient {
    http_client(TrustStore::default().with_pem_certificate(AMAZON_ROOTS), RELAY_POOL_IDLE)
}

/// The endpoints of single services from the environment, by service id.
#[derive(Debug)]
struct ServiceEndpoints(HashMap<&'static str, String>);

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        self.0.get(key.service_id()).filter(|_| key.env() == "AWS_ENDPOINT_URL").cloned()
    }
}

/// Makes the HTTP client. It also speaks plain HTTP, which emulators use. A connection that was idle for longer than
/// `pool_idle` is not used again.
fn http_client(trust: TrustStore, pool_idle: Duration) -> SharedHttpClient {
    let context = TlsContext::builder().with_trust_store(trust).build();
    Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .pool_idle_timeout(pool_idle)
        .tls_context(context.expect("a trust store is all that the context is made of"))
        .build_https()
}

fn timeouts(connect: Duration, attempt: Duration, call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(connect)
        .operation_attempt_timeout(attempt)
        .operation_timeout(call)
        .build()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use aws_smithy_types::retry::RetryMode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::{sleep, timeout},
    };

    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: 2\r\n\r\n{}";
    const SOON: Duration = Duration::from_secs(60);

    pub(crate) fn ingress() -> SdkConfig {
        let variable = |name: &str| match name {
            "AWS_REGION" => Ok("us-east-1".to_owned()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Ok("test".to_owned()),
            _ => Err(VarError::NotPresent),
        };
        for_ingress(variable).unwrap()
    }

    #[test]
    fn one_key_that_is_throttled_slows_no_other_call() {
        for config in [ingress(), for_relay(ingress())] {
            let retries = config.retry_config().unwrap();
            assert_eq!((retries.mode(), retries.max_attempts()), (RetryMode::Standard, 3));
        }
    }

    /// A shorter time would make pushes in quick succession connect anew; a longer one would leave dead connections to
    /// an environment that thaws.
    #[test]
    fn the_function_forgets_connections_that_were_idle_for_ten_to_fifteen_seconds() {
        assert!((10..=15).contains(&INGRESS_POOL_IDLE.as_secs()));
    }

    /// Answers every request, and counts connections.
    async fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (endpoint, count) =
            (format!("http://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
        let connections = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer_each(connection));
            }
        });
        (endpoint, count)
    }

    async fn answer_each(mut connection: TcpStream) {
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = connection.read(&mut buffer).await {
            request.extend_from_slice(&buffer[..read]);
            // All of these requests end in the same closing brace.
            if request.ends_with(b"}") {
                request.clear();
                connection.write_all(ANSWER).await.unwrap();
            }
        }
    }

    fn client(endpoint: &str, pool_idle: Duration) -> aws_sdk_dynamodb::Client {
        let config = ingress().into_builder().endpoint_url(endpoint);
        let config = config.http_client(http_client(TrustStore::empty(), pool_idle)).build();
        aws_sdk_dynamodb::Client::new(&config)
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_not_used_again() {
        let (endpoint, connections) = server().await;
        let patient = client(&endpoint, SOON);
        for _ in 0..5 {
            patient.describe_limits().send().await.unwrap();
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);

        let forgetful = client(&endpoint, Duration::from_millis(20));
        let another = async {
            while connections.load(Ordering::Relaxed) < 3 {
                forgetful.describe_limits().send().await.unwrap();
                sleep(Duration::from_millis(40)).await;
            }
        };
        timeout(SOON, another).await.expect("a second connection of the second client");
    }
}
