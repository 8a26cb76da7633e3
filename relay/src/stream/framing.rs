//! The XML framing of a component stream (XEP-0114): bytes to stanzas and back.
//!
//! The server's `jabber:component:accept` becomes `jabber:client` here, the namespace of the stanza types. No stanza of
//! a user ends the stream. Each stanza is parsed by itself. A stanza that is too large, too deep or refused by the
//! parser is handed on without its payload.

use std::{collections::BTreeMap, io, mem};

use rxml::{Options, Parse, RawEvent, RawParser, WithOptions, parser::EventMetrics};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio_xmpp::{
    minidom::{Element, tree_builder::TreeBuilder},
    parsers::ns,
};

use super::{
    plain::PlainResult,
    scanner::{Part, Scanner},
};

/// Most bytes of a stanza that are looked at. The largest stanza that means something is a push that comes back inside
/// an error: less than 10 KB.
const STANZA_BYTES_MAX: usize = 64 << 10;
/// Most elements and attributes of a stanza that are looked at. Each takes many times its bytes once it is parsed.
const PARTS_MAX: usize = 256;
/// Deepest nesting that is looked at, because dropping a tree takes stack for each level.
const DEPTH_MAX: usize = 64;
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A part of the stream.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The server's stream header, with the stream id that the handshake needs.
    Opened(String),
    /// A stanza, or another child of the stream.
    Element(Element),
    /// A result without a payload.
    Result(PlainResult),
    /// A stanza of which only the beginning could be kept. Its own attributes are complete.
    Damaged(Element),
    /// `</stream:stream>`, or the end of the connection.
    Closed,
}

/// Reads frames. A read may be cancelled between any two bytes.
pub(crate) struct FrameReader<R> {
    reader: BufReader<R>,
    scanner: Scanner,
    /// The part of the stream that is being read, up to [`STANZA_BYTES_MAX`].
    part: Vec<u8>,
    /// The namespaces that the stream header declares.
    prefixes: BTreeMap<Option<String>, String>,
    /// True if a stanza without a prefix is in the stream's own namespace.
    is_plain: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_BUFFER_BYTES, reader),
            scanner: Scanner::default(),
            part: Vec::new(),
            prefixes: BTreeMap::new(),
            is_plain: false,
        }
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// The connection failed, or the bytes are no stream.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(Frame::Closed);
            }
            let (length, part) = self.scanner.scan(bytes)?;
            // White space between stanzas keeps a connection alive. It would add up here.
            let piece =
                if self.part.is_empty() { bytes[..length].trim_ascii_start() } else { &bytes[..length] };
            // Prosody passes on carriage returns in attributes unescaped, which the parser refuses. XML reads them as
            // line feeds (XML 1.0 §2.11).
            let line_feeds = piece.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte });
            self.part.extend(line_feeds.take(STANZA_BYTES_MAX - self.part.len()));
            self.reader.consume(length);
            let Some(part) = part else { continue };
            let bytes = mem::take(&mut self.part);
            match part {
                Part::Header => return self.header(&bytes).map(Frame::Opened),
                Part::Footer => return Ok(Frame::Closed),
                Part::Child => {
                    if self.is_plain
                        && let Some(result) = PlainResult::read(&bytes)
                    {
                        self.part = bytes;
                        self.part.clear();
                        return Ok(Frame::Result(result));
                    }
                    if let Some(frame) = parse_stanza(&bytes, &self.prefixes) {
                        return Ok(frame);
                    }
                }
            }
        }
    }

    /// Takes the namespaces of the stream header. Returns its id.
    fn header(&mut self, mut bytes: &[u8]) -> io::Result<String> {
        let mut parser = RawParser::new();
        let mut id = String::new();
        loop {
            match parser.parse(&mut bytes, false) {
                Ok(Some(RawEvent::Attribute(_, (None, name), value))) if name == "id" => id = value,
                Ok(Some(RawEvent::Attribute(_, (None, name), value))) if name == "xmlns" => {
                    self.prefixes.insert(None, as_client(value));
                }
                Ok(Some(RawEvent::Attribute(_, (Some(xmlns), prefix), value))) if xmlns == "xmlns" => {
                    self.prefixes.insert(Some(prefix.to_string()), value);
                }
                Ok(Some(RawEvent::ElementHeadClose(_))) => {
                    self.is_plain = self.prefixes.get(&None).is_some_and(|ns| ns == ns::JABBER_CLIENT);
                    return Ok(id);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the stream's header is not XML"));
                }
            }
        }
    }
}

/// Parses a stanza as far as it goes. Returns `None` if even its own head is bad: nothing could answer it.
pub(super) fn parse_stanza(mut bytes: &[u8], prefixes: &BTreeMap<Option<String>, String>) -> Option<Frame> {
    let mut parser =
        RawParser::with_options(Options { max_token_length: STANZA_BYTES_MAX, ..Options::default() });
    let mut builder = TreeBuilder::new().with_prefixes_stack(vec![prefixes.clone().into()]);
    let mut parts = 0;
    while builder.root.is_none() {
        let built = match parser.parse(&mut bytes, true) {
            Ok(Some(event)) => {
                parts +=
                    usize::from(matches!(event, RawEvent::ElementHeadOpen(..) | RawEvent::Attribute(..)));
                parts <= PARTS_MAX
                    && builder.depth() < DEPTH_MAX
                    && builder.process_event(in_client(event)).is_ok()
            }
            Ok(None) | Err(_) => false,
        };
        if !built {
            const FOOT: RawEvent = RawEvent::ElementFoot(EventMetrics::zero());
            while builder.depth() > 0 && builder.process_event(FOOT).is_ok() {}
            return builder.root.map(Frame::Damaged);
        }
    }
    builder.root.map(Frame::Element)
}

fn in_client(event: RawEvent) -> RawEvent {
    match event {
        RawEvent::Attribute(metrics, (None, name), value) if name == "xmlns" => {
            RawEvent::Attribute(metrics, (None, name), as_client(value))
        }
        event => event,
    }
}

fn as_client(namespace: String) -> String {
    if namespace == ns::COMPONENT_ACCEPT { ns::JABBER_CLIENT.to_owned() } else { namespace }
}

/// Returns the header that opens our side of the stream.
pub(crate) fn stream_header(component: &str) -> String {
    // A domain holds no character that needs escaping.
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{component}'>",
        ns::COMPONENT_ACCEPT,
        ns::STREAM,
    )
}

/// The end tag that closes our side of the stream.
pub(crate) const STREAM_FOOTER: &str = "</stream:stream>";

/// Serializes a stanza in the stream's own namespace.
pub(crate) fn serialize(stanza: &Element) -> String {
    let xml = String::from(stanza);
    // The root declares its namespace right after its name. Without the declaration, it takes the stream's.
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
        let long_attribute = format!("<a b='{}'/>", "x".repeat(STANZA_BYTES_MAX - 100));
        let reserved = "<a xmlns='http://www.w3.org/XML/1998/namespace'/>";
        let children = format!("<a>{}</a>", "<b/>".repeat(PARTS_MAX));
        let attributes: String = (0..PARTS_MAX).map(|number| format!(" a{number}=''")).collect();
        let attributes = format!("<a{attributes}/>");
        let payloads = [
            &*deep,
            &large,
            &children,
            &attributes,
            "<no:prefix/>",
            "<a no:b='c'/>",
            reserved,
            "<a b='c' b='&no;'/>",
        ];
        for payload in payloads {
            let frames = frames(&format!("<iq id='1' from='a@b/c'>{payload}</iq><after/>")).await;
            let [_, Frame::Damaged(iq), Frame::Element(after)] = &frames[..] else { panic!("{payload:.20}") };
            assert_eq!((iq.attr("id"), iq.attr("from"), after.name()), (Some("1"), Some("a@b/c"), "after"));
        }
        let frames = frames(&format!("<no:iq/><iq no:id='1'/><iq id='1'>{long_attribute}</iq>")).await;
        assert!(matches!(&frames[..], [_, Frame::Element(_)]), "{}", frames.len());
    }

    /// ejabberd's error holds the push that it answers.
    #[tokio::test]
    async fn the_largest_push_comes_back_whole() {
        let body = "A".repeat((4096 + 2048_usize).div_ceil(3) * 4);
        let echo = format!("<push xmlns='http://gultsch.de/xmpp/drafts/unified-push'>{body}</push>");
        let xml = format!("<iq type='error' id='1' from='a@b/c'>{echo}<error type='cancel'/></iq>");
        assert!(matches!(&frames(&xml).await[..], [_, Frame::Element(_)]));
    }

    #[tokio::test]
    async fn a_carriage_return_in_an_attribute_is_a_line_feed() {
        let frames = frames("<iq id='1\r2'><a xmlns='b' c='d\re'/></iq>").await;
        let [_, Frame::Element(iq)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(iq.attr("id"), Some("1 2"));
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
