//! Reads the results of pushes, which are most of what the stream brings, without a parser.
//!
//! Only an empty `<iq type='result'/>` of plain characters is read here. Everything else goes to the parser, which
//! would read the same from such a result.

use tokio_xmpp::parsers::ns;

/// An IQ result without a payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlainResult {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

impl PlainResult {
    /// Reads a result on a stream whose own namespace is that of stanzas. Returns `None` for everything else.
    pub(crate) fn read(stanza: &[u8]) -> Option<Self> {
        let mut rest = stanza.strip_prefix(b"<iq")?;
        let (mut id, mut from, mut to, mut kind, mut language, mut namespace) = Default::default();
        loop {
            if rest == b"/>" || rest == b"></iq>" {
                break;
            }
            let (name, value, behind) = attribute(rest)?;
            rest = behind;
            let place: &mut Option<&str> = match name {
                b"id" => &mut id,
                b"from" => &mut from,
                b"to" => &mut to,
                b"type" => &mut kind,
                b"xml:lang" => &mut language,
                b"xmlns" => &mut namespace,
                _ => return None,
            };
            // An attribute that comes twice is no XML.
            if place.replace(value).is_some() {
                return None;
            }
        }
        let is_of_the_stream =
            namespace.is_none_or(|ns| ns == ns::COMPONENT_ACCEPT || ns == ns::JABBER_CLIENT);
        if kind != Some("result") || !is_of_the_stream {
            return None;
        }
        let [id, from, to] = [id?, from?, to?].map(str::to_owned);
        Some(Self { id, from, to })
    }
}

/// Splits off the first attribute: returns its name, its value, and what is behind it.
fn attribute(text: &[u8]) -> Option<(&[u8], &str, &[u8])> {
    let text = text.strip_prefix(b" ")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (name, text) = (&text[..equals], &text[equals + 1..]);
    let (quote, text) = text.split_first().filter(|(quote, _)| matches!(quote, b'\'' | b'"'))?;
    let end = text.iter().position(|byte| byte == quote)?;
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'<' | b'&');
    let value =
        std::str::from_utf8(&text[..end]).ok().filter(|value| value.as_bytes().iter().all(is_plain))?;
    Some((name, value, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tokio_xmpp::jid::BareJid;

    use super::*;
    use crate::stream::{
        framing::{Frame, parse_stanza},
        stanza::Incoming,
    };

    fn long_way(stanza: &str) -> Option<Frame> {
        let prefixes = BTreeMap::from([(None, ns::JABBER_CLIENT.to_owned())]);
        parse_stanza(stanza.as_bytes(), &prefixes)
    }

    fn meaning(frame: Frame) -> String {
        format!("{:?}", Incoming::read(frame, &BareJid::new("notify.example.com").unwrap()))
    }

    /// Generates stanzas that are nearly a result: attributes in any order, once, twice or not at all, of plain
    /// characters or others.
    fn nearly_a_result() -> impl Strategy<Value = String> {
        let value = |usual: &'static str| prop_oneof![8 => Just(usual.to_owned()), 1 => "[ -~]{0,8}", 1 => any::<String>()];
        let attribute = move |name: &'static str, usual| {
            (value(usual), prop::sample::select(vec!["'", "\""]))
                .prop_map(move |(value, quote)| format!("{name}={quote}{value}{quote}"))
        };
        let attributes = prop_oneof![
            Just(vec!["id", "from", "to", "type"]),
            Just(vec!["type", "xml:lang", "to", "from", "id"]),
            Just(vec!["xmlns", "from", "id", "type", "to"]),
            prop::sample::subsequence(vec!["id", "id", "from", "to", "type", "other"], 0..6),
        ];
        let attributes = attributes.prop_flat_map(move |names| {
            let usual = |name| match name {
                "from" => "juliet@example.com/phone",
                "to" => "notify.example.com",
                "type" => "result",
                "xmlns" => "jabber:client",
                _ => "AAAAAAAAAAAAAAAAAAAAAA",
            };
            names.into_iter().map(|name| attribute(name, usual(name))).collect::<Vec<_>>()
        });
        let end = prop::sample::select(vec!["/>", "></iq>", "><a/></iq>", " />", ">"]);
        let gap = prop::sample::select(vec![" ", " ", " ", "  ", ""]);
        (attributes, gap, end).prop_map(|(attributes, gap, end)| {
            attributes.iter().fold("<iq".to_owned(), |text, attribute| text + gap + attribute) + end
        })
    }

    #[test]
    fn what_servers_send_is_read() {
        let phone = "juliet@example.com/Conversations.r4nD";
        for stanza in [
            format!("<iq id='AAAAAAAAAAAAAAAAAAAAAA' type='result' to='notify.example.com' from='{phone}'/>"),
            format!("<iq xml:lang='en' to='notify.example.com' from=\"{phone}\" type='result' id='1'/>"),
            format!(
                "<iq xmlns='jabber:component:accept' type='result' id='1' from='{phone}' to='notify.example.com'></iq>"
            ),
        ] {
            let read = PlainResult::read(stanza.as_bytes()).unwrap();
            assert_eq!((&*read.from, &*read.to), (phone, "notify.example.com"));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_means_the_same_as_by_the_long_way(stanza in nearly_a_result()) {
            if let Some(result) = PlainResult::read(stanza.as_bytes()) {
                let long = long_way(&stanza);
                prop_assert!(matches!(long, Some(Frame::Element(_))), "{long:?}");
                prop_assert_eq!(meaning(Frame::Result(result)), meaning(long.unwrap()));
            }
        }
    }
}
