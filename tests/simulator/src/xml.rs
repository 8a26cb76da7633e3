//! Reads the stanzas of relays and phones, as far as the simulator has to.

/// Takes the next whole piece from the front of the buffer: a stream header, a stanza, or the stream's end.
pub(crate) fn next_piece(buffer: &mut Vec<u8>) -> Option<String> {
    let (mut depth, mut at) = (0_i32, 0);
    while let Some(open) = buffer[at..].iter().position(|byte| *byte == b'<').map(|open| at + open) {
        let close = tag_end(&buffer[open..])? + open;
        let tag = &buffer[open..=close];
        let whole = if tag.starts_with(b"<?") {
            false
        } else if tag.starts_with(b"<stream:stream") || tag.starts_with(b"</stream:stream") {
            true
        } else if tag.starts_with(b"</") {
            depth -= 1;
            depth == 0
        } else if tag.ends_with(b"/>") {
            depth == 0
        } else {
            depth += 1;
            false
        };
        at = close + 1;
        if whole {
            let piece: Vec<u8> = buffer.drain(..at).collect();
            return Some(String::from_utf8_lossy(&piece).into_owned());
        }
    }
    None
}

/// Returns the index at which a tag ends. A `>` in a quoted value does not end it.
fn tag_end(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, b'>') => return Some(at),
            _ => {}
        }
    }
    None
}

/// Returns the tag that begins at the `number`th `<`, counted from 0.
fn tag(xml: &str, number: usize) -> Option<&str> {
    let start = xml.match_indices('<').nth(number)?.0;
    let end = tag_end(&xml.as_bytes()[start..])?;
    Some(&xml[start..=start + end])
}

/// Returns the name of the stanza (`number` 0), of its payload (1), or of an error's condition (2).
pub(crate) fn name(xml: &str, number: usize) -> &str {
    let tag = tag(xml, number).unwrap_or("<>");
    tag[1..].split([' ', '>', '/']).next().unwrap_or_default()
}

/// Returns an attribute of the stanza (`number` 0) or of its payload (1).
pub(crate) fn attribute(xml: &str, number: usize, name: &str) -> Option<String> {
    let tag = tag(xml, number)?;
    for quote in ['\'', '"'] {
        let begin = format!(" {name}={quote}");
        if let Some((_, rest)) = tag.split_once(&begin) {
            return rest.split(quote).next().map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_whole_and_one_at_a_time() {
        let text = "<?xml version='1.0'?><stream:stream to='a>b'><iq id='1'><x y='/>'>t</x><z/></iq><p/><iq";
        let mut buffer = text.as_bytes().to_vec();
        assert_eq!(next_piece(&mut buffer).unwrap(), "<?xml version='1.0'?><stream:stream to='a>b'>");
        let iq = next_piece(&mut buffer).unwrap();
        assert_eq!(iq, "<iq id='1'><x y='/>'>t</x><z/></iq>");
        assert_eq!((name(&iq, 1), attribute(&iq, 0, "id").as_deref()), ("x", Some("1")));
        assert_eq!(next_piece(&mut buffer).unwrap(), "<p/>");
        assert_eq!(next_piece(&mut buffer), None);
    }
}
