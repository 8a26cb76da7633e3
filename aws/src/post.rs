//! A plain POST over the SDKs' HTTP client, for the parts of `upwire` that act as an application server.

use std::time::Duration;

use aws_smithy_http_client::{
    Connector,
    tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorSettings},
    orchestrator::HttpRequest,
};
use aws_smithy_types::body::SdkBody;

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("no answer: {0}")]
pub struct NoAnswer(String);

/// POSTs a body to a URL, with the system's trusted certificates. Returns the status.
///
/// # Errors
/// [`NoAnswer`], if none comes within `patience`.
pub async fn post(url: &str, body: String, patience: Duration) -> Result<u16, NoAnswer> {
    send(http::Request::post(url), body, patience).await
}

/// POSTs a body of JSON likewise.
///
/// # Errors
/// [`NoAnswer`], if none comes within `patience`.
pub async fn post_json(url: &str, body: String, patience: Duration) -> Result<u16, NoAnswer> {
    send(http::Request::post(url).header("content-type", "application/json"), body, patience).await
}

async fn send(request: http::request::Builder, body: String, patience: Duration) -> Result<u16, NoAnswer> {
    let no_answer = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
    let context = TlsContext::builder().with_trust_store(TrustStore::default()).build();
    let timeouts = HttpConnectorSettings::builder().connect_timeout(patience).read_timeout(patience).build();
    let connector = Connector::builder()
        .connector_settings(timeouts)
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .tls_context(context.map_err(|error| no_answer(&error))?)
        .build();
    let request = request.header("content-length", body.len()).body(SdkBody::from(body));
    let request = HttpRequest::try_from(request.map_err(|error| no_answer(&error))?);
    let request = request.map_err(|error| no_answer(&error))?;
    let answer = tokio::time::timeout(patience, connector.call(request)).await;
    let answer = answer.map_err(|error| no_answer(&error))?;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| NoAnswer(source_of(&error)))
}

/// Returns the innermost cause, which is the most specific.
fn source_of(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}
