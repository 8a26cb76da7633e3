//! Parsers for values of options: times with units, addresses to listen on, and contacts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

use url::{Host, Url};

pub(crate) const DAY: u32 = 86_400;
/// The default administration address. The port is not Prometheus's own, which may run on the same machine.
pub(crate) const ADMIN_LISTEN: &str = "127.0.0.1:9480";

/// Returns a parser for a time within `range` seconds, with units as for [`seconds`].
pub(crate) fn time(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync {
    move |text| within(text, range.clone())
}

/// Parses seconds, or numbers with units: `86400`, `12h`, `7d`, `1h 30m`.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    within(text, 0..=u32::MAX)
}

fn within(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let examples = "write seconds, or numbers with units, as in 3600, 90s, 12h or 7d";
    let text = text.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let time = humantime::parse_duration(text).map_err(|_| format!("it is no time; {examples}"))?;
            if time.subsec_nanos() != 0 {
                return Err(format!("it is no whole number of seconds; {examples}"));
            }
            time.as_secs()
        }
    };
    let (least, most) = range.into_inner();
    match u32::try_from(seconds) {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
        _ if most == u32::MAX => Err(format!("it is too long; {examples}")),
        _ => Err(format!("it is not from {} to {}; {examples}", named(least), named(most))),
    }
}

/// Returns a time in its largest whole unit.
fn named(seconds: u32) -> String {
    let (unit, name) = match seconds {
        0 => (1, "s"),
        _ if seconds.is_multiple_of(DAY) => (DAY, "d"),
        _ if seconds.is_multiple_of(3600) => (3600, "h"),
        _ => (1, "s"),
    };
    format!("{}{name}", seconds / unit)
}

/// Parses an address and a port: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or `:8080` for all addresses of this
/// machine.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let examples =
        "write an address of this machine and a port, as in 127.0.0.1:8080, localhost:8080, or :8080 for all";
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("it has no port; {examples}"))?;
    let port: u16 = port.parse().map_err(|_| format!("it has no port from 0 to 65535; {examples}"))?;
    if host.is_empty() {
        return Ok((IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into());
    }
    let found =
        (host, port).to_socket_addrs().map_err(|_| format!("nothing has the name {host:?}; {examples}"))?;
    let found: Vec<_> = found.collect();
    // A proxy's configuration most likely resolves the name to the same address.
    let address = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    address.ok_or_else(|| format!("nothing has the name {host:?}; {examples}"))
}

/// Parses an address at which users reach the operator: `mailto:`, `xmpp:`, `https:` or `http:`.
pub(crate) fn contact(text: &str) -> Result<Url, String> {
    let text = text.trim();
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "mailto" | "xmpp" | "https" | "http") => Ok(url),
        _ => {
            let address = if text.contains('@') && !text.contains(':') { text } else { "admin@example.com" };
            Err(format!(
                "write each address as mailto:{address}, xmpp:{address} or https://example.com/contact"
            ))
        }
    }
}

/// Warns if endpoints would go over the Internet in the clear, where anyone who reads one can push to it.
pub(crate) fn warn_of_plain_http(public_url: &Url) {
    if is_plain_and_elsewhere(public_url) {
        tracing::warn!(
            %public_url,
            "UPWIRE_PUBLIC_URL begins with http://: endpoints and pushes go over the network in the clear, and many senders \
             refuse such endpoints; put TLS in front, and write https://"
        );
    }
}

fn is_plain_and_elsewhere(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_a_url_that_clients_open() {
        assert_eq!(contact(" mailto:a@example.com").unwrap().as_str(), "mailto:a@example.com");
        for wrong in ["a@example.com", "", "ftp://example.com/a", "example.com"] {
            assert!(contact(wrong).unwrap_err().contains("mailto:a"), "{wrong}");
        }
    }

    #[test]
    fn a_time_has_units_or_is_in_seconds() {
        let cases = [
            ("0", 0),
            ("86400", DAY),
            ("7d", 7 * DAY),
            ("12h", 43_200),
            (" 1h 30m ", 5400),
            ("2 weeks", 14 * DAY),
            ("90s", 90),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "soon", "-1", "1.5", "7x", "d", "500ms", "1e3", "4294967296", "300y"] {
            assert!(seconds(wrong).unwrap_err().contains("as in 3600, 90s, 12h or 7d"), "{wrong}");
        }
        assert!(within("9s", 10..=365 * DAY).unwrap_err().contains("from 10s to 365d"));
        assert!(within("2h", 1..=3600).unwrap_err().contains("from 1s to 1h"));
    }

    #[test]
    fn an_address_to_listen_on_may_be_a_name_or_a_port_alone() {
        let cases = [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            (":8080", "[::]:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ];
        for (text, expected) in cases {
            assert_eq!(listen_address(text).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["", "8080", "everywhere", "127.0.0.1", "127.0.0.1:99999", "localhost:", "no name:80"] {
            assert!(listen_address(wrong).unwrap_err().contains("as in 127.0.0.1:8080"), "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_reached_in_the_clear_without_a_word() {
        for (url, warned) in [
            ("http://push.example.com", true),
            ("http://192.0.2.1:8080/up", true),
            ("https://push.example.com", false),
            ("http://localhost:8080", false),
            ("http://127.0.0.2:8080", false),
            ("http://[::1]:8080", false),
        ] {
            assert_eq!(is_plain_and_elsewhere(&url.parse().unwrap()), warned, "{url}");
        }
    }
}
