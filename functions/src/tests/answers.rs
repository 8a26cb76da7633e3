//! Successful answers: each status with the headers that RFC 9110 asks for. Refusals are in `rejection/tests.rs`.

use axum::http::{HeaderName, HeaderValue};
use chrono::DateTime;

use super::*;
use crate::matrix;

/// Method and path of every kind of request that succeeds. `{push}` and `{message}` become tokens.
const REQUESTS: [(&str, &str); 13] = [
    ("POST", "/push/{push}"),
    ("PUT", "/push/{push}"),
    ("GET", "/push/{push}"),
    ("HEAD", "/push/{push}"),
    ("OPTIONS", "/push/{push}"),
    ("DELETE", "/message/{message}"),
    ("OPTIONS", "/message/{message}"),
    ("GET", matrix::PATH),
    ("HEAD", matrix::PATH),
    ("POST", matrix::PATH),
    ("OPTIONS", matrix::PATH),
    ("GET", "/"),
    ("HEAD", "/"),
];

#[tokio::test]
async fn the_wire_form_of_an_answer_is_stable_and_has_what_http_demands() {
    let (mut store, mut forms) = (store(), String::new());
    store.clock = push::Clock::new(|| DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    store.row = push::Registration::renew(None, store.row.target, store.clock.now(), LIFETIME);
    let endpoint = store.endpoint(store.row.epoch);
    for (method, path) in REQUESTS {
        let target = path.replace("/push/{push}", &endpoint).replace("{message}", &store.message());
        let url = format!("https://push.example.com{endpoint}");
        let body = match (method, path) {
            ("POST", matrix::PATH) => {
                format!(r#"{{"notification":{{"devices":[{{"app_id":"a","pushkey":"{url}"}}]}}}}"#)
            }
            ("POST" | "PUT", _) => "hello".to_owned(),
            _ => String::new(),
        };
        let mut request =
            Request::builder().method(method).uri(target).header("origin", "https://app.example");
        if method == "OPTIONS" {
            request = request.header("access-control-request-method", "POST");
        }
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(PublicUrl("https://push.example.com/".parse().unwrap()));
        let response = store.answer(request).await;
        let status = response.status();
        match status.as_u16() {
            // RFC 9110 §15.3.2: "identified by … a Location header field"; RFC 8030 §5 and §5.2 name it and the TTL.
            201 => assert!(["location", "ttl"].iter().all(|name| header(&response, name).is_some())),
            // RFC 9110 §9.3.7. Hyper and the function (`lambda.rs`) leave out the Content-Length (§8.6).
            204 if method == "OPTIONS" => assert!(header(&response, "allow").is_some(), "{method} {path}"),
            204 => {}
            // RFC 9110 §8.3: an answer with content should have its type.
            200 => assert!(header(&response, "content-type").is_some(), "{method} {path}"),
            _ => panic!("{method} {path}: {status} is in no table"),
        }
        let mut headers: Vec<_> = response.headers().iter().map(told).collect();
        headers.sort();
        let headers = headers.join("\n");
        let body = to_bytes(response.into_body(), 100_000).await.unwrap();
        // RFC 9110 §9.3.2 and §15.3.5.
        assert!(body.is_empty() || (method != "HEAD" && status != StatusCode::NO_CONTENT), "{method} {path}");
        forms += &format!("{method} {path}\n{status}\n{headers}\n\n");
    }
    insta::assert_snapshot!(forms);
}

/// Returns a header, without the parts that differ each time.
fn told((name, value): (&HeaderName, &HeaderValue)) -> String {
    let value = value.to_str().unwrap();
    match name.as_str() {
        "location" => format!("location: {}/…", value.rsplit_once('/').unwrap().0),
        "content-length" => "content-length: …".to_owned(),
        name => format!("{name}: {value}"),
    }
}
