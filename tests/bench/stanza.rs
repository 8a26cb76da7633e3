//! As little XML as it takes to tell pushes and answers apart: the peers are known, and their output is
//! well-formed.

use anyhow::{Context, ensure};

use crate::journal::BODY_BYTES;

const BODY_BASE64_BYTES: usize = BODY_BYTES.div_ceil(3) * 4;
const PUSH_END: &[u8] = b"</push></iq>";

/// A push of [`BODY_BYTES`].
pub(crate) struct Push<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) from: &'a [u8],
    pub(crate) body_base64: &'a [u8],
}

/// The push at the start of `bytes`, and how many bytes it takes; `None` until it is whole.
pub(crate) fn push(bytes: &[u8]) -> anyhow::Result<Option<(Push<'_>, usize)>> {
    let Some((iq, body)) = tag(bytes).and_then(|(iq, rest)| Some((iq, tag(rest)?.1))) else {
        return Ok(None);
    };
    let Some((body_base64, rest)) = body.split_at_checked(BODY_BASE64_BYTES) else { return Ok(None) };
    let Some(end) = rest.get(..PUSH_END.len()) else { return Ok(None) };
    let is_push = iq.starts_with(b"<iq ") && end == PUSH_END;
    ensure!(is_push, "a phone got what is no push: {}", String::from_utf8_lossy(bytes));
    let attribute = |name| attribute(iq, name).with_context(|| format!("a push without {name}"));
    let push = Push { id: attribute("id")?, from: attribute("from")?, body_base64 };
    Ok(Some((push, bytes.len() - rest.len() + PUSH_END.len())))
}

/// How many bytes the answer at the start of `bytes` takes; `None` until it is whole.
pub(crate) fn answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some((iq, _)) = tag(bytes) else { return Ok(None) };
    let is_result = iq.starts_with(b"<iq ") && iq.ends_with(b"/") && attribute(iq, "type") == Some(b"result");
    ensure!(is_result, "a component got what is no answer: {}", String::from_utf8_lossy(bytes));
    Ok(Some(iq.len() + 1))
}

/// An attribute's value, as it is written.
pub(crate) fn attribute<'a>(tag: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    let is_here = |at: &usize| {
        tag[*at] == b' ' && tag[at + 1..].starts_with(name) && tag.get(at + 1 + name.len()) == Some(&b'=')
    };
    let value = (0..tag.len()).find(is_here)? + name.len() + 2;
    let quote = *tag.get(value)?;
    tag[value + 1..].split(|byte| *byte == quote).next()
}

/// The tag at the start of `bytes` without its `>`, and what follows it.
fn tag(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'>')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}
