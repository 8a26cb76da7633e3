//! The stanzas of protocol.md §1, read leniently and written exactly.

use push::{MessageId, PushMessage, Target, registration::HashError, vapid::VapidKeyError};
use tokio_xmpp::{
    jid::{BareJid, FullJid, Jid},
    minidom::{Element, element::escape, rxml::xml_ncname},
    parsers::{
        disco::{DiscoInfoQuery, DiscoInfoResult, DiscoItemsQuery, DiscoItemsResult, Identity},
        iq::Iq,
        ns,
        ping::Ping,
        stanza_error::{DefinedCondition, ErrorType, StanzaError},
    },
};

use super::framing::Frame;

/// The namespace of registration and push.
pub(crate) const UNIFIED_PUSH: &str = "http://gultsch.de/xmpp/drafts/unified-push";

/// A stanza that means something to the relay.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// An IQ `get` or `set`.
    Request(Request),
    /// An IQ `result` or `error`.
    Answer(Answer),
    /// This full JID has a session.
    Available(FullJid),
    /// The session of this full JID has ended.
    Unavailable(FullJid),
}

/// An IQ `get` or `set` that wants an answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) from: Jid,
    /// The component, or a name below it; the answer comes from there.
    to: Jid,
    pub(crate) id: String,
    pub(crate) query: Query,
}

/// What an IQ asks for.
#[derive(Debug)]
pub(crate) enum Query {
    Register(Result<Box<Target>, BadRegister>),
    DiscoInfo(Box<DiscoInfoQuery>),
    DiscoItems,
    Ping,
    /// No payload, several of them, or one that does not parse.
    Malformed,
    Other,
}

/// Why a `<register/>` was refused before anyone looked at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRegister {
    #[error("application: {0}")]
    Application(HashError),
    #[error("instance: {0}")]
    Instance(HashError),
    #[error("vapid: {0}")]
    Vapid(VapidKeyError),
    #[error("a registration comes from a full JID")]
    NoResource,
}

/// The answer to an IQ of ours.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) from: Jid,
    pub(crate) id: String,
    /// The error's condition; `None`: a result.
    pub(crate) error: Option<Condition>,
}

/// The conditions that decide something (protocol.md §1, "Push").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    ItemNotFound,
    FeatureNotImplemented,
    /// Any other condition, an unknown one, or none.
    Other,
}

impl Incoming {
    /// What a frame means; `None` if nothing, or if nobody could be answered.
    pub(crate) fn read(frame: Frame) -> Option<Self> {
        let (element, damaged) = match frame {
            Frame::Element(element) => (element, false),
            Frame::Damaged(element) => (element, true),
            Frame::Opened(_) | Frame::Closed => return None,
        };
        if element.ns() != ns::JABBER_CLIENT {
            return None;
        }
        let from: Jid = element.attr("from")?.parse().ok()?;
        match (element.name(), element.attr("type")) {
            ("presence", None) => from.try_into_full().ok().map(Self::Available),
            ("presence", Some("unavailable")) => from.try_into_full().ok().map(Self::Unavailable),
            ("iq", Some("get" | "set")) => {
                let id = element.attr("id")?.to_owned();
                let query = if damaged { Query::Malformed } else { Query::read(&from, &element) };
                let to = element.attr("to")?.parse().ok()?;
                Some(Self::Request(Request { from, to, id, query }))
            }
            ("iq", Some("result")) => {
                Some(Self::Answer(Answer { from, id: element.attr("id")?.to_owned(), error: None }))
            }
            ("iq", Some("error")) => {
                let id = element.attr("id")?.to_owned();
                Some(Self::Answer(Answer { from, id, error: Some(Condition::read(&element)) }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
impl Request {
    pub(crate) fn new(from: Jid, id: String, query: Query) -> Self {
        Self { from, to: BareJid::new("notify.example.com").unwrap().into(), id, query }
    }
}

impl Query {
    fn read(from: &Jid, iq: &Element) -> Self {
        let mut payloads = iq.children();
        let (Some(payload), None) = (payloads.next(), payloads.next()) else { return Self::Malformed };
        let set = iq.attr("type") == Some("set");
        match (payload.name(), &*payload.ns(), set) {
            ("register", UNIFIED_PUSH, true) => Self::Register(read_register(from, payload).map(Box::new)),
            ("query", ns::DISCO_INFO, false) => DiscoInfoQuery::try_from(payload.clone())
                .map_or(Self::Malformed, |query| Self::DiscoInfo(Box::new(query))),
            ("query", ns::DISCO_ITEMS, false) => {
                DiscoItemsQuery::try_from(payload.clone()).map_or(Self::Malformed, |_| Self::DiscoItems)
            }
            ("ping", ns::PING, false) => Self::Ping,
            _ => Self::Other,
        }
    }
}

fn read_register(from: &Jid, register: &Element) -> Result<Target, BadRegister> {
    let attribute = |name| register.attr::<str>(name).unwrap_or_default();
    Ok(Target {
        application: attribute("application").parse().map_err(BadRegister::Application)?,
        instance: attribute("instance").parse().map_err(BadRegister::Instance)?,
        vapid: register.attr::<str>("vapid").map(str::parse).transpose().map_err(BadRegister::Vapid)?,
        recipient: from.clone().try_into_full().map_err(|_| BadRegister::NoResource)?,
        legacy: None,
    })
}

impl Condition {
    fn read(iq: &Element) -> Self {
        let error = iq.get_child("error", ns::JABBER_CLIENT);
        let mut conditions =
            error.into_iter().flat_map(Element::children).filter(|child| child.has_ns(ns::XMPP_STANZAS));
        match conditions.find(|child| child.name() != "text").map(Element::name) {
            Some("item-not-found") => Self::ItemNotFound,
            Some("feature-not-implemented") => Self::FeatureNotImplemented,
            _ => Self::Other,
        }
    }
}

/// The answer to an XEP-0030 query: an identity, and what we speak.
pub(crate) fn disco_info(query: &DiscoInfoQuery) -> Result<Element, StanzaError> {
    if query.node.is_some() {
        return Err(error(ErrorType::Cancel, DefinedCondition::ItemNotFound, "no such node"));
    }
    let features = [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, UNIFIED_PUSH].map(str::to_owned).into();
    let identities = vec![Identity::new("pubsub", "push", "en", "Upwire, a UnifiedPush server")];
    Ok(DiscoInfoResult { node: None, identities, features, extensions: Vec::new() }.into())
}

/// The answer to a query for items: there are none.
pub(crate) fn disco_items() -> Element {
    DiscoItemsResult { node: None, items: Vec::new(), rsm: None }.into()
}

/// The `<registered/>` of an accepted registration; `expiration` is XEP-0082.
pub(crate) fn registered(endpoint: &str, expiration: &str) -> Element {
    Element::builder("registered", UNIFIED_PUSH)
        .attr(xml_ncname!("expiration").into(), expiration)
        .attr(xml_ncname!("endpoint").into(), endpoint)
        .build()
}

/// A stanza error with a text that a person can read.
pub(crate) fn error(kind: ErrorType, condition: DefinedCondition, text: &str) -> StanzaError {
    StanzaError::new(kind, condition, "en", text)
}

/// Completes an answer to `request`.
pub(crate) fn answer(request: &Request, answer: Result<Option<Element>, StanzaError>) -> Element {
    let (id, to, from) = (request.id.clone(), Some(request.from.clone()), Some(request.to.clone()));
    let iq = match answer {
        Ok(payload) => Iq::Result { id, to, from, payload },
        Err(error) => Iq::Error { id, to, from, error, payload: None },
    };
    iq.into()
}

/// The IQ that carries a push; its id is the message's.
///
/// Written as text: there is one for every push, and nothing but the recipient's resource can hold
/// a character that needs escaping.
pub(crate) fn push(component: &BareJid, message: &PushMessage, to: &FullJid) -> String {
    let PushMessage { id, application, instance, body, .. } = message;
    let to = escape(to.as_str().as_bytes());
    let to = String::from_utf8_lossy(&to);
    let body = body.as_base64();
    format!(
        "<iq type='set' id='{id}' from='{component}' to='{to}'>\
         <push xmlns='{UNIFIED_PUSH}' application='{application}' instance='{instance}'>{body}</push></iq>"
    )
}

/// The id of every probe: whoever answers one is there, whichever it was.
pub(crate) const PROBE_ID: &str = "probe";

/// A ping to a phone (XEP-0199). What went out before it in the same session has arrived when it is answered.
pub(crate) fn probe(component: &BareJid, phone: &FullJid) -> String {
    let to = escape(phone.as_str().as_bytes());
    let to = String::from_utf8_lossy(&to);
    format!("<iq type='get' id='{PROBE_ID}' from='{component}' to='{to}'><ping xmlns='{}'/></iq>", ns::PING)
}

/// A ping to ourselves, through the server: it proves that the whole way there and back works.
pub(crate) fn ping(component: &BareJid) -> Element {
    let itself: Jid = component.clone().into();
    Iq::Get { id: "ping".to_owned(), to: Some(itself.clone()), from: Some(itself), payload: Ping.into() }
        .into()
}

impl Answer {
    /// The push message that this answers, if the id is one of ours.
    pub(crate) fn message_id(&self) -> Option<MessageId> {
        MessageId::parse(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use proptest::prelude::*;
    use push::{Application, Body, Instance, Registration, Ttl, Urgency, message::Wishes};

    use super::*;
    use crate::stream::framing::{FrameReader, serialize};

    /// Most often this value of an attribute, at times any other.
    fn mostly(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
        let usual = prop::sample::select(usual).prop_map(str::to_owned);
        prop_oneof![12 => usual, 1 => "[^'<&]{0,12}", 1 => any::<String>()]
    }

    /// What an IQ may hold: most often something that means something, or nearly.
    fn payload() -> impl Strategy<Value = String> {
        const HASH: &[&str] = &["bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM="];
        const KEY: &[&str] =
            &["BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"];
        let known = prop::sample::select(vec![
            format!("register xmlns='{UNIFIED_PUSH}' application='A' instance='B'"),
            format!("register xmlns='{UNIFIED_PUSH}' instance='A'"),
            format!("register xmlns='{UNIFIED_PUSH}' application='A' instance='B' vapid='C'"),
            format!("query xmlns='{}'", ns::DISCO_INFO),
            format!("query xmlns='{}' node='A'", ns::DISCO_INFO),
            format!("query xmlns='{}'", ns::DISCO_ITEMS),
            format!("ping xmlns='{}' more='A'", ns::PING),
            "error type='A'".to_owned(),
            format!("item-not-found xmlns='{}'", ns::XMPP_STANZAS),
            "no:prefix".to_owned(),
        ]);
        let values = [mostly(HASH), mostly(HASH), mostly(KEY)];
        let open = (known, values).prop_map(|(known, values)| {
            let filled = ["='A'", "='B'", "='C'"].iter().zip(values);
            filled.fold(known, |open, (place, value)| open.replace(place, &format!("='{value}'")))
        });
        let element = |open: String, content: String| {
            let name = open.split(' ').next().unwrap_or_default();
            format!("<{open}>{content}</{name}>")
        };
        let open = open.boxed();
        let inner = (open.clone(), mostly(&[""])).prop_map(move |(open, content)| element(open, content));
        let content = prop_oneof![3 => mostly(&["", "text"]).boxed(), 1 => inner.boxed()];
        (open, content).prop_map(move |(open, content)| element(open, content))
    }

    fn stanza() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["iq", "iq", "iq", "presence", "message"]);
        let kind = mostly(&["get", "set", "result", "error", "unavailable"]);
        let (id, to) = (mostly(&["AAAAAAAAAAAAAAAAAAAAAA"]), mostly(&["notify.example.com"]));
        let from = mostly(&["juliet@example.com/phone", "juliet@example.com"]);
        let several = prop::collection::vec(payload(), 0..3).prop_map(|payloads| payloads.concat());
        let payloads = prop_oneof![4 => payload().boxed(), 1 => several.boxed()];
        (name, kind, id, to, from, payloads).prop_map(|(name, kind, id, to, from, payloads)| {
            format!("<{name} type='{kind}' id='{id}' to='{to}' from='{from}'>{payloads}</{name}>")
        })
    }

    /// What all of it means, and what it is answered, as the relay finds out.
    async fn read_all(stream: &str) {
        let mut reader = FrameReader::new(stream.as_bytes());
        while let Ok(frame) = reader.next().await {
            if matches!(frame, Frame::Closed) {
                return;
            }
            match Incoming::read(frame) {
                Some(Incoming::Request(request)) => {
                    let info = match &request.query {
                        Query::DiscoInfo(query) => disco_info(query).map(Some),
                        _ => Err(error(ErrorType::Modify, DefinedCondition::BadRequest, "no")),
                    };
                    assert!(serialize(&answer(&request, info)).starts_with("<iq"));
                }
                Some(Incoming::Answer(answer)) => {
                    let _ = answer.message_id();
                }
                Some(Incoming::Available(_) | Incoming::Unavailable(_)) | None => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_stanza_means_something_or_nothing(stanzas in prop::collection::vec(stanza(), 1..4)) {
            let stream = format!("<s:stream xmlns:s='{}' xmlns='{}'>", ns::STREAM, ns::COMPONENT_ACCEPT);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(read_all(&(stream + &stanzas.concat())));
        }
    }

    #[test]
    fn a_push_is_the_stanza_of_the_protocol() {
        let target = Target {
            recipient: FullJid::new("juliet@example.com/a 'b' \"c\" <d> & e").unwrap(),
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([2; 32]),
            vapid: None,
            legacy: None,
        };
        let registration =
            Registration::renew(None, target.clone(), DateTime::UNIX_EPOCH, TimeDelta::days(7));
        let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Normal, topic: None };
        let body = Body::from_bytes(b"hello");
        let message = PushMessage::new([3; 8], &registration, wishes, body, DateTime::UNIX_EPOCH);
        let xml = push(&BareJid::new("notify.example.com").unwrap(), &message, &message.recipient);

        let in_stream = xml.replacen("<iq", &format!("<iq xmlns='{}'", ns::JABBER_CLIENT), 1);
        let iq = Iq::try_from(in_stream.parse::<Element>().unwrap()).unwrap();
        let Iq::Set { from: Some(from), to: Some(to), id, payload } = iq else { panic!("{xml}") };
        assert_eq!((from.as_str(), to.as_str()), ("notify.example.com", target.recipient.as_str()));
        assert_eq!((MessageId::parse(&id), payload.text()), (Some(message.id), "aGVsbG8=".into()));
        assert!(payload.is("push", UNIFIED_PUSH));
        assert_eq!(payload.attr("application"), Some(&*target.application.to_string()));
        assert_eq!(payload.attr("instance"), Some(&*target.instance.to_string()));
    }
}
