//! The stanzas of docs/protocol.md, read leniently and written exactly.

use super::{
    commands::{BadCommand, COMMANDS, Command, Node},
    framing::Frame,
    plain::PlainResult,
};
use push::{MessageId, PushMessage, Target, VapidKey, registration::HashError, vapid::VapidKeyError};
use tokio_xmpp::{
    jid::{BareJid, FullJid, Jid},
    minidom::{
        Element,
        element::escape,
        rxml::{Namespace, xml_ncname},
    },
    parsers::{
        disco::{DiscoInfoQuery, DiscoItemsQuery},
        iq::Iq,
        ns,
        ping::Ping,
        stanza_error::{DefinedCondition, ErrorType, StanzaError},
    },
};

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
    /// A subscription to the component's presence, or a probe of it.
    Subscribe(Subscribe),
}

/// The domain that a stanza is for, which is not the component's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere(pub(crate) String);

/// An IQ `get` or `set` that wants an answer.
#[derive(Debug)]
pub(crate) struct Request {
    /// The sender, without its resource, or its node too, if these are no part of a JID here.
    pub(crate) from: Jid,
    /// Both addresses as they came, because clients compare them as text.
    addresses: Addresses,
    pub(crate) id: String,
    pub(crate) query: Query,
}

/// A presence of type `subscribe` or `probe`.
#[derive(Debug)]
pub(crate) struct Subscribe(Addresses);

/// The sender and the addressee of a stanza. The addressee is the component, or a node or resource of it. The answer
/// goes the other way.
#[derive(Debug)]
struct Addresses {
    from: String,
    to: String,
}

/// The query of an IQ.
#[derive(Debug)]
pub(crate) enum Query {
    Register(Result<Box<Target>, BadRegister>),
    DiscoInfo,
    DiscoItems,
    /// A disco query about an unknown node.
    DiscoNode,
    /// A disco query for the list of commands; `CommandInfo` is about one of them.
    Commands,
    CommandInfo(Node),
    Command(Command),
    BadCommand(BadCommand),
    Version,
    Ping,
    /// The IQ has no payload, several of them, or one that does not parse.
    Malformed,
    Other,
}

/// Why a `<register/>` is refused without a look at the store.
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
    #[error(
        "your JID has characters, as emoji are, that this push server cannot keep: choose another resource"
    )]
    Jid,
}

/// The answer to an IQ of ours.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) from: Jid,
    pub(crate) id: String,
    /// The error's condition; `None`: a result.
    pub(crate) error: Option<Condition>,
}

/// The error conditions that decide something (docs/protocol.md, "Push").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    ItemNotFound,
    FeatureNotImplemented,
    /// Any other condition, an unknown one, or none.
    Other,
}

/// Memory of a stanza beside its own text, in bytes.
const OVERHEAD_BYTES: usize = 512;

impl Incoming {
    /// Reads a frame for `component`. Returns `None` if it means nothing, or if nobody could be answered.
    ///
    /// # Errors
    /// The stanza is for another domain.
    pub(crate) fn read(frame: Frame, component: &BareJid) -> Result<Option<Self>, Elsewhere> {
        let (element, damaged) = match frame {
            Frame::Element(element) => (element, false),
            Frame::Damaged(element) => (element, true),
            Frame::Result(result) => return Self::of_result(result, component),
            Frame::Opened(_) | Frame::Closed => return Ok(None),
        };
        if element.ns() != ns::JABBER_CLIENT {
            return Ok(None);
        }
        let Some(to) = element.attr::<str>("to").and_then(|to| to.parse::<Jid>().ok()) else {
            return Ok(None);
        };
        if to.domain() != component.domain() {
            return Err(Elsewhere(to.domain().as_str().to_owned()));
        }
        Ok(if to == *component {
            Self::of_component(&element, damaged)
        } else {
            Self::of_name_below(&element)
        })
    }

    /// Reads a result as any other stanza, without a tree.
    fn of_result(result: PlainResult, component: &BareJid) -> Result<Option<Self>, Elsewhere> {
        let PlainResult { id, from, to } = result;
        if to != component.as_str() {
            return match to.parse::<Jid>() {
                Ok(to) if to.domain() != component.domain() => {
                    Err(Elsewhere(to.domain().as_str().to_owned()))
                }
                Ok(to) if to == *component => Ok(Self::answer(id, &from)),
                Ok(_) | Err(_) => Ok(None),
            };
        }
        Ok(Self::answer(id, &from))
    }

    fn answer(id: String, from: &str) -> Option<Self> {
        Some(Self::Answer(Answer { from: from.parse().ok()?, id, error: None }))
    }

    fn of_component(element: &Element, damaged: bool) -> Option<Self> {
        let addresses = Addresses::of(element)?;
        let kind = element.attr("type");
        if let ("iq", Some("get" | "set")) = (element.name(), kind) {
            let from = addresses.sender()?;
            let id = element.attr("id")?.to_owned();
            let query = if damaged { Query::Malformed } else { Query::read(&from, &addresses.from, element) };
            return Some(Self::Request(Request { from, addresses, id, query }));
        }
        if let ("presence", Some("subscribe" | "probe")) = (element.name(), kind) {
            return Some(Self::Subscribe(Subscribe(addresses)));
        }
        let from: Jid = addresses.from.parse().ok()?;
        match (element.name(), kind) {
            ("presence", None) => from.try_into_full().ok().map(Self::Available),
            ("presence", Some("unavailable")) => from.try_into_full().ok().map(Self::Unavailable),
            ("iq", Some("result")) => {
                Some(Self::Answer(Answer { from, id: element.attr("id")?.to_owned(), error: None }))
            }
            ("iq", Some("error")) => {
                let id = element.attr("id")?.to_owned();
                Some(Self::Answer(Answer { from, id, error: Some(Condition::read(element)) }))
            }
            _ => None,
        }
    }

    /// Reads a stanza to a node or resource. The component has none, and its answer says so (RFC 6120 §8.4).
    fn of_name_below(element: &Element) -> Option<Self> {
        let addresses = Addresses::of(element)?;
        match (element.name(), element.attr("type")) {
            ("iq", Some("get" | "set")) => {
                let from = addresses.sender()?;
                let id = element.attr("id")?.to_owned();
                Some(Self::Request(Request { from, addresses, id, query: Query::Other }))
            }
            ("presence", Some("subscribe" | "probe")) => Some(Self::Subscribe(Subscribe(addresses))),
            _ => None,
        }
    }

    /// Estimates the memory that the stanza takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Request(Request { from, addresses, id, .. }) => {
                    from.as_str().len() + addresses.bytes() + id.len()
                }
                Self::Subscribe(Subscribe(addresses)) => addresses.bytes(),
                Self::Answer(Answer { from, id, .. }) => from.as_str().len() + id.len(),
                Self::Available(jid) | Self::Unavailable(jid) => jid.as_str().len(),
            }
    }
}

#[cfg(test)]
impl Request {
    pub(crate) fn new(from: Jid, id: String, query: Query) -> Self {
        let addresses = Addresses { from: from.to_string(), to: "notify.example.com".into() };
        Self { from, addresses, id, query }
    }
}

impl Addresses {
    fn of(stanza: &Element) -> Option<Self> {
        let [from, to] = ["from", "to"].map(|name| stanza.attr::<str>(name).map(str::to_owned));
        Some(Self { from: from?, to: to? })
    }

    /// Returns the sender, or as much of it as is a JID by RFC 6122. Servers let through more, emoji for example.
    fn sender(&self) -> Option<Jid> {
        let bare = self.from.split_once('/').map_or(&*self.from, |(bare, _)| bare);
        let domain = bare.rsplit_once('@').map_or(bare, |(_, domain)| domain);
        [&*self.from, bare, domain].iter().find_map(|text| text.parse().ok())
    }

    fn bytes(&self) -> usize {
        self.from.len() + self.to.len()
    }

    /// Addresses `answer` to the sender.
    fn turn(&self, answer: &mut Element) {
        answer.set_attr(Namespace::NONE, xml_ncname!("from").into(), self.to.as_str());
        answer.set_attr(Namespace::NONE, xml_ncname!("to").into(), self.from.as_str());
    }
}

impl Query {
    fn read(from: &Jid, full_text: &str, iq: &Element) -> Self {
        let mut payloads = iq.children();
        let (Some(payload), None) = (payloads.next(), payloads.next()) else { return Self::Malformed };
        let set = iq.attr("type") == Some("set");
        match (payload.name(), &*payload.ns(), set) {
            ("register", UNIFIED_PUSH, true) => {
                Self::Register(read_register(from, full_text, payload).map(Box::new))
            }
            ("query", ns::DISCO_INFO, false) => match DiscoInfoQuery::try_from(payload.clone()) {
                Ok(DiscoInfoQuery { node: None }) => Self::DiscoInfo,
                Ok(DiscoInfoQuery { node: Some(node) }) => {
                    Node::named(&node).map_or(Self::DiscoNode, Self::CommandInfo)
                }
                Err(_) => Self::Malformed,
            },
            ("query", ns::DISCO_ITEMS, false) => match DiscoItemsQuery::try_from(payload.clone()) {
                Ok(DiscoItemsQuery { node: None, .. }) => Self::DiscoItems,
                Ok(DiscoItemsQuery { node: Some(node), .. }) if node == COMMANDS => Self::Commands,
                Ok(_) => Self::DiscoNode,
                Err(_) => Self::Malformed,
            },
            ("command", COMMANDS, true) => {
                Command::read(payload).map_or_else(Self::BadCommand, Self::Command)
            }
            ("query", ns::VERSION, false) => Self::Version,
            ("ping", ns::PING, false) => Self::Ping,
            _ => Self::Other,
        }
    }
}

fn read_register(from: &Jid, full_text: &str, register: &Element) -> Result<Target, BadRegister> {
    let attribute = |name| register.attr::<str>(name).unwrap_or_default();
    Ok(Target {
        application: attribute("application").parse().map_err(BadRegister::Application)?,
        instance: attribute("instance").parse().map_err(BadRegister::Instance)?,
        vapid: register
            .attr::<str>("vapid")
            .map(VapidKey::from_attribute)
            .transpose()
            .map_err(BadRegister::Vapid)?,
        recipient: from
            .clone()
            .try_into_full()
            .map_err(|_| if full_text.contains('/') { BadRegister::Jid } else { BadRegister::NoResource })?,
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

/// Returns the answer to a subscription or a probe: the component's presence is told to nobody (RFC 6121 §4.3.2).
pub(crate) fn unsubscribed(Subscribe(addresses): &Subscribe) -> Element {
    let mut presence = Element::builder("presence", ns::JABBER_CLIENT)
        .attr(xml_ncname!("type").into(), "unsubscribed")
        .build();
    addresses.turn(&mut presence);
    presence
}

/// Makes the `<registered/>` of an accepted registration. `expiration` has the form of XEP-0082.
pub(crate) fn registered(endpoint: &str, expiration: &str) -> Element {
    Element::builder("registered", UNIFIED_PUSH)
        .attr(xml_ncname!("expiration").into(), expiration)
        .attr(xml_ncname!("endpoint").into(), endpoint)
        .build()
}

/// Makes a stanza error, with a text that a person can read.
pub(crate) fn error(kind: ErrorType, condition: DefinedCondition, text: &str) -> StanzaError {
    StanzaError::new(kind, condition, "en", text)
}

/// Makes the IQ that answers `request`.
pub(crate) fn answer(request: &Request, answer: Result<Option<Element>, StanzaError>) -> Element {
    let (id, to, from) = (request.id.clone(), None, None);
    let mut iq = Element::from(match answer {
        Ok(payload) => Iq::Result { id, to, from, payload },
        Err(error) => Iq::Error { id, to, from, error, payload: None },
    });
    request.addresses.turn(&mut iq);
    iq
}

/// Makes the IQ that carries a push. Its id is the message's.
///
/// The IQ is written as text: there is one for every push, and only the recipient's resource can have a character that
/// needs escaping.
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

/// The id of every probe. An answer to any of them shows that the full JID is there.
pub(crate) const PROBE_ID: &str = "probe";

/// Makes a ping to a phone (XEP-0199). Its answer shows that all that went out before it in the same session has
/// arrived.
pub(crate) fn probe(component: &BareJid, phone: &FullJid) -> String {
    let to = escape(phone.as_str().as_bytes());
    let to = String::from_utf8_lossy(&to);
    format!("<iq type='get' id='{PROBE_ID}' from='{component}' to='{to}'><ping xmlns='{}'/></iq>", ns::PING)
}

/// Makes a ping to the component itself, through the server. It proves that the whole way there and back works.
pub(crate) fn ping(component: &BareJid) -> Element {
    let itself: Jid = component.clone().into();
    Iq::Get { id: "ping".to_owned(), to: Some(itself.clone()), from: Some(itself), payload: Ping.into() }
        .into()
}

impl Answer {
    /// Returns the id of the push that this answers, if the id is one of ours.
    pub(crate) fn message_id(&self) -> Option<MessageId> {
        MessageId::parse(&self.id)
    }
}

#[cfg(test)]
mod tests;
