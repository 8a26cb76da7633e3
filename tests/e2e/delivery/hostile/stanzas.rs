//! The stanzas that a user may send to the component, and what should come of each.

/// One stanza.
#[derive(Clone)]
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    /// The XML. TO and ID stand for the component and a fresh id.
    template: String,
    pub(crate) expected: Expected,
}

/// The answer to the sender.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// Any answer or none. The server may also end the sender's session.
    Nothing,
    /// An IQ `result`.
    Result,
    /// An IQ `error` with this condition.
    Error(&'static str),
    /// An IQ `error` with this condition, or the end of the sender's session.
    ErrorOrRefusal(&'static str),
}

use Expected::{Error, ErrorOrRefusal, Nothing, Result};

impl Expected {
    pub(crate) fn may_be_refused(self) -> bool {
        matches!(self, Nothing | ErrorOrRefusal(_))
    }
}

impl Hostile {
    pub(crate) fn xml(&self, component: &str, id: &str) -> String {
        self.template.replace("TO", component).replace("ID", id)
    }
}

pub(crate) fn hostile(name: &'static str, template: impl Into<String>, expected: Expected) -> Hostile {
    Hostile { name, template: template.into(), expected }
}

/// Returns an IQ `get` with this payload.
pub(crate) fn get(name: &'static str, payload: &str, expected: Expected) -> Hostile {
    hostile(name, format!("<iq type='get' id='ID' to='TO'>{payload}</iq>"), expected)
}

/// Returns an IQ `set` with this payload.
pub(crate) fn set(name: &'static str, payload: &str, expected: Expected) -> Hostile {
    hostile(name, format!("<iq type='set' id='ID' to='TO'>{payload}</iq>"), expected)
}

/// Returns an IQ `error` with this content.
fn error(name: &'static str, inside: &str) -> Hostile {
    hostile(name, format!("<iq type='error' id='ID' to='TO'>{inside}</iq>"), Nothing)
}

/// Returns an IQ `set` with a `register` that has these attributes.
pub(crate) fn register(name: &'static str, attributes: &str, expected: Expected) -> Hostile {
    set(name, &format!("<register xmlns='{}' {attributes}/>", e2e::UNIFIED_PUSH), expected)
}

pub(crate) const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";
pub(crate) const HASH: &str = "bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM=";

pub(crate) fn presences() -> Vec<Hostile> {
    let of_type = |name, kind| hostile(name, format!("<presence type='{kind}' to='TO'/>"), Nothing);
    let with = |name, inside| hostile(name, format!("<presence to='TO'>{inside}</presence>"), Nothing);
    vec![
        with("a priority that is no number", "<priority>high</priority>"),
        with("a priority out of range", "<priority>1000</priority>"),
        with("an empty priority", "<priority/>"),
        with("two priorities", "<priority>1</priority><priority>2</priority>"),
        with("an unknown show", "<show>sleeping</show>"),
        with("an empty show", "<show/>"),
        with("two shows", "<show>away</show><show>dnd</show>"),
        with("an unknown child", "<x xmlns='urn:example:nothing'><y/></x>"),
        with("a child in the stanza's namespace", "<unknown/>"),
        with("an error that is none", "<error/>"),
        of_type("an unknown type of presence", "sleeping"),
        of_type("an empty type of presence", ""),
        of_type("subscribe", "subscribe"),
        of_type("subscribed", "subscribed"),
        of_type("unsubscribe", "unsubscribe"),
        of_type("unsubscribed", "unsubscribed"),
        of_type("probe", "probe"),
        of_type("an error without a condition", "error"),
        of_type("unavailable without having been there", "unavailable"),
        hostile("presence to a user of the component", "<presence to='somebody@TO/x' id='ID'/>", Nothing),
    ]
}

pub(crate) fn messages() -> Vec<Hostile> {
    let of_type = |name, kind| {
        let xml = format!("<message type='{kind}' to='TO' id='ID'><body>hello</body></message>");
        hostile(name, xml, Nothing)
    };
    vec![
        of_type("a chat", "chat"),
        of_type("a groupchat", "groupchat"),
        of_type("a headline", "headline"),
        of_type("a normal message", "normal"),
        of_type("an error that carries a body", "error"),
        of_type("an unknown type of message", "shout"),
        of_type("an empty type of message", ""),
        hostile("an empty message", "<message to='TO'/>", Nothing),
        hostile("two bodies", "<message to='TO'><body>a</body><body>b</body></message>", Nothing),
        hostile(
            "a push in a message",
            format!("<message to='TO'><push xmlns='{}'/></message>", e2e::UNIFIED_PUSH),
            Nothing,
        ),
        hostile(
            "a message to a user of the component",
            "<message to='somebody@TO/x'><body>a</body></message>",
            Nothing,
        ),
    ]
}

pub(crate) fn requests() -> Vec<Hostile> {
    vec![
        get("no payload", "", Error("bad-request")),
        set("no payload in a set", "", Error("bad-request")),
        get("text alone", "hello", Error("bad-request")),
        get("two payloads", &format!("{PING}{PING}"), Error("bad-request")),
        get("an unknown payload", "<nothing xmlns='urn:example:nothing'/>", Error("service-unavailable")),
        get("a payload in the stanza's namespace", "<nothing/>", Error("service-unavailable")),
        get("an error in a get", "<error/>", Error("service-unavailable")),
        get("a ping with an attribute and text", "<ping xmlns='urn:xmpp:ping' a='b'>c</ping>", Result),
        set("a ping in a set", PING, Error("service-unavailable")),
        get("a ping of another namespace", "<ping xmlns='urn:xmpp:pong'/>", Error("service-unavailable")),
        get("software version", "<query xmlns='jabber:iq:version'/>", Result),
        set("a legacy registration", "<query xmlns='jabber:iq:register'/>", Error("service-unavailable")),
        get(
            "an unknown node",
            "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>",
            Error("item-not-found"),
        ),
        get(
            "disco with children",
            "<query xmlns='http://jabber.org/protocol/disco#info'><feature/></query>",
            Result,
        ),
        set(
            "disco in a set",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            Error("service-unavailable"),
        ),
        get("items", "<query xmlns='http://jabber.org/protocol/disco#items'/>", Result),
        hostile(
            "a ping of a bare JID",
            format!("<iq type='get' id='ID' to='TO' xml:lang='x'>{PING}</iq>"),
            Result,
        ),
        hostile(
            "a ping with a long language",
            format!("<iq type='get' id='ID' to='TO' xml:lang='{}'>{PING}</iq>", "x-".repeat(5000)),
            Nothing,
        ),
        hostile(
            "an id like a message's",
            format!("<iq type='get' id='AAAAAAAAAAAAAAAAAAAAAA' to='TO'>{PING}</iq>"),
            Nothing,
        ),
        hostile(
            "the id of the relay's own ping",
            format!("<iq type='get' id='ping' to='TO'>{PING}</iq>"),
            Nothing,
        ),
        hostile("an empty id", format!("<iq type='get' id='' to='TO'>{PING}</iq>"), Nothing),
        hostile("no id", format!("<iq type='get' to='TO'>{PING}</iq>"), Nothing),
        hostile("no type", format!("<iq id='ID' to='TO'>{PING}</iq>"), Nothing),
        hostile("an unknown type of IQ", format!("<iq type='ask' id='ID' to='TO'>{PING}</iq>"), Nothing),
        hostile(
            "a ping of a resource of the component",
            format!("<iq type='get' id='ID' to='TO/x'>{PING}</iq>"),
            Error("service-unavailable"),
        ),
        hostile(
            "a ping of a user of the component",
            format!("<iq type='get' id='ID' to='nobody@TO/x'>{PING}</iq>"),
            Error("service-unavailable"),
        ),
    ]
}

/// Returns stanzas for names below the component. These are not for the component.
pub(crate) fn to_names_below() -> Vec<Hostile> {
    const NAMES: [&str; 3] = ["nobody@TO", "nobody@TO/x", "TO/x"];
    let each = |name: &'static str, template: &str, expected| {
        NAMES.map(|address| hostile(name, template.replace("NAME", address), expected))
    };
    let payload = format!("<register xmlns='{}' application='{HASH}' instance='{HASH}'/>", e2e::UNIFIED_PUSH);
    let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let refused = Error("service-unavailable");
    [
        each(
            "a registration at a name below",
            &format!("<iq type='set' id='ID' to='NAME'>{payload}</iq>"),
            refused,
        ),
        each("disco of a name below", &format!("<iq type='get' id='ID' to='NAME'>{disco}</iq>"), refused),
        each("a result to a name below", "<iq type='result' id='ID' to='NAME'/>", Nothing),
        each("an error to a name below", "<iq type='error' id='ID' to='NAME'><error/></iq>", Nothing),
        each("presence to a name below", "<presence to='NAME'/>", Nothing),
    ]
    .concat()
}

/// Returns requests about registrations.
pub(crate) fn registrations() -> Vec<Hostile> {
    let more = format!("application='{HASH}' instance='{HASH}'");
    vec![
        register("no attributes", "", Error("bad-request")),
        register("no instance", &format!("application='{HASH}'"), Error("bad-request")),
        register("empty attributes", "application='' instance=''", Error("bad-request")),
        register("a hash too short", &format!("application='{HASH}' instance='AAAA'"), Error("bad-request")),
        register(
            "a hash that is no base64",
            &format!("application='{HASH}' instance='😀'"),
            Error("bad-request"),
        ),
        register(
            "a hash with spaces",
            &format!("application=' {HASH} ' instance='{HASH}'"),
            Error("bad-request"),
        ),
        register("a further attribute", &format!("{more} jid='juliet@localhost/phone'"), Result),
        get(
            "a register in a get",
            &format!("<register xmlns='{}' {more}/>", e2e::UNIFIED_PUSH),
            Error("service-unavailable"),
        ),
        set(
            "a register of no namespace",
            &format!("<register xmlns='' {more}/>"),
            ErrorOrRefusal("service-unavailable"),
        ),
        set(
            "a push",
            &format!("<push xmlns='{}' {more}>aGVsbG8=</push>", e2e::UNIFIED_PUSH),
            Error("service-unavailable"),
        ),
    ]
}

pub(crate) fn answers() -> Vec<Hostile> {
    const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    let result = |name, id, inside| {
        hostile(name, format!("<iq type='result' id='{id}' to='TO'>{inside}</iq>"), Nothing)
    };
    vec![
        result("a result of nothing", "ID", ""),
        result("a result with two payloads", "ID", "<a xmlns='b'/><c xmlns='d'/>"),
        result("a result with an id like a message's", "AAAAAAAAAAAAAAAAAAAAAA", ""),
        result("a result of the relay's own ping", "ping", ""),
        result("a result with an empty id", "", ""),
        hostile("a result without an id", "<iq type='result' to='TO'/>", Nothing),
        hostile("an error without an id", "<iq type='error' to='TO'><error/></iq>", Nothing),
        error("nothing in an error", ""),
        error("an error without type or condition", "<error/>"),
        error("an error without a condition", "<error type='cancel'/>"),
        error("an unknown type of error", &format!("<error type='maybe'><gone xmlns='{STANZAS}'/></error>")),
        error("an unknown condition", &format!("<error type='cancel'><tired xmlns='{STANZAS}'/></error>")),
        error("a condition of no namespace", "<error type='cancel'><item-not-found xmlns=''/></error>"),
        error("a condition in the stanza's namespace", "<error type='cancel'><item-not-found/></error>"),
        error(
            "two conditions",
            &format!(
                "<error type='cancel'><gone xmlns='{STANZAS}'/><item-not-found xmlns='{STANZAS}'/></error>"
            ),
        ),
        error(
            "a text before the condition",
            &format!(
                "<error type='cancel'><text xmlns='{STANZAS}'>x</text><gone xmlns='{STANZAS}'/></error>"
            ),
        ),
        error("two errors", "<error type='cancel'/><error type='wait'/>"),
        error("a payload and no error", PING),
        error("an error of another namespace", "<error xmlns='urn:example:nothing'/>"),
        error("a legacy error", "<error code='404'>Not Found</error>"),
        error(
            "an error in an error",
            &format!("<error type='cancel'><error type='cancel'><gone xmlns='{STANZAS}'/></error></error>"),
        ),
    ]
}
