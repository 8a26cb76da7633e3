//! The heads of requests, read byte by byte: hyper silently drops a `Content-Length` beside a `Transfer-Encoding`.

/// Bytes of a line that are kept. They suffice to tell the headers' names from any other.
const NAME_BYTES_MAX: usize = 18;

/// Finds three headers in the head of a request: the two that tell where it ends, and `Host`.
///
/// A proxy in front may have read a request differently if it has both of the former, or two of the latter (RFC 9112
/// §3.2, §6.3, §11.2).
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// The beginning of the present line.
    line: Vec<u8>,
    lines: usize,
    has_length: bool,
    has_encoding: bool,
    hosts: usize,
    is_whole: bool,
}

impl Head {
    /// Reads bytes, up to the end of the head.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !self.is_whole && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let room = NAME_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&line[..line.len().min(room)]);
            if end.is_some() {
                self.end_line();
            }
            bytes = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
    }

    /// Returns whether the head is complete.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns whether two headers tell where the request ends, or which host it is for.
    pub(crate) fn is_ambiguous(&self) -> bool {
        (self.has_length && self.has_encoding) || self.hosts > 1
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if matches!(line.as_slice(), b"" | b"\r") {
            // Empty lines before a request are ignored (RFC 9112 §2.2).
            self.is_whole = self.lines > 0;
            return;
        }
        self.lines += 1;
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        self.has_length |= name.eq_ignore_ascii_case(b"content-length");
        self.has_encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        self.hosts += usize::from(name.eq_ignore_ascii_case(b"host"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        "\r\nPOST / HTTP/1.1\r\nContent-length: 3\r\nHost: a\r\nTRANSFER-ENCODING: chunked\r\n\r\n0\r\n\r\n";

    fn read(text: &str, piece: usize) -> Head {
        let mut head = Head::default();
        text.as_bytes().chunks(piece).for_each(|bytes| head.read(bytes));
        head
    }

    #[test]
    fn both_headers_are_seen_however_they_come() {
        for piece in 1..=BOTH.len() {
            let head = read(BOTH, piece);
            assert!(head.is_whole() && head.is_ambiguous(), "{piece}");
            let head = read(&BOTH.replace("\r\n", "\n"), piece);
            assert!(head.is_whole() && head.is_ambiguous(), "{piece}");
        }
    }

    #[test]
    fn a_request_is_of_one_host() {
        for (hosts, is_ambiguous) in [("", false), ("Host: a\r\n", false), ("Host: a\r\nHOST: a\r\n", true)] {
            let text = format!("POST / HTTP/1.1\r\n{hosts}X-Host: b\r\n\r\nHost: c\r\nHost: d\r\n\r\n");
            for piece in [1, 5, text.len()] {
                assert_eq!(read(&text, piece).is_ambiguous(), is_ambiguous, "{hosts}");
            }
        }
    }

    #[test]
    fn one_of_them_is_nothing_odd_nor_is_what_a_body_says() {
        for one in [
            "POST / HTTP/1.1\r\ncontent-length: 60\r\n\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx-content-length: 1\r\ncontent-length-x: 1\r\n\r\n",
            "GET /content-length: HTTP/1.1\r\ntransfer-encodings: x\r\nx: content-length: 3\r\n\r\n",
        ] {
            for piece in [1, 7, one.len()] {
                let head = read(one, piece);
                assert!(head.is_whole() && !head.is_ambiguous(), "{one}");
            }
        }
        assert!(!read("POST / HTTP/1.1\r\nhost: a\r\n", 3).is_whole());
    }
}
