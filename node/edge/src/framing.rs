//! Follows the framing of HTTP/1.1 requests on a connection and finds what lets two parsers disagree about where a
//! request ends (request smuggling): a bare line feed, a folded header, two lengths, a length beside an encoding.
//!
//! hyper tolerates some of these; RFC 9112 §2.2, §5.2 and §6.3 allow to refuse all of them. This module only watches:
//! it parses no more of a request than its framing, and leaves everything else to hyper.
//!
//! Invariants: a fixed amount of memory; bytes of bodies are counted, not looked at; what it can't follow (HTTP/2, an
//! unparsable length) it passes through from there on, because hyper refuses or speaks it.

/// Longest line whose content matters here; of longer ones only the start is kept.
const LINE_KEPT_MAX: usize = 128;
/// The request line of the HTTP/2 preface.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";

/// Why a request's framing is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    BareLineFeed,
    FoldedHeader,
    DuplicateLength,
    LengthAndEncoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the request line.
    RequestLine,
    Headers,
    /// So many bytes of body are left.
    Body(u64),
    ChunkSize,
    /// So many bytes of chunk data, its CRLF included, are left.
    ChunkData(u64),
    Trailers,
    /// Not followed any more.
    Through,
}

/// The place of one connection's inbound bytes in HTTP's framing.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    line: Vec<u8>,
    last_byte: u8,
    length: Option<u64>,
    length_seen: bool,
    encoded: bool,
    heads: u64,
}

impl Framing {
    pub fn new() -> Self {
        Self {
            state: State::RequestLine,
            line: Vec::with_capacity(LINE_KEPT_MAX),
            last_byte: 0,
            length: None,
            length_seen: false,
            encoded: false,
            heads: 0,
        }
    }

    /// Whole request heads seen (or an HTTP/2 preface).
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Follows the next bytes, and marks control characters in header lines as unreadable: hyper would end the connection
    /// for one without a word, where S3 tells what is wrong with that header. Nothing takes a marked byte for text.
    ///
    /// # Errors
    /// The violation, and how many of `bytes` stand before the line feed that completed it.
    pub fn feed(&mut self, bytes: &mut [u8]) -> Result<(), (usize, Violation)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            match self.state {
                State::Through => return Ok(()),
                State::Body(left) | State::ChunkData(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += taken as usize;
                    self.skip(left - taken);
                }
                State::RequestLine | State::Headers | State::ChunkSize | State::Trailers => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    if self.state == State::Headers {
                        let line_end = end.unwrap_or(rest.len());
                        rest[..line_end].iter_mut().filter(|byte| is_unreadable(**byte)).for_each(|byte| *byte |= 0x80);
                    }
                    self.keep(&rest[..end.unwrap_or(rest.len())]);
                    let Some(end) = end else { return Ok(()) };
                    self.line_ended().map_err(|violation| (at + end, violation))?;
                    at += end + 1;
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, left: u64) {
        self.state = match self.state {
            State::Body(_) if left == 0 => State::RequestLine,
            State::Body(_) => State::Body(left),
            _ if left == 0 => State::ChunkSize,
            _ => State::ChunkData(left),
        };
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(last) = part.last() {
            self.last_byte = *last;
        }
        let room = LINE_KEPT_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn line_ended(&mut self) -> Result<(), Violation> {
        let has_return = std::mem::take(&mut self.last_byte) == b'\r';
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if !has_return {
            return Err(Violation::BareLineFeed);
        }
        match self.state {
            State::RequestLine if line.is_empty() => {} // a spare CRLF between requests is allowed
            State::RequestLine if line == PREFACE_LINE => {
                self.heads += 1;
                self.state = State::Through;
            }
            State::RequestLine => {
                (self.length, self.length_seen, self.encoded) = (None, false, false);
                self.state = State::Headers;
            }
            State::Headers if line.is_empty() => {
                self.heads += 1;
                self.state = match (self.encoded, self.length_seen, self.length) {
                    (true, ..) => State::ChunkSize,
                    (false, true, None) => State::Through,
                    (false, _, None | Some(0)) => State::RequestLine,
                    (false, _, Some(length)) => State::Body(length),
                };
            }
            State::Headers => self.header(&line)?,
            State::ChunkSize => {
                self.state = match chunk_size(&line) {
                    Some(0) => State::Trailers,
                    Some(size) => State::ChunkData(size.saturating_add(2)),
                    None => State::Through,
                };
            }
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers | State::Body(_) | State::ChunkData(_) | State::Through => {}
        }
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Violation> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Violation::FoldedHeader);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if std::mem::replace(&mut self.length_seen, true) {
                return Err(Violation::DuplicateLength);
            }
            self.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        }
        if self.length_seen && self.encoded { Err(Violation::LengthAndEncoding) } else { Ok(()) }
    }
}

/// A control character that no header holds; NUL, returns and tabs are left to hyper.
fn is_unreadable(byte: u8) -> bool {
    matches!(byte, 0x01..=0x08 | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f)
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const PUT: &str = "PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\ncd";
    const CHUNKED: &str = "PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nx-t: 1\r\n\r\n";

    fn feed(text: &str) -> Result<u64, (usize, Violation)> {
        let mut framing = Framing::new();
        framing.feed(&mut text.as_bytes().to_vec()).map(|()| framing.heads())
    }

    #[test]
    fn whole_requests_follow_each_other() {
        assert_eq!(feed(&[GET, PUT, CHUNKED, "\r\n", PUT, GET].concat()), Ok(5));
    }

    #[test]
    fn ambiguous_framing_is_found_where_it_stands() {
        for (head, violation) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Violation::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Violation::BareLineFeed),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Violation::FoldedHeader),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", Violation::DuplicateLength),
            ("PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Violation::LengthAndEncoding),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n",
                Violation::LengthAndEncoding,
            ),
        ] {
            let (before, found) = feed(head).unwrap_err();
            assert_eq!((found, head.as_bytes()[before]), (violation, b'\n'), "{head:?}");
            let behind = [PUT, CHUNKED, head].concat();
            assert_eq!(feed(&behind).unwrap_err().1, violation, "pipelined {head:?}");
        }
    }

    #[test]
    fn control_characters_in_headers_alone_are_marked() {
        let head = b"PUT /\x07 HTTP/1.1\r\nA: \x07\tb\x7f\x00\r\nContent-Length: 2\r\n\r\n\x07\x08GET";
        let mut bytes = head.to_vec();
        assert_eq!(Framing::new().feed(&mut bytes), Ok(()));
        let marked = b"PUT /\x07 HTTP/1.1\r\nA: \x87\tb\xff\x00\r\nContent-Length: 2\r\n\r\n\x07\x08GET";
        assert_eq!(bytes, marked);
    }

    #[test]
    fn http2_and_unparsable_lengths_pass_through() {
        assert_eq!(feed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n"), Ok(1));
        assert_eq!(feed("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n\n\n"), Ok(1));
        assert_eq!(feed("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\n\n"), Ok(1));
    }

    proptest! {
        #[test]
        fn cuts_between_reads_change_nothing(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let bad = "GET / HTTP/1.1\r\nContent-Length: 5\r\nA: b\r\nContent-Length: 5\r\n\r\n";
            let mut text = [GET, PUT, CHUNKED, bad].concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.push(text.len());
            cuts.sort();
            let (mut framing, mut from, mut found) = (Framing::new(), 0, None);
            for to in cuts {
                if let Err((before, violation)) = framing.feed(&mut text[from..to]) {
                    found = Some((from + before, violation));
                    break;
                }
                from = to;
            }
            let (at, violation) = found.expect("the last request is bad");
            prop_assert_eq!((violation, framing.heads()), (Violation::DuplicateLength, 3));
            prop_assert_eq!(at, text.len() - 3);
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(mut bytes: Vec<u8>) {
            let _ = Framing::new().feed(&mut bytes);
        }
    }
}
