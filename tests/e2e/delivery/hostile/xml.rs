//! XML with unusual characters, namespaces and sizes, inside stanzas that are ordinary otherwise.

use super::stanzas::Expected::{Error, ErrorOrRefusal, Nothing, Result};
use super::stanzas::{HASH, Hostile, PING, get, hostile, register, set};

pub(crate) fn characters() -> Vec<Hostile> {
    let text = |name, text: &str| {
        get(name, &format!("<a xmlns='b' c='{text}'>{text}</a>"), ErrorOrRefusal("service-unavailable"))
    };
    let id = |name, characters: &str| {
        hostile(name, format!("<iq type='get' id='{characters} ID' to='TO'>{PING}</iq>"), Nothing)
    };
    vec![
        text("an emoji", "😀👩‍👩‍👧"),
        text("next line and line separator", "a\u{85}b\u{2028}c"),
        text("a noncharacter", "\u{fdd0}\u{1ffff}\u{10ffff}"),
        text("characters that XML forbids", "\u{fffe}\u{ffff}"),
        text("right to left", "\u{202e}\u{2067}שלום"),
        text("combining characters", &"e\u{301}\u{302}".repeat(200)),
        text("a byte order mark", "\u{feff}"),
        text("C1 controls and delete", "\u{7f}\u{80}\u{9f}"),
        text("the predefined entities", "&lt;&gt;&amp;&quot;&apos;"),
        text("a tab and a line feed by reference", "a&#9;b&#10;c&#xA;"),
        get("a carriage return in a text", "<a xmlns='b'>c&#13;d</a>", Error("service-unavailable")),
        get(
            "a carriage return and a line feed in a text",
            "<a xmlns='b'>c&#13;&#10;d</a>",
            Error("service-unavailable"),
        ),
        text("an emoji by reference", "&#x1F600;&#128512;"),
        text("a noncharacter by reference", "&#xFDD0;&#x1FFFE;"),
        text("the end of a CDATA section", "]]&gt;"),
        text("a null by reference", "&#0;"),
        text("a control character by reference", "&#1;"),
        text("a surrogate by reference", "&#xD800;"),
        text("an unknown entity", "&nbsp;"),
        text("a null", "\0"),
        text("a control character", "\u{1}"),
        get(
            "a CDATA section",
            "<a xmlns='b'><![CDATA[</iq><&amp;]]></a>",
            ErrorOrRefusal("service-unavailable"),
        ),
        get("an empty CDATA section", "<a xmlns='b'><![CDATA[]]></a>", ErrorOrRefusal("service-unavailable")),
        get(
            "nested ends of CDATA",
            "<a xmlns='b'><![CDATA[]]]]><![CDATA[>]]></a>",
            ErrorOrRefusal("service-unavailable"),
        ),
        get("a comment", "<a xmlns='b'><!-- c --></a>", Nothing),
        get("a processing instruction", "<a xmlns='b'><?php exit ?></a>", Nothing),
        hostile("a document type", "<!DOCTYPE a [<!ENTITY b 'c'>]>", Nothing),
        id("an id with an emoji", "😀"),
        id("an id with markup", "&lt;&apos;&quot;&gt;&amp;"),
        id("an id with white space", "&#9;&#10;"),
        id("an id with next line", "\u{85}"),
    ]
}

pub(crate) fn namespaces() -> Vec<Hostile> {
    let payload = |name, payload: &str| get(name, payload, ErrorOrRefusal("bad-request"));
    let other = |name, payload: &str| get(name, payload, ErrorOrRefusal("service-unavailable"));
    let any = |name, payload: &str| get(name, payload, Nothing);
    vec![
        payload("an undeclared prefix", "<a:b/>"),
        payload("an undeclared prefix of an attribute", "<a b:c='d'/>"),
        payload("a prefix used outside its scope", "<a xmlns='b'><c xmlns:d='e'/><d:f/></a>"),
        any("two colons in a name", "<a:b:c/>"),
        any("a colon alone", "<:/>"),
        any("a colon before a name", "<:a/>"),
        any("a colon after a name", "<a:/>"),
        any("two colons in an attribute", "<a b:c:d='e'/>"),
        any("a colon before an attribute", "<a :b='c'/>"),
        any("a colon after an attribute", "<a b:='c'/>"),
        any("a digit after a prefix", "<a:1 xmlns:a='b'/>"),
        any("the empty prefix declared", "<a xmlns:='b'/>"),
        any("a prefix bound to nothing", "<a xmlns:b=''><b:c/></a>"),
        any("xml bound anew", "<a xmlns:xml='b' xml:c='d'/>"),
        any("xmlns bound anew", "<a xmlns:xmlns='b'/>"),
        any(
            "a prefix bound to xml's namespace",
            "<a xmlns:b='http://www.w3.org/XML/1998/namespace' b:lang='c'/>",
        ),
        any("a prefix bound to xmlns's namespace", "<a xmlns:b='http://www.w3.org/2000/xmlns/'/>"),
        any("xmlns as a prefix", "<xmlns:a/>"),
        any("the same attribute by two prefixes", "<a xmlns:b='c' xmlns:d='c' b:e='f' d:e='g'/>"),
        any("an attribute twice", "<a b='c' b='d'/>"),
        any("a namespace twice", "<a xmlns='b' xmlns='c'/>"),
        other("a namespace of spaces", "<a xmlns='   '/>"),
        other("a namespace with markup", "<a xmlns='&lt;&apos;&quot;&amp;'/>"),
        other("a name of other letters", "<日本 xmlns='b' ключ='c'/>"),
        other("a name with dots and dashes", "<a-._·b xmlns='b'/>"),
        other(
            "a stream error as payload",
            "<error xmlns='http://etherx.jabber.org/streams'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>",
        ),
        other("a stream error by prefix", "<stream:error xmlns:stream='http://etherx.jabber.org/streams'/>"),
        other("the stream's prefix bound anew", "<a xmlns='b' xmlns:stream='c'><stream:d/></a>"),
        other("a payload in the component's namespace", "<a xmlns='jabber:component:accept'/>"),
        other("a handshake as payload", "<handshake xmlns='jabber:component:accept'/>"),
        other("a prefix for the payload", "<p:ping xmlns:p='urn:xmpp:pong'/>"),
        get("a prefix for a ping", "<p:ping xmlns:p='urn:xmpp:ping'/>", Result),
        hostile(
            "the component's namespace",
            format!("<iq xmlns='jabber:component:accept' type='get' id='ID' to='TO'>{PING}</iq>"),
            Nothing,
        ),
        hostile(
            "a namespace of one's own",
            format!("<iq xmlns='urn:example:nothing' type='get' id='ID' to='TO'>{PING}</iq>"),
            Nothing,
        ),
        hostile("an undeclared prefix on the stanza", "<message a:b='c' to='TO'/>", Nothing),
        hostile("two colons on the stanza", "<message a:b:c='d' to='TO'/>", Nothing),
        hostile(
            "a prefix bound on the stanza",
            "<message xmlns:a='b' a:c='d' to='TO'><a:e/></message>",
            Nothing,
        ),
    ]
}

/// Returns XML that the servers pass on, and that rxml refuses.
pub(crate) fn refused_by_the_parser() -> Vec<Hostile> {
    vec![
        get("a carriage return in an attribute", "<a xmlns='b' c='d&#13;e'/>", Error("service-unavailable")),
        get("xml as a prefix", "<xml:a/>", Error("bad-request")),
        hostile(
            "a carriage return in an id",
            format!("<iq type='get' id='ID&#13;' to='TO'>{PING}</iq>"),
            Result,
        ),
        hostile("a carriage return in a message", "<message to='TO' a='b&#13;c'/>", Nothing),
    ]
}

/// Returns stanzas that have one part of this size.
pub(crate) fn large_tokens(bytes: usize) -> Vec<Hostile> {
    let x = "x".repeat(bytes);
    // The relay reads at most 64 KiB of a stanza. If that cuts off the id, the relay cannot answer.
    let to_a_large_id = if bytes < 64 << 10 { Result } else { Nothing };
    vec![
        hostile("a large id", format!("<iq type='get' id='ID{x}' to='TO'>{PING}</iq>"), to_a_large_id),
        hostile(
            "a large id of an error",
            format!("<iq type='error' id='{x}' to='TO'><error/></iq>"),
            Nothing,
        ),
        hostile("a large attribute of a message", format!("<message to='TO' a='{x}'/>"), Nothing),
        set("a large namespace", &format!("<a xmlns='{x}'/>"), ErrorOrRefusal("")),
        register("a large hash", &format!("application='{x}' instance='{HASH}'"), Error("bad-request")),
        get(
            "a large node",
            &format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{x}'/>"),
            ErrorOrRefusal(""),
        ),
        set("a large name", &format!("<a{x} xmlns='b'/>"), Nothing),
        set("a large name of an attribute", &format!("<a xmlns='b' a{x}='b'/>"), Nothing),
    ]
}

/// Returns stanzas that have a text of this size.
pub(crate) fn large_texts(bytes: usize) -> Vec<Hostile> {
    let x = "x".repeat(bytes);
    vec![
        hostile("a large body", format!("<message to='TO'><body>{x}</body></message>"), Nothing),
        hostile("a large status", format!("<presence to='TO'><status>{x}</status></presence>"), Nothing),
        set("a large text", &format!("<a xmlns='b'>{x}</a>"), ErrorOrRefusal("")),
        set(
            "a large text of entities",
            &format!("<a xmlns='b'>{}</a>", "&amp;".repeat(bytes / 5)),
            ErrorOrRefusal(""),
        ),
    ]
}

/// Returns a payload with this number of levels.
pub(crate) fn deep(depth: usize) -> Hostile {
    let payload = format!("{}{}", "<a xmlns='b'>".repeat(depth), "</a>".repeat(depth));
    get("a deep payload", &payload, ErrorOrRefusal(""))
}

/// Returns payloads with many parts.
pub(crate) fn wide() -> Vec<Hostile> {
    let attributes: String = (0..5000).map(|number| format!(" a{number}='b'")).collect();
    let prefixes: String = (0..2000).map(|number| format!(" xmlns:p{number}='urn:{number}'")).collect();
    vec![
        set("many attributes", &format!("<a xmlns='b'{attributes}/>"), ErrorOrRefusal("")),
        set("many prefixes", &format!("<a xmlns='b'{prefixes}/>"), ErrorOrRefusal("")),
        set("many children", &format!("<a xmlns='b'>{}</a>", "<c/>".repeat(20_000)), ErrorOrRefusal("")),
        set("many payloads", &"<c xmlns='b'/>".repeat(5000), Error("bad-request")),
        set(
            "many pieces of text",
            &format!("<a xmlns='b'>{}</a>", "x<c/>".repeat(10_000)),
            ErrorOrRefusal(""),
        ),
    ]
}
