//! What can go wrong with the XMPP server or the push server, in words for a person.

use std::io;

use tokio_xmpp::error::{AuthError, Error, ProtocolError};
use tokio_xmpp::parsers::sasl::DefinedCondition;

use crate::configuration::one_line;

/// Something that went wrong, and whether trying again can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}; {hint}")]
pub(super) struct Failure {
    /// A word for programs: a stanza error condition, or a name of ours.
    pub(super) condition: String,
    pub(super) text: String,
    pub(super) hint: &'static str,
    pub(super) permanent: bool,
}

impl Failure {
    /// A failure that only a change by a person mends.
    pub(super) fn permanent(condition: impl Into<String>, text: impl AsRef<str>, hint: &'static str) -> Self {
        Self { condition: condition.into(), text: one_line(text.as_ref()), hint, permanent: true }
    }

    /// A failure that may pass.
    pub(super) fn temporary(condition: impl Into<String>, text: impl AsRef<str>, hint: &'static str) -> Self {
        Self { permanent: false, ..Self::permanent(condition, text, hint) }
    }

    /// Why no session with `server` came about.
    pub(super) fn connecting(error: &Error, server: &str) -> Self {
        match error {
            Error::Auth(error) => Self::login(error, server),
            Error::Protocol(ProtocolError::NoTls) => Self::permanent(
                "no-tls",
                format!("{server} offers no StartTLS"),
                "use --direct-tls, or on this machine --plaintext",
            ),
            Error::Disconnected => Self::temporary(
                "unreachable",
                format!("{server} cannot be reached: no address of it answers, or it closed the connection"),
                "is it running, and is --server (or the JID's domain) right?",
            ),
            Error::DnsNet(_) | Error::DnsProto(_) | Error::Idna => Self::temporary(
                "unreachable",
                format!("{server} has no address in the DNS, or the DNS does not answer"),
                "is --server (or the JID's domain) right?",
            ),
            Error::Io(error) => Self::io(error, server),
            Error::StreamError(error) => Self::temporary(
                "stream-error",
                format!("{server} closed the stream: {error}"),
                "does it serve the JID's domain?",
            ),
            error => {
                Self::temporary("unreachable", format!("{server}: {error}"), "the server's log may say more")
            }
        }
    }

    fn login(error: &AuthError, server: &str) -> Self {
        match error {
            AuthError::Fail(DefinedCondition::TemporaryAuthFailure) => Self::temporary(
                "temporary-auth-failure",
                format!("{server} cannot check passwords just now"),
                "the server's log may say more",
            ),
            AuthError::NoMechanism => Self::permanent(
                "no-login-mechanism",
                format!(
                    "{server} offers no way to log in that is known here (SCRAM-SHA-256, SCRAM-SHA-1, PLAIN)"
                ),
                "does it allow a login without TLS, if --plaintext was used?",
            ),
            AuthError::Fail(DefinedCondition::NotAuthorized) => Self::permanent(
                "not-authorized",
                format!("{server} refused the login: wrong password, or no such account"),
                "are --jid and the password right?",
            ),
            error => Self::permanent(
                "login-failed",
                format!("{server} refused the login: {error}"),
                "the server's log may say more",
            ),
        }
    }

    fn io(error: &io::Error, server: &str) -> Self {
        // The TLS library's errors arrive as invalid data; the connection itself then worked.
        if error.kind() == io::ErrorKind::InvalidData {
            return Self::temporary(
                "tls-failed",
                format!("{server}: {error}"),
                "is its certificate valid for the JID's domain (SSL_CERT_FILE names others to trust), the port right?",
            );
        }
        Self::temporary(
            "unreachable",
            format!("{server} cannot be reached: {error}"),
            "is it running, and is --server (or the JID's domain) right?",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_password_is_permanent_and_a_refused_connection_is_not() {
        let wrong = Error::Auth(AuthError::Fail(DefinedCondition::NotAuthorized));
        let wrong = Failure::connecting(&wrong, "example.com");
        assert!(wrong.permanent && wrong.to_string().contains("password"), "{wrong}");
        let refused = Error::Io(io::ErrorKind::ConnectionRefused.into());
        let refused = Failure::connecting(&refused, "example.com");
        assert!(!refused.permanent && refused.to_string().contains("connection refused"), "{refused}");
    }
}
