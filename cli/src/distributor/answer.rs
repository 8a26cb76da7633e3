//! The distributor's answers to pushes, and to other requests of XMPP entities.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::disco::{DiscoInfoQuery, DiscoInfoResult, Identity};
use tokio_xmpp::parsers::iq::{Iq, IqHeader, IqPayload};
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use xso::{AsXml, FromXml};

use super::registration::{Target, UNIFIED_PUSH};

/// The answer to a push for the registered target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Answer {
    /// Delivered: handed to the application
    Result,
    /// The application is gone: the push server revokes the endpoint
    ItemNotFound,
    /// A temporary error: the push server tries again
    ServiceUnavailable,
    /// No answer at all: the push server waits, and tries again
    #[value(name = "none")]
    Silence,
}

impl Answer {
    /// Returns the answer's name, as on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::ItemNotFound => "item-not-found",
            Self::ServiceUnavailable => "service-unavailable",
            Self::Silence => "none",
        }
    }

    fn payload(self) -> Option<IqPayload> {
        match self {
            Self::Result => Some(IqPayload::Result(None)),
            Self::ItemNotFound => Some(cancel(DefinedCondition::ItemNotFound)),
            Self::ServiceUnavailable => Some(cancel(DefinedCondition::ServiceUnavailable)),
            Self::Silence => None,
        }
    }
}

/// A push for the registered target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    /// The IQ's id.
    pub(super) id: String,
    /// The raw HTTP body.
    pub(super) body: Vec<u8>,
}

/// The kind of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A push for the registered target.
    Push(Push),
    /// A push that was refused, with the reason.
    Refused(String),
    /// Any other request.
    Other,
}

#[derive(Debug, FromXml, AsXml)]
#[xml(namespace = UNIFIED_PUSH, name = "push", on_unknown_attribute = Discard, on_unknown_child = Discard)]
struct PushPayload {
    #[xml(attribute)]
    application: String,
    #[xml(attribute)]
    instance: String,
    #[xml(text)]
    body: String,
}

/// The answers of one distributor.
#[derive(Debug)]
pub(super) struct Responder {
    /// The only JID whose pushes count.
    pub(super) push_server: Jid,
    pub(super) target: Target,
    pub(super) answer: Answer,
}

impl Responder {
    /// Reads a request, and makes its answer. A result or an error is no request, and gets none.
    pub(super) fn respond(&self, iq: Iq) -> (Request, Option<Iq>) {
        let (from, id, payload, is_set) = match iq {
            Iq::Get { from, id, payload, .. } => (from, id, payload, false),
            Iq::Set { from, id, payload, .. } => (from, id, payload, true),
            Iq::Result { .. } | Iq::Error { .. } => return (Request::Other, None),
        };
        let (request, answer) = if is_set && payload.is("push", UNIFIED_PUSH) {
            self.push(from.as_ref(), &id, payload)
        } else {
            (Request::Other, Some(other(payload, is_set)))
        };
        let answer = answer.map(|answer| IqHeader { from: None, to: from, id }.assemble(answer));
        (request, answer)
    }

    fn push(&self, from: Option<&Jid>, id: &str, payload: Element) -> (Request, Option<IqPayload>) {
        let Ok(PushPayload { application, instance, body }) = PushPayload::try_from(payload) else {
            return refuse("a push without application or instance", modify());
        };
        // docs/protocol.md, "Push": a target is found by application and instance, and an unknown one is gone for good.
        if from != Some(&self.push_server) {
            return refuse(
                "a push from another JID than the push server's",
                cancel(DefinedCondition::ItemNotFound),
            );
        }
        if (Target { application, instance }) != self.target {
            return refuse("a push for an unknown target", cancel(DefinedCondition::ItemNotFound));
        }
        match STANDARD.decode(body.trim()) {
            Ok(body) => (Request::Push(Push { id: id.to_owned(), body }), self.answer.payload()),
            Err(_) => refuse("a push whose body is not base64", modify()),
        }
    }
}

fn refuse(why: &str, payload: IqPayload) -> (Request, Option<IqPayload>) {
    (Request::Refused(why.to_owned()), Some(payload))
}

/// Answers by XEP-0030 and XEP-0199, and other requests by RFC 6120 §8.4.
fn other(payload: Element, is_set: bool) -> IqPayload {
    if !is_set && payload.is("ping", ns::PING) {
        return IqPayload::Result(None);
    }
    if !is_set && payload.is("query", ns::DISCO_INFO) {
        return match DiscoInfoQuery::try_from(payload) {
            Ok(DiscoInfoQuery { node: None }) => IqPayload::Result(Some(description().into())),
            Ok(_) => cancel(DefinedCondition::ItemNotFound),
            Err(_) => modify(),
        };
    }
    cancel(DefinedCondition::ServiceUnavailable)
}

fn description() -> DiscoInfoResult {
    DiscoInfoResult {
        node: None,
        identities: vec![Identity {
            category: "client".into(),
            type_: "console".into(),
            lang: None,
            name: Some("upwire distributor".into()),
        }],
        features: [ns::DISCO_INFO, ns::PING, UNIFIED_PUSH].map(str::to_owned).into(),
        extensions: vec![],
    }
}

fn cancel(condition: DefinedCondition) -> IqPayload {
    IqPayload::Error(StanzaError {
        texts: [].into(),
        ..StanzaError::new(ErrorType::Cancel, condition, "", "")
    })
}

fn modify() -> IqPayload {
    let condition = DefinedCondition::BadRequest;
    IqPayload::Error(StanzaError {
        texts: [].into(),
        ..StanzaError::new(ErrorType::Modify, condition, "", "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(answer: Answer, iq: &str) -> (Request, Option<String>) {
        let responder = Responder {
            push_server: Jid::new("up.example.com").unwrap(),
            target: Target { application: "A=".into(), instance: "I=".into() },
            answer,
        };
        let iq = Iq::try_from(iq.parse::<Element>().unwrap()).unwrap();
        let (request, answer) = responder.respond(iq);
        let summary = answer.map(|answer| {
            assert_eq!(answer.id(), "p1");
            match &answer {
                Iq::Result { to, .. } => format!("result to {}", to.as_ref().unwrap()),
                Iq::Error { error, .. } => Element::from(error.defined_condition.clone()).name().to_owned(),
                other => panic!("{other:?}"),
            }
        });
        (request, summary)
    }

    fn push(answer: Answer, from: &str, application: &str, body: &str) -> (Request, Option<String>) {
        respond(
            answer,
            &format!(
                "<iq xmlns='jabber:client' type='set' id='p1' from='{from}'>\
                 <push xmlns='{UNIFIED_PUSH}' application='{application}' instance='I='>{body}</push></iq>"
            ),
        )
    }

    #[test]
    fn a_push_for_the_registered_target_is_answered_as_asked() {
        for (answer, expected) in [
            (Answer::Result, Some("result to up.example.com")),
            (Answer::ItemNotFound, Some("item-not-found")),
            (Answer::ServiceUnavailable, Some("service-unavailable")),
            (Answer::Silence, None),
        ] {
            let (request, answered) = push(answer, "up.example.com", "A=", "aGVsbG8=");
            assert_eq!(request, Request::Push(Push { id: "p1".into(), body: b"hello".into() }));
            assert_eq!(answered.as_deref(), expected);
        }
    }

    #[test]
    fn any_other_push_is_refused_whatever_was_asked() {
        for (from, application, body, expected) in [
            ("up.example.com", "B=", "aGVsbG8=", "item-not-found"),
            ("up.example.com/other", "A=", "aGVsbG8=", "item-not-found"),
            ("evil.example.com", "A=", "aGVsbG8=", "item-not-found"),
            ("up.example.com", "A=", "no base64", "bad-request"),
        ] {
            let (request, answered) = push(Answer::Result, from, application, body);
            assert!(matches!(request, Request::Refused(_)), "{request:?}");
            assert_eq!(answered.as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_requests_are_answered_and_answers_are_not() {
        let iq = |type_: &str, payload: &str| {
            let xml = format!(
                "<iq xmlns='jabber:client' type='{type_}' id='p1' from='a@example.com/b'>{payload}</iq>"
            );
            respond(Answer::Result, &xml)
        };
        let to_them = Some("result to a@example.com/b".to_owned());
        assert_eq!(iq("get", "<ping xmlns='urn:xmpp:ping'/>"), (Request::Other, to_them.clone()));
        assert_eq!(
            iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
            (Request::Other, to_them)
        );
        for (type_, payload) in [
            ("get", "<query xmlns='jabber:iq:version'/>"),
            ("set", "<ping xmlns='urn:xmpp:ping'/>"),
            (
                "get",
                "<push xmlns='http://gultsch.de/xmpp/drafts/unified-push' application='A=' instance='I='/>",
            ),
        ] {
            assert_eq!(iq(type_, payload), (Request::Other, Some("service-unavailable".into())));
        }
        assert_eq!(iq("result", ""), (Request::Other, None));
    }
}
