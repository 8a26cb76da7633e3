//! `Content-Encoding: aesgcm`: its key material is in headers, and XMPP carries a body alone. The two headers go in
//! front of the body, in the form that the UnifiedPush gateways have agreed on (protocol.md §2).

use std::fmt;

use axum::http::HeaderMap;
use push::message::KEY_HEADERS_BYTES_MAX;

use crate::{Rejection, header::first};

/// What goes in front of the body of a push in `aesgcm`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyMaterial(String);

impl KeyMaterial {
    /// `None`: the push is in another encoding, or in none, and its body is looked at by nobody.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Rejection> {
        match first(headers, "content-encoding") {
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("aesgcm") => {}
            _ => return Ok(None),
        }
        let encryption = whole(headers, "Encryption")?;
        let crypto_key = whole(headers, "Crypto-Key")?;
        let (encryption, crypto_key) = (once(&encryption), once(&crypto_key));
        if encryption.len() + crypto_key.len() > KEY_HEADERS_BYTES_MAX {
            return Err(Rejection::KeyMaterialTooLarge);
        }
        Ok(Some(Self(format!("aesgcm\nEncryption: {encryption}\nCrypto-Key: {crypto_key}\n"))))
    }

    /// What the phone gets.
    pub(crate) fn before(&self, body: &[u8]) -> Vec<u8> {
        [self.0.as_bytes(), body].concat()
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} bytes)", self.0.len())
    }
}

/// A header's value as it was sent. Both headers are lists, whose elements are for the phone: several lines are one
/// list (RFC 9110 §5.3), joined as Lambda joins them, so that both fronts hand on the same.
fn whole(headers: &HeaderMap, name: &'static str) -> Result<String, Rejection> {
    let lines: Result<Vec<&str>, _> = headers.get_all(name).iter().map(|line| line.to_str()).collect();
    let lines = lines.map_err(|_| Rejection::UnreadableHeader)?;
    let value = lines.join(",");
    if once(&value).is_empty() { Err(Rejection::NoKeyMaterial(name)) } else { Ok(value) }
}

/// The list without repetitions of the whole of it: a gateway between sends a header twice, and phones look for `dh`
/// and `salt` without expecting two (protocol.md §2).
fn once(value: &str) -> &str {
    let elements: Vec<&str> = value.split(',').map(str::trim).collect();
    let repeats = |length: &usize| {
        elements.len().is_multiple_of(*length)
            && elements.chunks(*length).all(|chunk| *chunk == elements[..*length])
    };
    let length = (1..elements.len()).find(repeats).unwrap_or(elements.len());
    let end = value.match_indices(',').nth(length - 1).map_or(value.len(), |(comma, _)| comma);
    value[..end].trim()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const KEYS: [(&str, &str); 2] = [("encryption", "salt=c2FsdA"), ("crypto-key", "dh=BA8;p256ecdsa=BDd3")];

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
        let expected = "aesgcm\nEncryption: salt=c2FsdA\nCrypto-Key: dh=BA8;p256ecdsa=BDd3\n\n";
        for encoding in ["aesgcm", "AESGCM", " aesgcm , aes128gcm", "aesgcm,aesgcm"] {
            let headers = [&[("content-encoding", encoding)], &KEYS[..]].concat();
            assert_eq!(read(&headers), Ok(Some(expected.into())), "{encoding}");
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
            let lines: Vec<_> = values.iter().map(|value| ("crypto-key", *value)).collect();
            let read = in_aesgcm(&[&[KEYS[0]], &lines[..]].concat()).unwrap().unwrap();
            assert_eq!(read, format!("aesgcm\nEncryption: salt=c2FsdA\nCrypto-Key: {expected}\n\n"));
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
    fn the_headers_have_a_bound_together() {
        let room = KEY_HEADERS_BYTES_MAX - KEYS[0].1.len();
        let longest = in_aesgcm(&[KEYS[0], ("crypto-key", &"x".repeat(room))]);
        assert_eq!(longest.unwrap().unwrap().len(), 33 + KEY_HEADERS_BYTES_MAX + 1);
        let longer = in_aesgcm(&[KEYS[0], ("crypto-key", &"x".repeat(room + 1))]);
        assert_eq!(longer, Err(Rejection::KeyMaterialTooLarge));
    }
}
