//! Finds where the parts of a stream begin and end, by its tags alone.
//!
//! The XMPP server has checked that the XML is well-formed. A parser that is stricter, or has a bug, must not cost the
//! stream. Comments, processing instructions and DTDs do not come here (RFC 6120 §11.1).

use std::io;

/// The part of the stream that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The start tag of the stream, with the XML declaration before it.
    Header,
    /// A child of the stream, with the white space before it.
    Child,
    /// The end tag of the stream.
    Footer,
}

/// The place of the next byte in the XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Text,
    /// After `<`.
    Tag,
    StartTag,
    /// After a `/` in a start tag.
    Slash,
    /// In an attribute's value, up to this quotation mark.
    Value(u8),
    EndTag,
    /// In the XML declaration.
    Declaration,
    /// In a CDATA section, after this many of the `]]` that may end it.
    CData(u8),
}

/// Scans a stream byte by byte, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    place: Place,
    /// Number of open elements, including the stream's own.
    depth: usize,
}

impl Scanner {
    /// Goes on to the end of the bytes, or of the part that ends in them. Returns the number of bytes that this took,
    /// and the part that has ended.
    ///
    /// # Errors
    /// Text comes where the stream should begin.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> io::Result<(usize, Option<Part>)> {
        for (index, byte) in bytes.iter().enumerate() {
            if self.depth == 0 && self.place == Place::Text && *byte != b'<' && !byte.is_ascii_whitespace() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is not XML"));
            }
            if let Some(part) = self.step(*byte) {
                return Ok((index + 1, Some(part)));
            }
        }
        Ok((bytes.len(), None))
    }

    fn step(&mut self, byte: u8) -> Option<Part> {
        self.place = match (self.place, byte) {
            (Place::Text, b'<') => Place::Tag,
            (Place::Tag, b'/') => Place::EndTag,
            (Place::Tag, b'?') => Place::Declaration,
            (Place::Tag, b'!') => Place::CData(0),
            (Place::StartTag | Place::Slash, b'"' | b'\'') => Place::Value(byte),
            (Place::Value(quote), _) if quote == byte => Place::StartTag,
            (Place::StartTag, b'/') => Place::Slash,
            (Place::Tag | Place::StartTag, b'>') => {
                self.place = Place::Text;
                self.depth += 1;
                return (self.depth == 1).then_some(Part::Header);
            }
            (Place::Slash, b'>') => {
                self.place = Place::Text;
                return self.ended();
            }
            (Place::EndTag, b'>') => {
                self.place = Place::Text;
                self.depth = self.depth.saturating_sub(1);
                return self.ended();
            }
            (Place::Declaration, b'>') | (Place::CData(2..), b'>') => Place::Text,
            (Place::CData(brackets), b']') => Place::CData(brackets.saturating_add(1)),
            (Place::CData(_), _) => Place::CData(0),
            (Place::Tag | Place::Slash, _) => Place::StartTag,
            (place, _) => place,
        };
        None
    }

    fn ended(&self) -> Option<Part> {
        match self.depth {
            0 => Some(Part::Footer),
            1 => Some(Part::Child),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "<?xml version='1.0'?> <s:stream id='>' a=\"'/>\">\
        <iq/> <iq a='/>'><b><c/></b>text ]]> / ></iq>\n\
        <m><![CDATA[</m> ] ]] ]]]></m ></s:stream>";

    /// Returns the parts of a stream that comes in pieces of these sizes.
    fn parts(sizes: &[usize]) -> Vec<(Part, String)> {
        let mut scanner = Scanner::default();
        let (mut rest, mut part, mut parts) = (STREAM.as_bytes(), Vec::new(), Vec::new());
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let mut piece = &rest[..rest.len().min(*sizes.next().unwrap())];
            rest = &rest[piece.len()..];
            while !piece.is_empty() {
                let (length, ended) = scanner.scan(piece).unwrap();
                part.extend(&piece[..length]);
                piece = &piece[length..];
                if let Some(ended) = ended {
                    parts.push((ended, String::from_utf8(std::mem::take(&mut part)).unwrap()));
                }
            }
        }
        parts
    }

    #[test]
    fn tags_tell_where_stanzas_end_and_values_and_text_do_not() {
        let parts = parts(&[1000]);
        let kinds: Vec<_> = parts.iter().map(|(part, _)| *part).collect();
        assert_eq!(kinds, [Part::Header, Part::Child, Part::Child, Part::Child, Part::Footer]);
        assert!(parts[2].1.ends_with("/ ></iq>") && parts[3].1.ends_with("</m >"), "{parts:?}");
    }

    #[test]
    fn what_does_not_begin_like_xml_is_an_error() {
        assert!(Scanner::default().scan(b"HTTP/1.1 400 Bad Request").is_err());
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(sizes in prop::collection::vec(1usize..20, 1..20)) {
            prop_assert_eq!(parts(&sizes), parts(&[1000]));
        }

        #[test]
        fn any_bytes_are_scanned(bytes: Vec<u8>) {
            let mut scanner = Scanner::default();
            let mut rest = &bytes[..];
            while let Ok((length, Some(_))) = scanner.scan(rest) {
                rest = &rest[length..];
            }
        }
    }
}
