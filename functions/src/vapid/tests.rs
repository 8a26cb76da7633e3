use axum::http::HeaderValue;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::json;

use super::*;

/// The example of RFC 8292 §2.4.
const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.\
    eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.\
    i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
const EXPIRY: i64 = 1_453_523_768;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn sender(headers: &[(&'static str, &str)], urls: &[&str]) -> Sender {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let origins = urls.iter().map(|url| Url::parse(url).unwrap().origin()).collect();
    Sender { credentials: Credentials::parse(&map), origins }
}

/// Returns the verdict on the example, an hour before it expires.
fn of_the_example(headers: &[(&'static str, &str)]) -> Result<(), Rejection> {
    sender(headers, &["https://push.example.net"]).prove(&KEY.parse().unwrap(), at(EXPIRY - 3600))
}

#[test]
fn the_example_of_the_rfc_is_good_in_every_style() {
    let standard = KEY.replace('-', "+").replace('_', "/");
    let (quoted, spaced) =
        (format!("VAPID k=\"{KEY}\",t=\"{TOKEN}\""), format!("vapid\t t = {TOKEN} , k = {KEY}"));
    let vapid = [
        format!("vapid t={TOKEN}, k={KEY}"),
        format!("vapid t={TOKEN},k={KEY}"),
        format!("Vapid  k={KEY},x=1, t={TOKEN}"),
        format!("vapid t={TOKEN};k={KEY}"),
        format!("vapid t={TOKEN}, k={KEY}="),
        format!("vapid t={TOKEN}, k={standard}"),
        format!("vapid t={TOKEN}, k={standard}="),
        format!("vapid t={TOKEN}"),
        format!("vapid t={TOKEN}, k={KEY},vapid t=x, k=y"),
        format!("Basic dXBAcA==, vapid t={TOKEN}, k={KEY}"),
        quoted,
        spaced,
    ];
    for value in &vapid {
        assert_eq!(of_the_example(&[("authorization", value)]), Ok(()), "{value}");
    }
    let twice =
        [("authorization", "Basic dXBAcA=="), ("authorization", &vapid[0]), ("authorization", "vapid t=x")];
    assert_eq!(of_the_example(&twice), Ok(()));

    let (dh, ecdsa) = ("dh=BGEw2wsHgLwzerjvnMTkbKrFRxdmwJ5S", format!("p256ecdsa={KEY}"));
    let crypto_keys = [
        ecdsa.clone(),
        format!("{dh};{ecdsa}"),
        format!("{ecdsa},{dh}"),
        format!("keyid=p256dh;{dh}, P256ECDSA={standard}="),
        dh.to_owned(),
    ];
    for scheme in ["WebPush", "webpush", "Bearer"] {
        let authorization = format!("{scheme} {TOKEN}");
        for crypto_key in &crypto_keys {
            let headers = [("authorization", authorization.as_str()), ("crypto-key", crypto_key)];
            assert_eq!(of_the_example(&headers), Ok(()), "{headers:?}");
        }
        assert_eq!(
            of_the_example(&[("authorization", &authorization)]),
            Ok(()),
            "the bound key has signed it"
        );
    }
}

#[test]
fn nothing_of_ours_is_missing_and_what_is_wrong_is_wrong() {
    for value in ["", "vapid", "Basic dXBAcA==", "t=x, k=y", "vapidt=x", "Digest vapid=x"] {
        assert_eq!(of_the_example(&[("authorization", value)]), Err(Rejection::VapidMissing), "{value}");
    }
    assert_eq!(of_the_example(&[("crypto-key", &format!("p256ecdsa={KEY}"))]), Err(Rejection::VapidMissing));

    let other = KEY.replacen("BA1", "BA2", 1);
    let (signed_part, _) = TOKEN.rsplit_once('.').unwrap();
    let cases = [
        (format!("vapid k={KEY}"), VapidFault::Token),
        (format!("vapid t=, k={KEY}"), VapidFault::Token),
        (format!("vapid t=a.b.c, k={KEY}"), VapidFault::Token),
        (format!("vapid t={signed_part}., k={KEY}"), VapidFault::Signature),
        (format!("vapid t={signed_part}, k={KEY}"), VapidFault::Token),
        (format!("vapid t={}, k={KEY}", &TOKEN[..TOKEN.len() - 6]), VapidFault::Signature),
        (format!("vapid t={}, k={KEY}", TOKEN.replace("i3CY", "i4CY")), VapidFault::Signature),
        (format!("vapid t={TOKEN}, k={other}"), VapidFault::Key),
        (format!("vapid t={TOKEN}, k=x"), VapidFault::Key),
        (format!("vapid t={TOKEN}, k="), VapidFault::Key),
    ];
    for (value, fault) in cases {
        let refused = of_the_example(&[("authorization", &value)]);
        assert_eq!(refused, Err(Rejection::VapidWrong(fault)), "{value}");
    }
    let headers =
        [("authorization", &*format!("WebPush {TOKEN}")), ("crypto-key", &*format!("p256ecdsa={other}"))];
    assert_eq!(of_the_example(&headers), Err(Rejection::VapidWrong(VapidFault::Key)));
}

#[test]
fn a_key_that_is_not_on_the_curve_lets_nobody_push() {
    let mut point = [7; VapidKey::BYTES];
    point[0] = 4;
    let key = VapidKey::from_bytes(&point).unwrap();
    let sender = sender(&[("authorization", &format!("vapid t={TOKEN}"))], &["https://push.example.net"]);
    assert_eq!(sender.prove(&key, at(EXPIRY)), Err(Rejection::VapidWrong(VapidFault::Signature)));
}

#[test]
fn an_ingress_that_does_not_know_where_it_is_refuses_nobody_for_good() {
    let sender = sender(&[("authorization", &format!("vapid t={TOKEN}, k={KEY}"))], &[]);
    assert_eq!(sender.prove(&KEY.parse().unwrap(), at(EXPIRY)), Err(Rejection::Unavailable));
}

/// Signs tokens of any kind.
struct ApplicationServer(EcdsaKeyPair);

impl ApplicationServer {
    fn new() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &SystemRandom::new());
        Self(pair.unwrap())
    }

    /// Returns the verdict at `now` on a token with these claims, or with any other text in their place.
    fn claims(&self, header: &str, claims: &str, now: i64) -> Result<(), VapidFault> {
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let key = VapidKey::from_bytes(self.0.public_key().as_ref()).unwrap();
        let header = format!("vapid t={token}, k={key}");
        let urls = ["https://push.example.com/up/", "http://[::1]:8080"];
        match sender(&[("authorization", &header)], &urls).prove(&key, at(now)) {
            Err(Rejection::VapidWrong(fault)) => Err(fault),
            verdict => {
                assert_eq!(verdict, Ok(()));
                Ok(())
            }
        }
    }
}

const ES256: &str = r#"{"alg":"ES256"}"#;

#[test]
fn only_es256_is_a_token() {
    let server = ApplicationServer::new();
    let claims = json!({"aud": "https://push.example.com", "exp": 1000}).to_string();
    for header in [ES256, r#"{"typ":"JWT","alg":"ES256"}"#, r#"{"alg":"ES256","typ":"jwt","kid":"1","x":[]}"#]
    {
        assert_eq!(server.claims(header, &claims, 0), Ok(()), "{header}");
    }
    for header in ["", "{}", "null", r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"ES384"}"#] {
        assert_eq!(server.claims(header, &claims, 0), Err(VapidFault::Token), "{header}");
    }
    for claims in ["", "[]", "1", "{", "null", "\"\""] {
        assert_eq!(server.claims(ES256, claims, 0), Err(VapidFault::Token), "{claims}");
    }
}

#[test]
fn the_audience_is_the_origin_of_the_endpoint() {
    let server = ApplicationServer::new();
    let verdict =
        |audience: Value| server.claims(ES256, &json!({"aud": audience, "exp": 1000}).to_string(), 0);
    for good in [
        json!("https://push.example.com"),
        json!("https://push.example.com/"),
        json!("https://PUSH.example.com:443"),
        json!("https://push.example.com/up/push/x"),
        json!("http://[::1]:8080"),
        json!(["https://push.example.org", "https://push.example.com"]),
    ] {
        assert_eq!(verdict(good.clone()), Ok(()), "{good}");
    }
    for bad in [
        json!("https://push.example.org"),
        json!("http://push.example.com"),
        json!("https://push.example.com:8443"),
        json!("https://push.example.com.evil.example"),
        json!("https://push.example.com@evil.example"),
        json!("push.example.com"),
        json!("data:push.example.com"),
        json!(""),
        json!([]),
        json!([1, null]),
        json!({"https://push.example.com": 1}),
        json!(null),
    ] {
        assert_eq!(verdict(bad.clone()), Err(VapidFault::Audience), "{bad}");
    }
    assert_eq!(server.claims(ES256, r#"{"exp":1000}"#, 0), Err(VapidFault::Audience));
}

#[test]
fn the_expiry_is_at_most_a_day_ahead_and_either_end_has_a_leeway() {
    let server = ApplicationServer::new();
    let verdict = |expiry: Value, now| {
        let claims = json!({"aud": "https://push.example.com", "exp": expiry, "nbf": 9e15, "iat": "x"});
        server.claims(ES256, &claims.to_string(), now)
    };
    let (now, day) = (1_800_000_000, TimeDelta::days(1).num_seconds());
    let cases = [
        (-day, Err(VapidFault::Expired)),
        (-301, Err(VapidFault::Expired)),
        (-300, Ok(())),
        (0, Ok(())),
        (day, Ok(())),
        (day + 300, Ok(())),
        (day + 301, Err(VapidFault::TooFarAhead)),
        (365 * day, Err(VapidFault::TooFarAhead)),
    ];
    for (left, expected) in cases {
        assert_eq!(verdict(json!(now + left), now), expected, "{left}");
        assert_eq!(verdict(json!((now + left) as f64), now), expected, "{left}, with a fraction");
    }
    assert_eq!(verdict(json!(-1), now), Err(VapidFault::Expired));
    assert_eq!(verdict(json!(1e300), now), Err(VapidFault::TooFarAhead));
    for none in [json!(null), json!("1800000000"), json!(true)] {
        assert_eq!(verdict(none.clone(), now), Err(VapidFault::NoExpiry), "{none}");
    }
    assert_eq!(server.claims(ES256, r#"{"aud":"https://push.example.com"}"#, now), Err(VapidFault::NoExpiry));
}

proptest! {
    #[test]
    fn any_header_is_read_and_any_credentials_are_judged(
        scheme in "vapid |WebPush |Bearer |Basic ||.{0,8}",
        authorization: Vec<u8>,
        crypto_key: Vec<u8>,
        now in -1_000_000_000_000_i64..1_000_000_000_000,
    ) {
        let mut headers = HeaderMap::new();
        let authorization = [scheme.as_bytes(), &authorization].concat();
        for (name, value) in [("authorization", &authorization), ("crypto-key", &crypto_key)] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(name, value);
            }
        }
        let origins = vec![Url::parse("https://push.example.net").unwrap().origin()];
        let sender = Sender { credentials: Credentials::parse(&headers), origins };
        prop_assert!(sender.prove(&KEY.parse().unwrap(), at(now)).is_err());
    }

    #[test]
    fn any_token_is_judged(token in "[ -~]{0,200}", t in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,4}") {
        for token in [token, t] {
            let authorization = format!("vapid t={token}");
            prop_assert!(of_the_example(&[("authorization", &authorization)]).is_err());
        }
    }

    #[test]
    fn any_claims_are_judged(claims in "\\{\"aud\":\"https://push.example.com\",\"exp\":[0-9eE.+-]{0,30}\\}") {
        let _ = ApplicationServer::new().claims(ES256, &claims, 0);
    }
}
