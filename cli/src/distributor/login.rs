//! The login (RFC 6120 §6), with the choice of a mechanism and the server's text when it refuses.
//!
//! `tokio_xmpp::client_login` is not used: it binds to every TLS 1.3 connection, even if the server does not know that
//! channel binding, and drops the text of a refusal.

use std::{collections::BTreeSet, io, str::FromStr};

use futures::{SinkExt, StreamExt};
use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio_xmpp::error::{AuthError, Error, ProtocolError};
use tokio_xmpp::parsers::sasl::{Auth, Failure, Mechanism as MechanismName, Nonza, Response};
use tokio_xmpp::parsers::sasl_cb::Type;
use tokio_xmpp::parsers::stream_features::StreamFeatures;
use tokio_xmpp::xmlstream::{InitiatingStream, ReadError, XmppStream, XmppStreamElement};

/// Why there is no session.
#[derive(Debug)]
pub(super) enum NoSession {
    /// The server refused the login.
    Refused(Failure),
    Other(Error),
}

impl<E: Into<Error>> From<E> for NoSession {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

type AnyMechanism = Box<dyn Mechanism + Send + Sync>;

/// Chooses the strongest mechanism that the server offers. One with channel binding comes first, if the server
/// announces that binding (XEP-0440).
fn choose(
    offered: &BTreeSet<String>,
    announced: &[Type],
    account: &Credentials,
    binding: ChannelBinding,
) -> Option<AnyMechanism> {
    let is_announced =
        matches!(binding, ChannelBinding::TlsExporter(_)) && announced.contains(&Type::TlsExporter);
    let bound = if is_announced { binding } else { ChannelBinding::None };
    let mut known: Vec<AnyMechanism> = Vec::new();
    for binding in [bound, ChannelBinding::None] {
        let credentials = account.clone().with_channel_binding(binding);
        known.extend(Scram::<Sha256>::from_credentials(credentials.clone()).ok().map(|it| Box::new(it) as _));
        known.extend(Scram::<Sha1>::from_credentials(credentials).ok().map(|it| Box::new(it) as _));
    }
    known.extend(Plain::from_credentials(account.clone()).ok().map(|it| Box::new(it) as _));
    known.into_iter().find(|mechanism| offered.contains(mechanism.name()))
}

/// Logs in. The stream begins anew afterwards.
pub(super) async fn log_in<S: AsyncBufRead + AsyncWrite + Unpin>(
    mut stream: XmppStream<S>,
    features: StreamFeatures,
    account: &Credentials,
    binding: ChannelBinding,
) -> Result<InitiatingStream<S>, NoSession> {
    let announced = features.sasl_cb.map(|announced| announced.types).unwrap_or_default();
    let mut mechanism =
        choose(&features.sasl_mechanisms, &announced, account, binding).ok_or(AuthError::NoMechanism)?;
    let name = MechanismName::from_str(mechanism.name()).map_err(ProtocolError::Parsers)?;
    let auth = Auth { mechanism: name, data: mechanism.initial() };
    stream.send(&XmppStreamElement::Sasl(Nonza::Auth(auth))).await?;
    loop {
        let element = stream.next().await.map(|read| read.and_then(|read| read.into_read_error()));
        let nonza = match element {
            Some(Ok(XmppStreamElement::Sasl(nonza))) => nonza,
            Some(Ok(_)) => return Err(invalid("a stanza before the login").into()),
            Some(Err(ReadError::HardError(error))) => return Err(error.into()),
            Some(Err(ReadError::ParseError(error))) => return Err(invalid(error).into()),
            Some(Err(ReadError::SoftTimeout)) => continue,
            Some(Err(ReadError::StreamFooterReceived)) | None => return Err(Error::Disconnected.into()),
        };
        match nonza {
            Nonza::Challenge(challenge) => {
                let data = mechanism.response(&challenge.data).map_err(AuthError::Sasl)?;
                stream.send(&XmppStreamElement::Sasl(Nonza::Response(Response { data }))).await?;
            }
            Nonza::Success(success) => {
                // A server that does not know the password's verifier cannot sign this (RFC 5802 §3).
                mechanism.success(&success.data).map_err(AuthError::Sasl)?;
                return Ok(stream.initiate_reset());
            }
            Nonza::Failure(failure) => return Err(NoSession::Refused(failure)),
            _ => {}
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];

    fn chosen(offered: &[&str], announced: &[Type], binding: ChannelBinding) -> Option<String> {
        let offered = offered.iter().map(|&name| name.to_owned()).collect();
        let account = Credentials::default().with_username("juliet").with_password("secret");
        choose(&offered, announced, &account, binding).map(|mechanism| mechanism.name().to_owned())
    }

    #[test]
    fn the_login_is_bound_only_if_the_server_announces_the_binding() {
        let exporter = || ChannelBinding::TlsExporter(vec![0; 32]);
        let end_point = &[Type::TlsServerEndPoint, Type::TlsUnique];
        let debian = &["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "PLAIN"];
        let cases = [
            (ALL, &[Type::TlsExporter][..], exporter(), Some("SCRAM-SHA-256-PLUS")),
            (ALL, end_point, exporter(), Some("SCRAM-SHA-256")),
            (ALL, &[], exporter(), Some("SCRAM-SHA-256")),
            (ALL, &[Type::TlsExporter], ChannelBinding::None, Some("SCRAM-SHA-256")),
            (debian, &[], exporter(), Some("SCRAM-SHA-1")),
            (&["SCRAM-SHA-1", "PLAIN"], &[Type::TlsExporter], exporter(), Some("SCRAM-SHA-1")),
            (&["PLAIN", "X-OAUTH2"], &[], exporter(), Some("PLAIN")),
            (&["EXTERNAL"], &[Type::TlsExporter], exporter(), None),
        ];
        for (offered, announced, binding, expected) in cases {
            assert_eq!(chosen(offered, announced, binding).as_deref(), expected, "{offered:?} {announced:?}");
        }
    }
}
