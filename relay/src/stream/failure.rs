//! Why there is no stream, and what the operator can do about it.

use std::{io, time::Duration};

use tokio_xmpp::{minidom::Element, parsers::ns};

use super::{connect::ConnectError, framing::Frame};

/// Longest time from the first packet to the end of the handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a stream is dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(25);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the server refused the stream: {condition}{}", text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused { condition: String, text: Option<String> },
    #[error("the server hung up before it opened a stream")]
    Unopened,
    #[error("the server closed the stream")]
    Closed,
    #[error("nothing came from the server for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("{0}")]
    Io(#[from] io::Error),
}

const PORT_MEND: &str = "check that UPWIRE_XMPP_SERVER is the port for components, not one for clients or servers, and \
    write tls:// before it if that port speaks TLS";

/// Part of ejabberd's text to a component that has the name of one of its hosts.
const NAMED_LIKE_A_HOST: &str = "existing local domain";

impl StreamError {
    /// Returns the error by which a frame ends the stream; `None`: the stream goes on.
    pub(super) fn of(frame: &Frame) -> Option<Self> {
        match frame {
            Frame::Closed => Some(Self::Closed),
            Frame::Element(element) if element.is("error", ns::STREAM) => {
                let children = || element.children().filter(|child| child.has_ns(ns::XMPP_STREAMS));
                let condition = children().find(|child| child.name() != "text");
                Some(Self::Refused {
                    condition: condition.map_or("undefined-condition", Element::name).to_owned(),
                    text: children().find(|child| child.name() == "text").map(Element::text),
                })
            }
            _ => None,
        }
    }

    /// Returns the remedy, in words for the operator (RFC 6120 §4.9.3).
    pub(super) fn mend(&self) -> &'static str {
        match self {
            // ejabberd's own text says more than its condition, which is `conflict` or another.
            Self::Refused { text: Some(text), .. } if text.contains(NAMED_LIKE_A_HOST) => {
                "UPWIRE_COMPONENT is the name of one of ejabberd's own hosts: give the component another name, as in \
                 notify.example.com, there and here"
            }
            Self::Refused { condition, .. } => match condition.as_str() {
                "not-authorized" => {
                    // ejabberd has the same condition for a name that it does not know.
                    "set UPWIRE_COMPONENT_SECRET to the secret that the XMPP server's configuration gives this component, \
                     and check that UPWIRE_COMPONENT is its name there"
                }
                "conflict" => {
                    "another process is connected as this component: stop it, or give each a component of its own"
                }
                "host-unknown" => {
                    // Prosody's port for clients has the same condition.
                    "add the component UPWIRE_COMPONENT to the XMPP server's configuration, or correct its name; \
                     check that UPWIRE_XMPP_SERVER is the port for components"
                }
                "invalid-namespace" => PORT_MEND,
                _ => "the XMPP server's log may say more",
            },
            Self::Connect(error) => error.mend(),
            Self::Timeout => {
                "check that the XMPP server runs and listens for components at UPWIRE_XMPP_SERVER"
            }
            Self::Unopened => PORT_MEND,
            Self::Io(error) if error.kind() == io::ErrorKind::InvalidData => PORT_MEND,
            Self::Silent => {
                "connecting again; if that recurs with ejabberd, set `global_routes: false` in the component's listener, or \
                 give it a listener of its own: another component's connection may get what is meant for this one"
            }
            Self::Closed | Self::Io(_) => "connecting again",
        }
    }

    /// Returns whether a server that stops or restarts ends its streams with this error. Prosody and ejabberd close the
    /// connection without a word; others say why (RFC 6120 §4.9.3.20).
    pub(super) fn is_orderly(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Refused { condition, .. } => matches!(condition.as_str(), "system-shutdown" | "reset"),
            _ => false,
        }
    }

    /// Returns whether an absent server leads to this error.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout | Self::Unopened | Self::Io(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_says_so_in_order() {
        let refused = |condition: &str| StreamError::Refused { condition: condition.into(), text: None };
        assert!(StreamError::Closed.is_orderly() && refused("system-shutdown").is_orderly());
        for error in [refused("conflict"), refused("not-authorized"), StreamError::Silent] {
            assert!(!error.is_orderly(), "{error}");
        }
        assert!(StreamError::Timeout.is_absence() && !refused("conflict").is_absence());
    }

    #[test]
    fn the_mend_fits_the_servers_own_text() {
        let refused = |condition: &str, text: Option<&str>| StreamError::Refused {
            condition: condition.into(),
            text: text.map(Into::into),
        };
        let of_a_host = refused("conflict", Some("Unable to register route on existing local domain"));
        assert!(of_a_host.mend().contains("one of ejabberd's own hosts"), "{}", of_a_host.mend());
        for text in [None, Some("Another component has it")] {
            assert!(refused("conflict", text).mend().contains("another process"));
        }
        let exhausted = io::Error::from_raw_os_error(24);
        let error = StreamError::from(ConnectError::from(tokio_xmpp::Error::Io(exhausted)));
        assert!(error.mend().contains("LimitNOFILE="), "{}", error.mend());
    }
}
