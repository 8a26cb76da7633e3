//! The entry points of the fuzz targets (`fuzz/`). Only the feature `fuzzing` compiles them.

use std::collections::BTreeMap;

use futures::FutureExt;
use tokio_xmpp::{jid::BareJid, parsers::ns};

use super::{
    framing::{Frame, FrameReader, parse_stanza, serialize},
    plain::PlainResult,
    stanza::Incoming,
};

const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
    xmlns='jabber:component:accept' id='s1' from='up.localhost'>";

/// Reads bytes as a stream, once as a whole and once in pieces of `piece` bytes, and checks that both find the same.
///
/// # Panics
/// A check fails.
pub fn stream(bytes: &[u8], piece: usize) {
    let document = [HEADER, bytes].concat();
    let whole = frames(FrameReader::new(document.as_slice()));
    let pieces = frames(FrameReader::new(Pieces { left: &document, piece: piece.max(1) }));
    assert_eq!(whole, pieces);
    if let Some(result) = PlainResult::read(bytes) {
        let prefixes = BTreeMap::from([(None, ns::JABBER_CLIENT.to_owned())]);
        let long_way = parse_stanza(bytes, &prefixes).expect("a stanza");
        assert_eq!(meaning(Frame::Result(result)), meaning(long_way), "read the short way and the long one");
    }
}

fn meaning(frame: Frame) -> String {
    format!("{:?}", Incoming::read(frame, &BareJid::new("up.localhost").expect("a domain")))
}

fn frames<R: tokio::io::AsyncRead + Unpin>(mut reader: FrameReader<R>) -> Vec<String> {
    let component = BareJid::new("up.localhost").expect("a domain");
    let mut found = Vec::new();
    while let Some(Ok(frame)) = reader.next().now_or_never() {
        match &frame {
            Frame::Closed => break,
            Frame::Opened(id) => found.push(format!("opened {id}")),
            Frame::Element(element) => found.push(serialize(element)),
            Frame::Result(result) => found.push(format!("{result:?}")),
            Frame::Damaged(element) => found.push(format!("damaged {}", serialize(element))),
        }
        let _ = Incoming::read(frame, &component);
    }
    found
}

/// A reader that gives `piece` bytes at a time.
struct Pieces<'a> {
    left: &'a [u8],
    piece: usize,
}

impl tokio::io::AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let (now, later) = self.left.split_at(self.piece.min(self.left.len()).min(buffer.remaining()));
        buffer.put_slice(now);
        self.left = later;
        std::task::Poll::Ready(Ok(()))
    }
}
