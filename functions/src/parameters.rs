//! The headers of a push (RFC 8030 §5), as senders really write them.

use axum::{extract::FromRequestParts, http::HeaderMap, http::request::Parts};
use push::{Body, Topic, Ttl, Urgency};

use crate::{aesgcm::KeyMaterial, header::first, rejection::Rejection};

/// The headers of a push, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The TTL; `None`: the sender gave none.
    pub(crate) ttl: Option<Ttl>,
    pub(crate) urgency: Urgency,
    pub(crate) topic: Option<Topic>,
    /// The key material of a push in `aesgcm`.
    keys: Option<KeyMaterial>,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::parse(&parts.headers)
    }
}

impl Parameters {
    fn parse(headers: &HeaderMap) -> Result<Self, Rejection> {
        let ttl = match first(headers, "ttl") {
            None => None,
            Some(value) => Some(Ttl::parse(value?).ok_or(Rejection::BadTtl)?),
        };
        let topic = match first(headers, "topic") {
            None => None,
            Some(value) => Some(Topic::parse(value?).ok_or(Rejection::BadTopic)?),
        };
        let urgency = match first(headers, "urgency") {
            Some(Ok(value)) => Urgency::parse(&value.to_ascii_lowercase()),
            Some(Err(_)) | None => Urgency::Normal,
        };
        Ok(Self { ttl, urgency, topic, keys: KeyMaterial::read(headers)? })
    }

    /// Returns the body that the application gets for the body that was sent.
    pub(crate) fn body(&self, sent: &[u8]) -> Body {
        match &self.keys {
            Some(keys) => Body::from_bytes(&keys.before(sent)),
            None => Body::from_bytes(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(headers: &[(&'static str, &str)]) -> Result<Parameters, Rejection> {
        let headers = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Parameters::parse(&map)
    }

    #[test]
    fn no_header_is_needed() {
        assert_eq!(
            parse(&[]),
            Ok(Parameters { ttl: None, urgency: Urgency::Normal, topic: None, keys: None })
        );
        assert_eq!(parse(&[("ttl", ""), ("topic", " ")]), parse(&[]));
    }

    #[test]
    fn the_first_of_several_values_counts() {
        for headers in [&[("ttl", "60,86400")][..], &[("ttl", "60 , x")], &[("ttl", "60"), ("ttl", "86400")]]
        {
            assert_eq!(parse(headers).unwrap().ttl, Some(Ttl::from_seconds(60)), "{headers:?}");
        }
    }

    #[test]
    fn a_bad_ttl_or_topic_is_refused_and_a_bad_urgency_is_not() {
        assert_eq!(parse(&[("ttl", "-1")]), Err(Rejection::BadTtl));
        assert_eq!(parse(&[("ttl", "soon,60")]), Err(Rejection::BadTtl));
        assert_eq!(parse(&[("topic", "a+b")]), Err(Rejection::BadTopic));
        assert_eq!(parse(&[("urgency", "extreme")]).unwrap().urgency, Urgency::Normal);
        assert_eq!(parse(&[("urgency", "High")]).unwrap().urgency, Urgency::High);
        let mut unreadable = HeaderMap::new();
        unreadable.insert("ttl", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(Parameters::parse(&unreadable), Err(Rejection::UnreadableHeader));
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_or_refused(ttl: Vec<u8>, topic: Vec<u8>, urgency: Vec<u8>, keys: [Vec<u8>; 2]) {
            let mut headers = HeaderMap::new();
            headers.insert("content-encoding", HeaderValue::from_static("aesgcm"));
            let [encryption, crypto_key] = keys;
            for (name, value) in [
                ("ttl", ttl), ("topic", topic), ("urgency", urgency), ("encryption", encryption), ("crypto-key", crypto_key)
            ] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = Parameters::parse(&headers);
        }
    }
}
