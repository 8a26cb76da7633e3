//! Turns events of Lambda into requests to the router.

use axum::{
    Router,
    http::{StatusCode, Uri, header, uri::PathAndQuery},
    middleware,
    response::Response,
};
use chrono::{DateTime, Utc};
use functions::{PublicUrl, cloudwatch_format::Totals};
use lambda_http::{
    Adapter, Error, LambdaEvent, Request, RequestExt,
    aws_lambda_events::query_map::QueryMap,
    lambda_runtime,
    request::{LambdaRequest, RequestContext},
    tower::util::{MapRequest, MapResponse},
};
use url::Url;

/// The stage of an HTTP API that does not appear in its URLs.
const DEFAULT_STAGE: &str = "$default";

/// Serves one event after the other, until Lambda ends the environment. Writes the metrics that are due after each.
pub(crate) async fn serve(router: Router, totals: Option<Totals>) -> Result<(), Error> {
    let router = match totals {
        Some(totals) => router.layer(middleware::map_response(move |response: Response| {
            totals.tell(now());
            std::future::ready(response)
        })),
        None => router,
    };
    let adapter = Adapter::from(MapResponse::new(MapRequest::new(router, locate), without_length));
    lambda_runtime::run(MapRequest::new(adapter, without_query)).await
}

#[expect(clippy::disallowed_methods, reason = "the edge of the function: a request ends now")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Drops the query: no route reads it, and lambda_http panics if it is not percent-encoded.
fn without_query(mut event: LambdaEvent<LambdaRequest>) -> LambdaEvent<LambdaRequest> {
    if let LambdaRequest::ApiGatewayV2(request) = &mut event.payload {
        request.raw_query_string = None;
        request.query_string_parameters = QueryMap::default();
    }
    event
}

/// Removes the length from an answer without content (RFC 9110 §8.6). Where hyper writes the answers, it does this
/// itself.
fn without_length(mut response: Response) -> Response {
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Adds the URL at which the sender reached the function, and strips the stage of an HTTP API from the path.
fn locate(mut request: Request) -> Request {
    let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else { return request };
    let stage = context.stage.as_deref().filter(|stage| *stage != DEFAULT_STAGE).unwrap_or_default();
    let reached_at =
        context.domain_name.as_ref().and_then(|host| Url::parse(&format!("https://{host}/{stage}")).ok());
    let stripped = without_stage(request.uri(), stage);
    if let Some(uri) = stripped {
        *request.uri_mut() = uri;
    }
    if let Some(url) = reached_at {
        request.extensions_mut().insert(PublicUrl(url));
    }
    request
}

/// Returns the URI without the stage at the head of its path; `None`: the path does not begin with it.
fn without_stage(uri: &Uri, stage: &str) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str().strip_prefix('/')?.strip_prefix(stage)?;
    if stage.is_empty() || !path.starts_with('/') {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_no_content_has_no_length() {
        for (status, length) in [(StatusCode::NO_CONTENT, None), (StatusCode::OK, Some("0"))] {
            let route = axum::routing::get(move || std::future::ready(status));
            let router = Router::new().route("/", route);
            let mut service = MapResponse::new(router, without_length);
            let request = axum::http::Request::get("/").body(axum::body::Body::empty()).unwrap();
            let response = lambda_http::Service::call(&mut service, request).await.unwrap();
            let sent = response.headers().get(header::CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(sent, length, "{status}");
        }
    }

    #[test]
    fn only_a_whole_segment_is_a_stage() {
        let path = |uri: &str, stage| {
            without_stage(&uri.parse().unwrap(), stage).map(|uri| uri.path_and_query().unwrap().to_string())
        };
        assert_eq!(path("https://a/prod/push/x?y", "prod").as_deref(), Some("/push/x?y"));
        assert_eq!(path("https://a/push/x", ""), None);
        assert_eq!(path("https://a/production/x", "prod"), None);
        assert_eq!(path("https://a/push/prod", "prod"), None);
    }
}
