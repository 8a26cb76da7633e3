//! The ingress accepts any request, or refuses it with a problem, and never fails.

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

/// Names of headers that the ingress reads, and some that it ignores.
const NAMES: [&str; 9] = [
    "ttl",
    "urgency",
    "topic",
    "content-encoding",
    "encryption",
    "crypto-key",
    "authorization",
    "content-length",
    "x-other",
];
const METHODS: [&str; 10] =
    ["POST", "POST", "POST", "POST", "PUT", "GET", "HEAD", "DELETE", "OPTIONS", "BREW"];

/// Makes values: most are meaningful ones, some of them repeated.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "0",
        "60,86400",
        "-1",
        "high",
        "news=",
        "aesgcm",
        "aesgcm, aes128gcm",
        "aesgcm128",
        "salt=CpweO6cOWHd1EVQcA5vsiA,salt=CpweO6cOWHd1EVQcA5vsiA",
        "dh=BCGaik-XBjQgyYWLEPW-JZSR7QwsDczQL4HtRaT-dqfx0xPjU9MionWq_Du65JSh94VuDwOky9jx5tYUJOMa_Go;p256ecdsa=BDd3",
        "vapid t=a.b.c, k=BDd3",
        "WebPush a.b.c",
        ",",
        "",
    ];
    let known = prop::sample::select(known.map(|text| text.as_bytes().to_vec()).to_vec());
    let long = (0usize..3000).prop_map(|length| vec![b'x'; length]);
    prop_oneof![6 => known, 2 => any::<Vec<u8>>(), 1 => long]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    prop::collection::vec((prop::sample::select(&NAMES[..]), value()), 0..6)
}

/// Makes paths. `{push}` and `{message}` become tokens of a living endpoint and a waiting push.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("/push/{push}".to_owned()),
        2 => Just("/message/{message}".to_owned()),
        1 => "/(push|message)/[A-Za-z0-9_%-]{0,80}",
        1 => "/[!-~]{0,40}",
    ]
}

/// Checks the answer to any request.
async fn check(request: Request<Body>, token: &str, store: &Store) {
    let head = request.method() == "HEAD";
    let response = store.answer(request).await;
    let status = response.status();
    assert!(!status.is_server_error(), "{status}");
    if status.is_success() || head {
        return;
    }
    assert_eq!(header(&response, "content-type").as_deref(), Some("application/problem+json"));
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()));
    assert!(problem["type"].as_str().unwrap().starts_with("https://"));
    assert!(!String::from_utf8_lossy(&body).contains(token), "it shows the token");
}

proptest! {
    // Cases are cheap.
    #![proptest_config(ProptestConfig::with_cases(3 * ProptestConfig::default().cases))]

    #[test]
    fn any_request_is_answered_and_no_refusal_shows_what_it_was(
        method in prop::sample::select(&METHODS[..]),
        path in path(),
        headers in headers(),
        length in prop_oneof![0usize..3, 4090usize..5000],
        bound: bool,
    ) {
        let mut store = store();
        store.row.target.vapid = bound.then(|| VapidKey::from_bytes(&[4; VapidKey::BYTES]).unwrap());
        let endpoint = store.endpoint(store.row.epoch);
        let token = endpoint.strip_prefix("/push/").unwrap();
        let path = path.replace("{push}", token).replace("{message}", &store.message());
        let mut request = Request::builder().method(method).uri(&path);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request = request.header(HeaderName::from_static(name), value);
            }
        }
        if let Ok(mut request) = request.body(Body::from(vec![b'x'; length])) {
            request.extensions_mut().insert(PublicUrl("https://push.example.com/".parse().unwrap()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(check(request, token, &store));
        }
    }
}
