//! Failures of the XMPP server or the push server, in words for people.

use std::io;

use tokio_xmpp::error::{AuthError, Error, ProtocolError};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::sasl::{self, DefinedCondition};
use tokio_xmpp::rustls::{self, CertificateError};

use super::login::NoSession;
use crate::configuration::one_line;

/// A failure, and whether a retry can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}; {hint}")]
pub(super) struct Failure {
    /// A name for programs: a stanza error condition, or a name of ours.
    pub(super) condition: String,
    pub(super) text: String,
    pub(super) hint: &'static str,
    pub(super) permanent: bool,
}

impl Failure {
    /// Makes a failure that only a person can correct.
    pub(super) fn permanent(condition: impl Into<String>, text: impl AsRef<str>, hint: &'static str) -> Self {
        Self { condition: condition.into(), text: one_line(text.as_ref()), hint, permanent: true }
    }

    /// Makes a failure that may pass.
    pub(super) fn temporary(condition: impl Into<String>, text: impl AsRef<str>, hint: &'static str) -> Self {
        Self { permanent: false, ..Self::permanent(condition, text, hint) }
    }

    /// Makes the failure for a session with `server` that could not be made.
    pub(super) fn connecting(problem: &NoSession, server: &str) -> Self {
        let error = match problem {
            NoSession::Refused(refusal) => return Self::refused(refusal, server),
            NoSession::Other(error) => error,
        };
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

    /// Makes the failure for a refused login. The server's text says more than its condition.
    fn refused(refusal: &sasl::Failure, server: &str) -> Self {
        let said = refusal.texts.get("en").or_else(|| refusal.texts.values().next());
        let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
        match &refusal.defined_condition {
            DefinedCondition::TemporaryAuthFailure => Self::temporary(
                "temporary-auth-failure",
                format!("{server} cannot check passwords just now{said}"),
                "the server's log may say more",
            ),
            DefinedCondition::NotAuthorized if said.to_lowercase().contains("channel binding") => {
                Self::permanent(
                    "not-authorized",
                    format!("{server} refused the login: not-authorized{said}"),
                    "does anything between this machine and the server, as a proxy, end the TLS connection?",
                )
            }
            DefinedCondition::NotAuthorized => Self::permanent(
                "not-authorized",
                format!("{server} refused the login: wrong password, or no such account{said}"),
                "are --jid and the password right?",
            ),
            condition => {
                let name = Element::from(condition.clone()).name().to_owned();
                let text = format!("{server} refused the login: {name}{said}");
                Self::permanent(name, text, "the server's log may say more")
            }
        }
    }

    fn login(error: &AuthError, server: &str) -> Self {
        match error {
            AuthError::NoMechanism => Self::permanent(
                "no-login-mechanism",
                format!(
                    "{server} offers no way to log in that is known here (SCRAM-SHA-256, SCRAM-SHA-1, PLAIN)"
                ),
                "does it allow a login without TLS, if --plaintext was used?",
            ),
            error => Self::permanent(
                "login-failed",
                format!("the login to {server} failed: {error}"),
                "the server's log may say more",
            ),
        }
    }

    fn io(error: &io::Error, server: &str) -> Self {
        // The TLS library reports its errors as invalid data. The connection itself works then.
        if error.kind() == io::ErrorKind::InvalidData {
            return Self::temporary("tls-failed", format!("{server}: {error}"), tls_hint(error));
        }
        Self::temporary(
            "unreachable",
            format!("{server} cannot be reached: {error}"),
            "is it running, and is --server (or the JID's domain) right?",
        )
    }
}

/// Returns the remedy for a TLS connection that failed.
fn tls_hint(error: &io::Error) -> &'static str {
    use CertificateError as Wrong;
    let problem = error.get_ref().and_then(|error| error.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(problem)) = problem else {
        return "is its certificate valid for the JID's domain (SSL_CERT_FILE names others to trust), the port right?";
    };
    match problem {
        Wrong::Expired | Wrong::ExpiredContext { .. } => {
            "give the XMPP server a new certificate; if it has one, restart it and check this machine's clock"
        }
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "check this machine's clock",
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
            "give the XMPP server a certificate for the JID's domain (a DNS: entry of its subjectAltName)"
        }
        Wrong::UnknownIssuer | Wrong::BadSignature => {
            "let SSL_CERT_FILE name a file with the authority's certificate, or with the server's own if it is self-signed"
        }
        // By default, `openssl req -x509` makes certificates that webpki refuses as `CaUsedAsEndEntity`.
        _ => {
            "give the XMPP server a certificate of version 3 that is no authority's own (with openssl: \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:its-domain)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(condition: DefinedCondition, text: Option<&str>) -> Failure {
        let texts = text.map(|text| ("en".to_owned(), text.to_owned())).into_iter().collect();
        let refusal = sasl::Failure { defined_condition: condition, texts };
        Failure::connecting(&NoSession::Refused(refusal), "example.com")
    }

    #[test]
    fn a_refused_login_says_what_the_server_said() {
        let conditions = [
            DefinedCondition::NotAuthorized,
            DefinedCondition::TemporaryAuthFailure,
            DefinedCondition::AccountDisabled,
            DefinedCondition::MalformedRequest,
        ];
        for condition in conditions {
            let failure = refusal(condition, Some("Ask the king"));
            assert!(failure.to_string().contains("(Ask the king)"), "{failure}");
        }
        assert_eq!(refusal(DefinedCondition::AccountDisabled, None).condition, "account-disabled");
        let bound = refusal(DefinedCondition::NotAuthorized, Some("Invalid channel binding"));
        assert!(!bound.to_string().contains("password"), "{bound}");
    }

    #[test]
    fn a_certificate_that_is_refused_has_its_own_mend() {
        let other = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(io::Error::other("x"))));
        for (problem, mend) in [
            (CertificateError::Expired, "new certificate"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::NotValidForName, "JID's domain"),
            (CertificateError::UnknownIssuer, "SSL_CERT_FILE"),
            (other, "CA:FALSE"),
        ] {
            let error = rustls::Error::InvalidCertificate(problem);
            let error = Error::Io(io::Error::new(io::ErrorKind::InvalidData, error));
            let failure = Failure::connecting(&error.into(), "example.com");
            assert!(failure.hint.contains(mend), "{failure}");
        }
    }

    #[test]
    fn a_wrong_password_is_permanent_and_a_refused_connection_is_not() {
        let wrong = refusal(DefinedCondition::NotAuthorized, None);
        assert!(wrong.permanent && wrong.to_string().contains("password"), "{wrong}");
        let refused = Error::Io(io::ErrorKind::ConnectionRefused.into());
        let refused = Failure::connecting(&refused.into(), "example.com");
        assert!(!refused.permanent && refused.to_string().contains("connection refused"), "{refused}");
    }
}
