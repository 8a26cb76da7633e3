//! A minimal XML parser that tells pushes and answers apart. Its peers are known, and write well-formed XML.

use anyhow::{Context, ensure};

use super::journal::BODY_BYTES;

const BODY_BASE64_BYTES: usize = BODY_BYTES.div_ceil(3) * 4;
const PUSH_END: &[u8] = b"</push></iq>";
const IQ_END: &[u8] = b"</iq>";

/// A request to a phone.
pub struct Request<'a> {
    /// The IQ's id.
    pub id: &'a [u8],
    /// The sender.
    pub from: &'a [u8],
    /// The body of a push, in base64, of [`BODY_BYTES`]; `None`: a ping.
    pub push_base64: Option<&'a [u8]>,
}

/// Returns the request at the start of `bytes` and its length; `None` until it is complete.
///
/// # Errors
/// The stanza is neither a push nor a ping.
pub fn request(bytes: &[u8]) -> anyhow::Result<Option<(Request<'_>, usize)>> {
    let Some((iq, (payload, rest))) = tag(bytes).and_then(|(iq, rest)| Some((iq, tag(rest)?))) else {
        return Ok(None);
    };
    let is_ping = payload.starts_with(b"<ping ") && payload.ends_with(b"/");
    let (body_bytes, end) = if is_ping { (0, IQ_END) } else { (BODY_BASE64_BYTES, PUSH_END) };
    let Some((body, rest)) = rest.split_at_checked(body_bytes) else { return Ok(None) };
    let Some(found) = rest.get(..end.len()) else { return Ok(None) };
    let is_request = iq.starts_with(b"<iq ") && found == end;
    ensure!(is_request, "a phone got what is no push: {}", String::from_utf8_lossy(bytes));
    let attribute = |name| attribute(iq, name).with_context(|| format!("a request without {name}"));
    let request =
        Request { id: attribute("id")?, from: attribute("from")?, push_base64: (!is_ping).then_some(body) };
    Ok(Some((request, bytes.len() - rest.len() + end.len())))
}

/// Returns the length of the answer at the start of `bytes`; `None` until it is complete.
///
/// # Errors
/// The stanza is not a result.
pub fn answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some((iq, _)) = tag(bytes) else { return Ok(None) };
    let is_result = iq.starts_with(b"<iq ") && iq.ends_with(b"/") && attribute(iq, "type") == Some(b"result");
    ensure!(is_result, "a component got what is no answer: {}", String::from_utf8_lossy(bytes));
    Ok(Some(iq.len() + 1))
}

/// Returns an attribute's value without unescaping it.
pub fn attribute<'a>(tag: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    let is_here = |at: &usize| {
        tag[*at] == b' ' && tag[at + 1..].starts_with(name) && tag.get(at + 1 + name.len()) == Some(&b'=')
    };
    let value = (0..tag.len()).find(is_here)? + name.len() + 2;
    let quote = *tag.get(value)?;
    tag[value + 1..].split(|byte| *byte == quote).next()
}

/// Returns the tag at the start of `bytes` without its `>`, and the bytes after it.
fn tag(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'>')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}
