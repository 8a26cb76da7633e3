//! `Content-Encoding: aesgcm`, whose key material is in two headers. XMPP carries only a body, so the headers go in
//! front of it, in the form that the UnifiedPush gateways have agreed on (docs/senders.md, "Encryption").

use std::fmt;

use axum::http::HeaderMap;
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use push::message::KEY_HEADERS_BYTES_MAX;

use crate::{header::first, rejection::Rejection};

/// Base64url with or without padding: senders do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The coding of the first drafts, with other header fields and another key derivation. No phone decrypts it any more.
const SUPERSEDED: &str = "aesgcm128";
/// Length of a salt (draft-ietf-httpbis-encryption-encoding-03 §3.1).
const SALT_BYTES: usize = 16;
/// Length of an uncompressed point of P-256, which begins with [`UNCOMPRESSED`] (draft-ietf-webpush-encryption-04 §4).
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// The lines in front of the body of a push in `aesgcm`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyMaterial(String);

impl KeyMaterial {
    /// Reads the key material from the headers; `None`: the push has another encoding, or none, and its body is passed
    /// on unread.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Rejection> {
        match first(headers, "content-encoding") {
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("aesgcm") => {}
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case(SUPERSEDED) => {
                return Err(Rejection::SupersededEncoding);
            }
            _ => return Ok(None),
        }
        let encryption = whole(headers, "Encryption")?;
        let crypto_key = whole(headers, "Crypto-Key")?;
        let (encryption, crypto_key) = (once(&encryption), once(&crypto_key));
        if encryption.len() + crypto_key.len() > KEY_HEADERS_BYTES_MAX {
            return Err(Rejection::KeyMaterialTooLarge);
        }
        if !has(encryption, "salt", |salt| salt.len() == SALT_BYTES) {
            return Err(Rejection::BadKeyMaterial("salt"));
        }
        if !has(crypto_key, "dh", |point| point.len() == POINT_BYTES && point[0] == UNCOMPRESSED) {
            return Err(Rejection::BadKeyMaterial("dh"));
        }
        Ok(Some(Self(format!("aesgcm\nEncryption: {encryption}\nCrypto-Key: {crypto_key}\n"))))
    }

    /// Returns the body that the phone gets.
    pub(crate) fn before(&self, body: &[u8]) -> Vec<u8> {
        [self.0.as_bytes(), body].concat()
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} bytes)", self.0.len())
    }
}

/// Returns a header's value as it was sent. Both headers are lists for the phone. Several lines are one list (RFC 9110
/// §5.3), joined as Lambda joins them, so that the function and `serve` pass on the same.
fn whole(headers: &HeaderMap, name: &'static str) -> Result<String, Rejection> {
    let lines: Result<Vec<&str>, _> = headers.get_all(name).iter().map(|line| line.to_str()).collect();
    let lines = lines.map_err(|_| Rejection::UnreadableHeader)?;
    let value = lines.join(",");
    if once(&value).is_empty() { Err(Rejection::NoKeyMaterial(name)) } else { Ok(value) }
}

/// Returns whether an element of the list has this parameter, with a good value. The phone decides which of several
/// counts. Nobody can decrypt a push without one.
fn has(list: &str, name: &str, is_good: impl Fn(&[u8]) -> bool) -> bool {
    let parameters = list.split([',', ';']).filter_map(|parameter| parameter.split_once('='));
    let mut values = parameters.filter(|(found, _)| found.trim().eq_ignore_ascii_case(name));
    values.any(|(_, value)| {
        // Some senders write the other alphabet, and some applications read it.
        let value = value.trim().trim_matches('"').replace('+', "-").replace('/', "_");
        BASE64.decode(value).is_ok_and(|bytes| is_good(&bytes))
    })
}

/// Returns the list without repetitions of the whole list. Some gateways send a header twice, and phones do not expect
/// a second `dh` or `salt` (docs/senders.md, "Encryption").
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
mod tests;
