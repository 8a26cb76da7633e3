use axum::http::{HeaderName, HeaderValue};

use super::*;

/// Salt and point of a push from Mastodon (tests/requests).
const SALT: &str = "CpweO6cOWHd1EVQcA5vsiA";
const POINT: &str = "BCGaik-XBjQgyYWLEPW-JZSR7QwsDczQL4HtRaT-dqfx0xPjU9MionWq_Du65JSh94VuDwOky9jx5tYUJOMa_Go";

const KEYS: [(&str, &str); 2] = [
    ("encryption", "salt=CpweO6cOWHd1EVQcA5vsiA"),
    (
        "crypto-key",
        "dh=BCGaik-XBjQgyYWLEPW-JZSR7QwsDczQL4HtRaT-dqfx0xPjU9MionWq_Du65JSh94VuDwOky9jx5tYUJOMa_Go;p256ecdsa=BDd3",
    ),
];

fn read(headers: &[(&'static str, &str)]) -> Result<Option<String>, Rejection> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    KeyMaterial::read(&map).map(|keys| keys.map(|keys| String::from_utf8(keys.before(b"\n")).unwrap()))
}

fn in_aesgcm(headers: &[(&'static str, &str)]) -> Result<Option<String>, Rejection> {
    read(&[&[("content-encoding", "aesgcm")], headers].concat())
}

#[test]
fn the_headers_go_in_front_of_the_body_as_they_are() {
    let expected = format!("aesgcm\nEncryption: {}\nCrypto-Key: {}\n\n", KEYS[0].1, KEYS[1].1);
    for encoding in ["aesgcm", "AESGCM", " aesgcm , aes128gcm", "aesgcm,aesgcm"] {
        let headers = [&[("content-encoding", encoding)], &KEYS[..]].concat();
        assert_eq!(read(&headers), Ok(Some(expected.clone())), "{encoding}");
    }
}

#[test]
fn in_any_other_encoding_the_headers_are_none_of_our_business() {
    assert_eq!(read(&KEYS), Ok(None));
    for encoding in ["aes128gcm", "aes128gcm, aesgcm", "", "aesgcm2", "gzip", "\u{fc}"] {
        let headers = [&[("content-encoding", encoding)], &KEYS[..]].concat();
        assert_eq!(read(&headers), Ok(None), "{encoding}");
    }
}

#[test]
fn a_list_stays_whole_and_what_comes_twice_comes_once() {
    let cases: [(&[&str], &str); 9] = [
        (&["dh=A,p256ecdsa=B"], "dh=A,p256ecdsa=B"),
        (&["dh=A", "p256ecdsa=B"], "dh=A,p256ecdsa=B"),
        (&["dh=A;p256ecdsa=B,dh=A;p256ecdsa=B"], "dh=A;p256ecdsa=B"),
        (&["dh=A", "dh=A"], "dh=A"),
        (&["dh=A, dh=A ,dh=A"], "dh=A"),
        (&["dh=A, p256ecdsa=B,dh=A, p256ecdsa=B"], "dh=A, p256ecdsa=B"),
        (&["dh=A,dh=A,p256ecdsa=B"], "dh=A,dh=A,p256ecdsa=B"),
        (&["dh=A", "dh=C"], "dh=A,dh=C"),
        (&["keyid=\"a b\"; dh=\"A\""], "keyid=\"a b\"; dh=\"A\""),
    ];
    for (values, expected) in cases {
        let of_phones =
            |value: &str| value.replace("=A", &format!("={POINT}")).replace("\"A\"", &format!("{POINT:?}"));
        let values: Vec<_> = values.iter().map(|value| of_phones(value)).collect();
        let lines: Vec<_> = values.iter().map(|value| ("crypto-key", value.as_str())).collect();
        let read = in_aesgcm(&[&[KEYS[0]], &lines[..]].concat()).unwrap().unwrap();
        let expected = of_phones(expected);
        assert_eq!(read, format!("aesgcm\nEncryption: salt={SALT}\nCrypto-Key: {expected}\n\n"));
    }
}

#[test]
fn without_both_headers_nobody_could_decrypt_it() {
    assert_eq!(in_aesgcm(&[]), Err(Rejection::NoKeyMaterial("Encryption")));
    assert_eq!(in_aesgcm(&[KEYS[0]]), Err(Rejection::NoKeyMaterial("Crypto-Key")));
    for empty in ["", ",", ", ,"] {
        let refused = in_aesgcm(&[("encryption", empty), KEYS[1]]);
        assert_eq!(refused, Err(Rejection::NoKeyMaterial("Encryption")), "{empty}");
    }
    assert_eq!(in_aesgcm(&[KEYS[0], ("crypto-key", "dh=\u{fc}")]), Err(Rejection::UnreadableHeader));
}

#[test]
fn a_salt_and_a_point_of_the_right_length_have_to_be_there() {
    let padded = format!("keyid=p256dh; salt=\"{SALT}==\"");
    let in_the_other_alphabet = format!("dh={}=", POINT.replace('-', "+").replace('_', "/"));
    let good = in_aesgcm(&[("encryption", &padded), ("crypto-key", &in_the_other_alphabet)]);
    assert!(good.is_ok(), "{good:?}");
    let second = format!("dh=AAAA,DH={POINT}");
    assert!(in_aesgcm(&[KEYS[0], ("crypto-key", &second)]).is_ok(), "which counts, the phone decides");

    let short = format!("salt={}", &SALT[..20]);
    for salt in ["rs=4096", "salt", "salt=", "salt=%%%", "x=salt", &short, &format!("salt={SALT}AA")] {
        let refused = in_aesgcm(&[("encryption", salt), KEYS[1]]);
        assert_eq!(refused, Err(Rejection::BadKeyMaterial("salt")), "{salt}");
    }
    let compressed = format!("dh={}", POINT.replacen('B', "A", 1));
    for dh in
        ["p256ecdsa=BDd3", "dh=", "dh=BA8", &compressed, &format!("dh={POINT}AA"), &format!("p256dh={POINT}")]
    {
        let refused = in_aesgcm(&[KEYS[0], ("crypto-key", dh)]);
        assert_eq!(refused, Err(Rejection::BadKeyMaterial("dh")), "{dh}");
    }
}

#[test]
fn what_the_first_drafts_had_is_refused_whatever_else_there_is() {
    for encoding in ["aesgcm128", "AESGCM128", "aesgcm128, aes128gcm"] {
        assert_eq!(read(&[("content-encoding", encoding)]), Err(Rejection::SupersededEncoding), "{encoding}");
    }
}

#[test]
fn the_headers_have_a_bound_together() {
    let room = KEY_HEADERS_BYTES_MAX - KEYS[0].1.len();
    let crypto_key = |length: usize| format!("dh={POINT};{}", "x".repeat(length - POINT.len() - 4));
    let longest = in_aesgcm(&[KEYS[0], ("crypto-key", &crypto_key(room))]);
    assert_eq!(longest.unwrap().unwrap().len(), 33 + KEY_HEADERS_BYTES_MAX + 1);
    let longer = in_aesgcm(&[KEYS[0], ("crypto-key", &crypto_key(room + 1))]);
    assert_eq!(longer, Err(Rejection::KeyMaterialTooLarge));
}
