//! The push resource (docs/senders.md): every row of its table, as a sender sees it.

use e2e::{Kind, Phone, SOON, Upwire, XmppServer, hashed, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Key material of an `aesgcm` push: a salt of 16 bytes, and an uncompressed point.
const SALT: &str = "CpweO6cOWHd1EVQcA5vsiA";
const POINT: &str = "BCGaik-XBjQgyYWLEPW-JZSR7QwsDczQL4HtRaT-dqfx0xPjU9MionWq_Du65JSh94VuDwOky9jx5tYUJOMa_Go";

type Headers = &'static [(&'static str, &'static str)];

struct Registered {
    upwire: Upwire,
    phone: Phone,
    endpoint: String,
}

async fn registered() -> Registered {
    registered_with(&[]).await
}

async fn registered_with(variables: &[(&str, &str)]) -> Registered {
    let server = XmppServer::shared(Kind::Prosody).await;
    let builder =
        variables.iter().fold(Upwire::on(server), |builder, (name, value)| builder.set(name, value));
    let upwire = builder.start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let registered = phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await.unwrap();
    Registered { upwire, phone, endpoint: registered.endpoint }
}

#[tokio::test]
async fn an_accepted_push_has_a_location_and_the_ttl_it_is_kept_for() {
    let Registered { upwire, endpoint, phone } = registered().await;
    let cases: [(Headers, &str); 7] = [
        (&[], "86400"),
        (&[("TTL", "60")], "60"),
        (&[("TTL", "0")], "0"),
        (&[("TTL", "99999999999")], "604800"),
        (&[("TTL", "60,86400")], "60"),
        (&[("TTL", "60"), ("TTL", "86400")], "60"),
        (&[("TTL", "60"), ("Urgency", "nonsense"), ("Topic", "updates=")], "60"),
    ];
    for (headers, ttl) in &cases {
        let accepted = http::post_with(&endpoint, headers, "x").await;
        assert_eq!((accepted.status, accepted.header("ttl")), (201, Some(*ttl)), "{headers:?}");
        let location = accepted.header("location").unwrap();
        assert!(location.starts_with(&format!("{}/message/", upwire.public_url)), "{location}");
    }
    phone.wait_for_pushes(cases.len(), SOON).await;
}

#[tokio::test]
async fn a_push_that_cannot_be_one_is_refused_with_a_problem() {
    let Registered { upwire, endpoint, .. } = registered().await;
    let cases: [(Headers, &str, u16); 8] = [
        (&[], "", 400),
        (&[("TTL", "-1")], "x", 400),
        (&[("TTL", "soon")], "x", 400),
        (&[("TTL", "1.5")], "x", 400),
        (&[("Topic", "a topic")], "x", 400),
        (&[("Topic", "a+b/c")], "x", 400),
        (&[("Topic", "123456789012345678901234567890123")], "x", 400),
        (&[("Topic", "=")], "x", 400),
    ];
    for (headers, body, status) in cases {
        let refused = http::post_with(&endpoint, headers, body).await;
        assert_eq!(refused.status, status, "{headers:?}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let problem = refused.json();
        assert_eq!(problem["status"], status);
        assert!(
            ["empty_body", "bad_ttl", "bad_topic"].iter().any(|code| problem["code"] == *code),
            "{problem}"
        );
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        let explained = problem["type"].as_str().unwrap();
        assert!(explained.starts_with("https://") && explained.ends_with("#why-did-my-push-get-a-400"));
    }
    upwire.never_counted("upwire_pushes_accepted_total").await;
    upwire.metric_is_where("upwire_pushes_refused_total", &[("reason", "bad_ttl")], 3.0).await;
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_not_found() {
    let Registered { upwire, endpoint, .. } = registered().await;
    let (start, last) = endpoint.split_at(endpoint.len() - 1);
    let forged = format!("{start}{}", if last == "A" { "E" } else { "A" });
    let longer = format!("{endpoint}A");
    let encoded = format!("{start}%00");
    for url in [&forged, &longer, start, &encoded, &format!("{}/push/x", upwire.public_url)] {
        for method in ["POST", "GET", "HEAD"] {
            assert_eq!(http::send(method, url, &[], "x").await.status, 404, "{method} {url}");
        }
    }
    for path in ["/push", "/push/", "/push/a/b", "/message", "/message/a/b", "/metrics", "/healthz"] {
        assert_eq!(http::post(&format!("{}{path}", upwire.public_url), "x").await.status, 404, "{path}");
    }
    for root in ["", "/"] {
        let page = http::post(&format!("{}{root}", upwire.public_url), "x").await;
        assert_eq!((page.status, page.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[tokio::test]
async fn a_body_over_4096_bytes_is_refused_and_read_no_further() {
    let Registered { upwire: _upwire, endpoint, phone } = registered().await;
    assert_eq!(http::post(&endpoint, vec![b'x'; 4097]).await.status, 413);
    assert_eq!(http::post(&endpoint, vec![b'x'; 4096]).await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body.len(), 4096);

    let address = endpoint.strip_prefix("http://").unwrap();
    let (host, path) = address.split_at(address.find('/').unwrap());
    // An announced body is refused before a byte of it comes, and a chunked body at the byte that is too many.
    let announced = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000000\r\n\r\n");
    let chunked = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n{}",
        "x".repeat(4097)
    );
    for request in [announced, chunked] {
        let mut socket = TcpStream::connect(host).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, socket.read_to_string(&mut answer)).await.expect("it answers and closes").unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn other_methods_answer_as_they_should() {
    let Registered { upwire: _upwire, endpoint, .. } = registered().await;
    let get = http::get(&endpoint).await;
    assert_eq!((get.status, get.json()["unifiedpush"]["version"].as_u64()), (200, Some(1)));
    let head = http::send("HEAD", &endpoint, &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for method in ["DELETE", "PATCH", "QUERY"] {
        let refused = http::send(method, &endpoint, &[], "x").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST, PUT, GET, HEAD, OPTIONS")));
    }
}

#[tokio::test]
async fn a_page_of_any_origin_may_push() {
    let Registered { upwire: _upwire, endpoint, .. } = registered().await;
    let asked = [
        ("Origin", "https://app.example.org"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "ttl,content-encoding"),
    ];
    let preflight = http::send("OPTIONS", &endpoint, &asked, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, PUT, GET, HEAD, OPTIONS"));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    for name in [
        "TTL",
        "Topic",
        "Urgency",
        "Content-Encoding",
        "Encryption",
        "Crypto-Key",
        "Authorization",
        "Content-Type",
    ] {
        assert!(allowed.split(", ").any(|allowed| allowed == name), "{name}");
    }
    for body in ["x", ""] {
        let response = http::post_with(&endpoint, &asked[..1], body).await;
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!(response.header("access-control-expose-headers"), Some("Location, TTL, Retry-After"));
    }
}

#[tokio::test]
async fn what_a_body_claims_to_be_is_never_looked_at() {
    let Registered { upwire: _upwire, endpoint, phone } = registered().await;
    let headers = [("Content-Encoding", "aes128gcm"), ("Content-Type", "application/json")];
    assert_eq!(http::post_with(&endpoint, &headers, r#"{"plain":"json"}"#).await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, br#"{"plain":"json"}"#);
}

#[tokio::test]
async fn the_key_material_of_aesgcm_goes_in_front_of_the_body() {
    let Registered { upwire: _upwire, endpoint, phone } = registered().await;
    // The two headers together are as long as they may be.
    let encryption = format!("salt={SALT};rs=4096;{}", "s".repeat(9));
    let crypto_key = format!("dh={POINT};{}", "d".repeat(1912));
    let headers =
        [("Content-Encoding", "aesgcm"), ("Encryption", &*encryption), ("Crypto-Key", &*crypto_key)];
    assert_eq!(http::post_with(&endpoint, &headers, vec![0xff; 4097]).await.status, 413);
    assert_eq!(http::post_with(&endpoint, &headers, vec![0xff; 4096]).await.status, 201);
    let expected = format!("aesgcm\nEncryption: {encryption}\nCrypto-Key: {crypto_key}\n");
    assert_eq!(phone.next_push(SOON).await.body, [expected.as_bytes(), &[0xff; 4096]].concat());

    let longer = format!("{crypto_key}d");
    let refused: [&[(&str, &str)]; 4] = [
        &headers[..1],
        &headers[..2],
        &[headers[0], headers[2]],
        &[headers[0], headers[1], ("Crypto-Key", &longer)],
    ];
    for headers in refused {
        assert_eq!(http::post_with(&endpoint, headers, "x").await.status, 400, "{headers:?}");
    }
}

#[tokio::test]
async fn a_public_url_with_a_path_works_with_and_without_it() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_PUBLIC_URL", "https://example.com/up/").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let registered = phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await.unwrap();
    let token = registered.endpoint.strip_prefix("https://example.com/up/push/").unwrap();
    for path in ["/up/push/", "/push/"] {
        let accepted = http::post(&format!("{}{path}{token}", upwire.public_url), "x").await;
        assert_eq!(accepted.status, 201);
        assert!(accepted.header("location").unwrap().starts_with("https://example.com/up/message/"));
    }
    phone.wait_for_pushes(2, SOON).await;
}

#[tokio::test]
async fn the_operator_bounds_the_ttl() {
    let variables = [("UPWIRE_DEFAULT_TTL", "100"), ("UPWIRE_MAX_TTL", "200")];
    let Registered { upwire: _upwire, endpoint, .. } = registered_with(&variables).await;
    for (asked, kept) in [(None, "100"), (Some("150"), "150"), (Some("300"), "200")] {
        let headers: Vec<_> = asked.map(|ttl| ("TTL", ttl)).into_iter().collect();
        assert_eq!(http::post_with(&endpoint, &headers, "x").await.header("ttl"), Some(kept));
    }
}

#[tokio::test]
async fn a_push_is_kept_until_one_more_renewal_at_most() {
    let variables = [("UPWIRE_REGISTRATION_TTL", "3600")];
    let Registered { upwire: _upwire, endpoint, .. } = registered_with(&variables).await;
    for (asked, kept) in [("0", 0..=0), ("3600", 3600..=3600), ("604800", 7000..=7200)] {
        let accepted = http::post_with(&endpoint, &[("TTL", asked)], "x").await;
        let ttl = accepted.header("ttl").unwrap().parse().unwrap();
        assert!(kept.contains(&ttl), "{asked}: {ttl}");
    }
}
