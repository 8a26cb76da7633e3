//! The XML framing of a component stream (XEP-0114): bytes to stanzas and back.
//!
//! The server's `jabber:component:accept` becomes `jabber:client` here, which is what the stanza
//! types speak. Whatever a user managed to get through the server, the stream goes on: a stanza
//! that is too large, too deep or not namespace-well-formed is read to its end and handed on
//! without its payload.

use std::{collections::BTreeMap, io, mem};

use rxml::{AsyncRawReader, Options, RawEvent, parser::EventMetrics};
use tokio::io::{AsyncRead, BufReader};
use tokio_xmpp::{
    minidom::{Element, tree_builder::TreeBuilder},
    parsers::ns,
};

/// The largest name, attribute or piece of text that the parser takes. Prosody sends no stanza of
/// more than 512 KiB; a longer attribute ends the connection.
const TOKEN_BYTES_MAX: usize = 4 << 20;
/// The largest stanza that is looked at.
const STANZA_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting that is looked at; dropping a tree takes stack for each level.
const DEPTH_MAX: usize = 64;
const READ_BUFFER_BYTES: usize = 64 << 10;

/// What the stream brings.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The server's stream header, with the id that the handshake is made from.
    Opened(String),
    /// A stanza, or another child of the stream.
    Element(Element),
    /// A stanza of which only the beginning could be kept; its own attributes are complete.
    Damaged(Element),
    /// `</stream:stream>`, or the end of the connection.
    Closed,
}

/// Reads frames; may be cancelled between any two bytes.
pub(crate) struct FrameReader<R> {
    events: AsyncRawReader<BufReader<R>>,
    header: Header,
    stanza: Stanza,
    /// Open elements, the stream's own included.
    depth: usize,
}

#[derive(Default)]
struct Header {
    id: String,
    prefixes: BTreeMap<Option<String>, String>,
}

/// The stanza that is being read.
struct Stanza {
    builder: TreeBuilder,
    bytes: usize,
    /// Set once the rest is only counted.
    damaged: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
        let options = Options { max_token_length: TOKEN_BYTES_MAX, ..Options::default() };
        Self {
            events: AsyncRawReader::with_options(reader, options),
            header: Header::default(),
            stanza: Stanza::new(&BTreeMap::new()),
            depth: 0,
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection failed, or what came is not XML.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let event = match self.events.read().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Frame::Closed),
                Err(error) if is_end(&error) => return Ok(Frame::Closed),
                Err(error) => return Err(error),
            };
            let frame = match (self.depth, event) {
                (_, RawEvent::XmlDeclaration(..)) => None,
                (0, event) => self.header_event(event),
                (1, RawEvent::Text(..)) => None,
                (1, RawEvent::ElementFoot(_)) => Some(Frame::Closed),
                (_, event) => self.stanza_event(event),
            };
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    fn header_event(&mut self, event: RawEvent) -> Option<Frame> {
        match event {
            RawEvent::Attribute(_, (None, name), value) if name == "id" => self.header.id = value,
            RawEvent::Attribute(_, (None, name), value) if name == "xmlns" => {
                self.header.prefixes.insert(None, as_client(value));
            }
            RawEvent::Attribute(_, (Some(xmlns), prefix), value) if xmlns == "xmlns" => {
                self.header.prefixes.insert(Some(prefix.to_string()), value);
            }
            RawEvent::ElementHeadClose(_) => {
                self.depth = 1;
                self.stanza = Stanza::new(&self.header.prefixes);
                return Some(Frame::Opened(mem::take(&mut self.header.id)));
            }
            _ => {}
        }
        None
    }

    fn stanza_event(&mut self, event: RawEvent) -> Option<Frame> {
        match event {
            RawEvent::ElementHeadOpen(..) => self.depth += 1,
            RawEvent::ElementFoot(_) => self.depth -= 1,
            _ => {}
        }
        self.stanza.take(event, self.depth);
        if self.depth > 1 {
            return None;
        }
        let stanza = mem::replace(&mut self.stanza, Stanza::new(&self.header.prefixes));
        let damaged = stanza.damaged;
        // Without a root, not even the stanza's own head was good: nothing could answer it.
        let root = stanza.builder.root?;
        Some(if damaged { Frame::Damaged(root) } else { Frame::Element(root) })
    }
}

impl Stanza {
    fn new(prefixes: &BTreeMap<Option<String>, String>) -> Self {
        let builder = TreeBuilder::new().with_prefixes_stack(vec![prefixes.clone().into()]);
        Self { builder, bytes: 0, damaged: false }
    }

    fn take(&mut self, event: RawEvent, depth: usize) {
        self.bytes += event.metrics().len();
        if self.damaged {
            return;
        }
        let event = match event {
            RawEvent::Attribute(metrics, (None, name), value) if name == "xmlns" => {
                RawEvent::Attribute(metrics, (None, name), as_client(value))
            }
            event => event,
        };
        let too_much = self.bytes > STANZA_BYTES_MAX || depth > DEPTH_MAX;
        if too_much || self.builder.process_event(event).is_err() {
            self.damaged = true;
            while self.builder.depth() > 0 && self.builder.process_event(FOOT).is_ok() {}
        }
    }
}

/// Whether the connection ended, before the document did.
fn is_end(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rxml::Error::InvalidEof(_)))
}

const FOOT: RawEvent = RawEvent::ElementFoot(EventMetrics::zero());

fn as_client(namespace: String) -> String {
    if namespace == ns::COMPONENT_ACCEPT { ns::JABBER_CLIENT.to_owned() } else { namespace }
}

/// The header that opens our side of the stream.
pub(crate) fn stream_header(component: &str) -> String {
    // A domain holds no character that needs escaping.
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{component}'>",
        ns::COMPONENT_ACCEPT,
        ns::STREAM,
    )
}

/// What closes it.
pub(crate) const STREAM_FOOTER: &str = "</stream:stream>";

/// The bytes of a stanza, in the stream's own namespace.
pub(crate) fn serialize(stanza: &Element) -> String {
    let xml = String::from(stanza);
    // The root declares its namespace right after its name; without that it takes the stream's.
    let declaration = format!(" xmlns='{}'", ns::JABBER_CLIENT);
    match xml.split_once(&declaration) {
        Some((name, rest)) if !name.contains(' ') => format!("{name}{rest}"),
        _ => xml,
    }
}

#[cfg(test)]
mod tests {
    use tokio_xmpp::parsers::{iq::Iq, ping::Ping, stanza_error::StanzaError};

    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
         xmlns='jabber:component:accept' id='s1' from='up.localhost'>";

    async fn frames(xml: &str) -> Vec<Frame> {
        let document = format!("{HEADER}{xml}</stream:stream>");
        let mut reader = FrameReader::new(document.as_bytes());
        let mut frames = Vec::new();
        loop {
            match reader.next().await.unwrap() {
                Frame::Closed => return frames,
                frame => frames.push(frame),
            }
        }
    }

    #[tokio::test]
    async fn stanzas_come_in_the_client_namespace() {
        let frames = frames(
            "<iq id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq> \
             <iq xmlns='jabber:component:accept' id='2' type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
        )
        .await;
        let [Frame::Opened(id), Frame::Element(first), Frame::Element(second)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(id, "s1");
        assert!(Iq::try_from(first.clone()).is_ok() && Iq::try_from(second.clone()).is_ok());
    }

    #[tokio::test]
    async fn a_stanza_too_deep_too_large_or_ill_namespaced_does_not_end_the_stream() {
        let deep = "<a>".repeat(20_000) + &"</a>".repeat(20_000);
        let large = "x".repeat(STANZA_BYTES_MAX + 1);
        let long_attribute = format!("<a b='{}'/>", "x".repeat(512 << 10));
        for payload in [&*deep, &large, "<no:prefix/>", "<a no:b='c'/>"] {
            let frames = frames(&format!("<iq id='1' from='a@b/c'>{payload}</iq><after/>")).await;
            let [_, Frame::Damaged(iq), Frame::Element(after)] = &frames[..] else { panic!("{payload:.20}") };
            assert_eq!((iq.attr("id"), iq.attr("from"), after.name()), (Some("1"), Some("a@b/c"), "after"));
        }
        let frames = frames(&format!("<no:iq/><iq no:id='1'/><iq id='1'>{long_attribute}</iq>")).await;
        assert!(matches!(&frames[..], [_, Frame::Element(_)]), "{}", frames.len());
    }

    #[tokio::test]
    async fn what_is_not_xml_is_an_error() {
        let mut reader = FrameReader::new(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
        assert!(reader.next().await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_ends_closes_the_stream() {
        for rest in ["", " ", "<iq id='1'", "<iq id='1'>text"] {
            let document = format!("{HEADER}{rest}");
            let mut reader = FrameReader::new(document.as_bytes());
            assert!(matches!(reader.next().await, Ok(Frame::Opened(_))));
            assert!(matches!(reader.next().await, Ok(Frame::Closed)), "{rest}");
        }
    }

    #[test]
    fn a_stanza_goes_out_in_the_streams_namespace() {
        let iq: Element = Iq::from_get("1", Ping).into();
        assert_eq!(serialize(&iq), "<iq id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>");
        let error = StanzaError::new(
            tokio_xmpp::parsers::stanza_error::ErrorType::Cancel,
            tokio_xmpp::parsers::stanza_error::DefinedCondition::ItemNotFound,
            "en",
            "x xmlns='jabber:client'",
        );
        let iq: Element = Iq::from_error("1", error).into();
        assert!(serialize(&iq).starts_with("<iq id='1' type='error'><error type='cancel'>"));
    }
}
