//! Settings that the cloud function and `upwire serve` check in the same way.

use jid::BareJid;
use push::Ttl;
use url::Url;

/// Most bytes of the public URL. Endpoints stay under 512 bytes (docs/senders.md, "What senders do"), of which the
/// token and its path take 61.
const PUBLIC_URL_BYTES_MAX: usize = 448;

/// The times for which pushes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFor {
    /// Time for a push without `TTL`.
    pub default: Ttl,
    /// Longest time for any push.
    pub max: Ttl,
}

impl KeptFor {
    /// Takes both in seconds.
    ///
    /// # Errors
    /// The problem, if `max` is less than `default`.
    pub fn new(default: u32, max: u32) -> Result<Self, String> {
        if default > max {
            return Err(format!("{max} is less than UPWIRE_DEFAULT_TTL, {default}"));
        }
        Ok(Self { default: Ttl::from_seconds(default), max: Ttl::from_seconds(max) })
    }
}

/// Parses the URL at which application servers reach the ingress: scheme, host, perhaps port and path.
///
/// # Errors
/// The problem, with an example.
pub fn public_url(text: &str) -> Result<Url, String> {
    let example = "write it as https://push.example.com";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("it is no http or https URL; {example}"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(format!("it has more than scheme, host, port and path; {example}"));
    }
    if url.path().contains([':', '*', '{', '}', '%']) {
        return Err(format!("its path has more than letters, digits, and -._~/; {example}"));
    }
    if url.as_str().len() > PUBLIC_URL_BYTES_MAX {
        return Err(format!(
            "it has more than {PUBLIC_URL_BYTES_MAX} bytes, and endpoints must stay under 512"
        ));
    }
    Ok(url)
}

/// Parses the component's name at the XMPP server.
///
/// # Errors
/// The problem, with an example.
pub fn component(text: &str) -> Result<BareJid, String> {
    let jid = BareJid::new(text).map_err(|error| format!("{error}; write it as notify.example.com"))?;
    if jid.node().is_some() { Err("it names a user; write it as notify.example.com".into()) } else { Ok(jid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_scheme_host_port_and_path() {
        assert_eq!(public_url("https://push.example.com").unwrap().as_str(), "https://push.example.com/");
        assert!(public_url("http://127.0.0.1:8080/up/").is_ok());
        for wrong in [
            "push.example.com",
            "ftp://a",
            "https://a/?q",
            "https://u@a/",
            "https://:p@a/",
            "https://a/#f",
            "mailto:a@b",
            "https://a/:b/*c",
            "https://a/{b}",
        ] {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
        let of_bytes = |bytes| public_url(&format!("https://a/{}", "x".repeat(bytes - "https://a/".len())));
        assert!(of_bytes(PUBLIC_URL_BYTES_MAX).is_ok() && of_bytes(PUBLIC_URL_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn a_component_is_a_domain() {
        assert!(component("notify.example.com").is_ok());
        assert!(component("juliet@example.com").unwrap_err().contains("names a user"));
        assert!(component("a b").is_err());
    }

    #[test]
    fn a_default_beyond_the_greatest_time_is_refused() {
        let [default, max] = [60, 60].map(Ttl::from_seconds);
        assert_eq!(KeptFor::new(60, 60), Ok(KeptFor { default, max }));
        assert_eq!(KeptFor::new(61, 60), Err("60 is less than UPWIRE_DEFAULT_TTL, 61".into()));
    }
}
