//! A registration at the push server: the request, the answer, and the time of the renewal.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use push::VapidKey;
use sha2::{Digest, Sha256};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::date::Xep0082;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use url::Url;
use xso::{AsXml, FromXml};

use super::failure::Failure;

/// The namespace of the protocol.
pub(super) const UNIFIED_PUSH: &str = "http://gultsch.de/xmpp/drafts/unified-push";

/// Time before the expiry at which a registration is renewed, as in Conversations.
const MARGIN_MAX: TimeDelta = TimeDelta::hours(24);
/// Shortest time between two renewals, so that a short lifetime causes no busy loop.
const RENEWAL_INTERVAL_MIN: TimeDelta = TimeDelta::seconds(1);

/// The target of a push: the two hashes that the push server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) application: String,
    pub(super) instance: String,
}

impl Target {
    /// Hashes both names with the installation's salt.
    pub(super) fn new(salt: &str, application: &str, instance: &str) -> Self {
        Self { application: hash(salt, application), instance: hash(salt, instance) }
    }

    /// Returns the payload that registers or renews the target. With a key, only the application server that has it may
    /// push.
    pub(super) fn register(&self, vapid: Option<&VapidKey>) -> Element {
        let Self { application, instance } = self.clone();
        Register { application, instance, vapid: vapid.map(VapidKey::to_string) }.into()
    }
}

/// Hashes a name with the salt, in the way in which Conversations hashes an account's UUID and a name.
fn hash(salt: &str, name: &str) -> String {
    STANDARD.encode(Sha256::new().chain_update(salt).chain_update([0]).chain_update(name).finalize())
}

#[derive(Debug, FromXml, AsXml)]
#[xml(namespace = UNIFIED_PUSH, name = "register")]
struct Register {
    #[xml(attribute)]
    application: String,
    #[xml(attribute)]
    instance: String,
    /// An extension of Upwire's. Other push servers ignore it.
    #[xml(attribute(default))]
    vapid: Option<String>,
}

#[derive(Debug, FromXml, AsXml)]
#[xml(namespace = UNIFIED_PUSH, name = "registered", on_unknown_attribute = Discard, on_unknown_child = Discard)]
struct Registered {
    #[xml(attribute)]
    endpoint: String,
    #[xml(attribute(codec = Xep0082))]
    expiration: DateTime<Utc>,
}

/// A registration that the push server confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) endpoint: String,
    pub(super) expiration: DateTime<Utc>,
    pub(super) renew_at: DateTime<Utc>,
}

impl Registration {
    /// Reads the answer to a register. An unusable answer is a permanent failure.
    pub(super) fn confirmed(payload: Option<Element>, now: DateTime<Utc>) -> Result<Self, Failure> {
        let unusable =
            |what: String| Failure::permanent("unusable-answer", what, "the push server breaks the protocol");
        let payload = payload.ok_or_else(|| unusable("the answer to the registration is empty".into()))?;
        let Registered { endpoint, expiration } = Registered::try_from(payload)
            .map_err(|error| unusable(format!("the answer to the registration is malformed: {error}")))?;
        if !Url::parse(&endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(unusable(format!("the endpoint {endpoint:?} is no http(s) URL")));
        }
        if expiration <= now {
            return Err(unusable(format!("the registration expired at {expiration}: is a clock wrong?")));
        }
        Ok(Self { endpoint, expiration, renew_at: renewal(now, expiration) })
    }
}

/// Returns the time of the renewal: a day before the expiry, as in Conversations, or after half of a lifetime of less
/// than two days.
fn renewal(now: DateTime<Utc>, expiration: DateTime<Utc>) -> DateTime<Utc> {
    let margin = MARGIN_MAX.min((expiration - now) / 2);
    (expiration - margin).max(now + RENEWAL_INTERVAL_MIN)
}

/// Interprets an error answer to a register. If the push server has answered well `before`, its absence is an outage,
/// which may pass.
pub(super) fn refused(error: StanzaError, push_server: &str, before: bool) -> Failure {
    use DefinedCondition::{
        BadRequest, FeatureNotImplemented, Forbidden, InternalServerError, ItemNotFound, NotAllowed,
        RecipientUnavailable, RemoteServerNotFound, RemoteServerTimeout, ResourceConstraint,
        ServiceUnavailable,
    };
    let condition = error.defined_condition;
    // Without s2s, ejabberd answers `forbidden` for a host that is not connected, and Prosody `not-allowed`.
    let absent = matches!(
        condition,
        ServiceUnavailable
            | RecipientUnavailable
            | RemoteServerNotFound
            | RemoteServerTimeout
            | NotAllowed
            | Forbidden
    );
    let hint = match condition {
        Forbidden => {
            "this account is not on the push server's access list (UPWIRE_ACL, unified_push_acl), its domain is a \
             tenant that is suspended, or the XMPP server cannot reach that host"
        }
        BadRequest => "the push server did not accept the two hashes, or the key of --vapid",
        RemoteServerNotFound => {
            "the XMPP server knows no such host: is --push-server right, is it connected?"
        }
        FeatureNotImplemented | ItemNotFound => {
            "this host exists but is no push server: is --push-server right?"
        }
        ResourceConstraint => {
            "the push server takes no further registration at the moment: the text says why, or its log does"
        }
        InternalServerError => "the push server is in trouble: its log says why",
        _ if absent => {
            "the push server is not connected to the XMPP server, or --push-server is not its name"
        }
        _ => "the push server's log may say more",
    };
    let name = Element::from(condition).name().to_owned();
    let said = error.texts.get("en").or_else(|| error.texts.values().next());
    let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
    let text = format!("{push_server} refused the registration: {name}{said}");
    let passes = matches!(error.type_, ErrorType::Wait | ErrorType::Continue) || (absent && before);
    if passes { Failure::temporary(name, text, hint) } else { Failure::permanent(name, text, hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_hashed_as_conversations_hashes_them() {
        // printf 'juliet@example.com\0im.example.app' | openssl dgst -sha256 -binary | base64
        let target = Target::new("juliet@example.com", "im.example.app", "");
        assert_eq!(target.application, "d1CR+rdlnt3YL0i9/Y7mbghqOkE9LuJF7l65Cy2ewwE=");
        assert_eq!(target.instance, "jgW25egOKmyLcpu8Ts+bSvvrpxOEb0Q1SdMbZAS6+ls=");
    }

    #[test]
    fn a_registration_is_renewed_a_day_before_its_end_or_after_half_its_life() {
        let now = at("2026-12-01T00:00:00Z");
        assert_eq!(renewal(now, at("2026-12-08T00:00:00Z")), at("2026-12-07T00:00:00Z"));
        assert_eq!(renewal(now, at("2026-12-03T00:00:00Z")), at("2026-12-02T00:00:00Z"));
        assert_eq!(renewal(now, at("2026-12-02T00:00:00Z")), at("2026-12-01T12:00:00Z"));
        assert_eq!(renewal(now, at("2026-12-01T00:00:10Z")), at("2026-12-01T00:00:05Z"));
        assert_eq!(renewal(now, at("2026-12-01T00:00:01Z")), at("2026-12-01T00:00:01Z"));
    }

    #[test]
    fn a_key_is_sent_where_there_is_one() {
        const KEY: &str =
            "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        let target = Target::new("salt", "application", "instance");
        assert_eq!(target.register(None).attr::<str>("vapid"), None);
        assert_eq!(target.register(Some(&KEY.parse().unwrap())).attr("vapid"), Some(KEY));
    }

    fn confirmed(endpoint: &str, expiration: &str) -> Result<Registration, Failure> {
        let xml = format!(
            "<registered xmlns='{UNIFIED_PUSH}' endpoint='{endpoint}' expiration='{expiration}' later='1'/>"
        );
        Registration::confirmed(Some(xml.parse().unwrap()), at("2026-12-01T00:00:00Z"))
    }

    #[test]
    fn an_answer_must_be_usable() {
        let good = confirmed("https://push.example.com/push/x", "2026-12-05T12:54:54Z").unwrap();
        assert_eq!(good.expiration, at("2026-12-05T12:54:54Z"));
        for (endpoint, expiration) in [
            ("https://push.example.com/push/x", "2026-11-30T00:00:00Z"),
            ("https://push.example.com/push/x", "tomorrow"),
            ("ftp://push.example.com/push/x", "2026-12-05T12:54:54Z"),
            ("push/x", "2026-12-05T12:54:54Z"),
        ] {
            assert!(confirmed(endpoint, expiration).unwrap_err().permanent, "{endpoint} {expiration}");
        }
        assert!(Registration::confirmed(None, at("2026-12-01T00:00:00Z")).is_err());
    }

    #[test]
    fn only_a_refusal_that_may_pass_is_tried_again() {
        let error = |type_, condition| StanzaError::new(type_, condition, "en", "no");
        let forbidden = refused(error(ErrorType::Auth, DefinedCondition::Forbidden), "up.example.com", false);
        assert!(forbidden.permanent);
        assert_eq!(
            forbidden.to_string(),
            "up.example.com refused the registration: forbidden (no); \
             this account is not on the push server's access list (UPWIRE_ACL, unified_push_acl), its domain is a \
             tenant that is suspended, or the XMPP server cannot reach that host"
        );
        let absent = || error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable);
        assert!(refused(absent(), "up.example.com", false).permanent);
        assert!(!refused(absent(), "up.example.com", true).permanent);
        let wrong = error(ErrorType::Modify, DefinedCondition::BadRequest);
        assert!(refused(wrong, "up.example.com", true).permanent);
        let trouble = error(ErrorType::Wait, DefinedCondition::InternalServerError);
        assert!(!refused(trouble, "up.example.com", false).permanent);
    }
}
