//! `aws-chunked` bodies on their way to s3s, which holds a whole chunk in memory before it passes any byte of it on.
//!
//! ```text
//! SIZE[;chunk-signature=HEX64] CRLF data CRLF ... 0[;chunk-signature=HEX64] CRLF trailers
//! ```
//!
//! Unsigned chunks may be as large as the object (some clients send one chunk): they are cut into small ones, which
//! is allowed because nothing signs their borders. Signed chunks can't be cut, so their size is limited.
//!
//! Invariants: no byte of data is copied or held back; a body without its terminal chunk is incomplete.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>

use std::collections::VecDeque;

use bytes::Bytes;

use crate::context::BodyFault;

/// Largest signed chunk; clients send 64 KiB to 1 MiB.
pub(crate) const SIGNED_CHUNK_SIZE_MAX: u64 = 8 << 20;
/// Longest line before a chunk's data.
const SIZE_LINE_LENGTH_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkSigning {
    Signed,
    Unsigned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// So many bytes of the CRLF behind the data were seen.
    DataEnd(usize),
    /// After the terminal chunk: trailers, which s3s parses and limits.
    Tail,
}

/// Follows one body's frames.
#[derive(Debug)]
pub(crate) struct ChunkFrames {
    signing: ChunkSigning,
    state: State,
    line: Vec<u8>,
}

impl ChunkFrames {
    pub fn new(signing: ChunkSigning) -> Self {
        Self { signing, state: State::Size, line: Vec::new() }
    }

    /// Takes the next bytes and gives what s3s should see for them.
    ///
    /// # Errors
    /// `Framing` for lines that are no chunk size, `ChunkTooLarge`.
    pub fn feed(&mut self, mut input: Bytes, output: &mut VecDeque<Bytes>) -> Result<(), BodyFault> {
        let unsigned = self.signing == ChunkSigning::Unsigned;
        if !unsigned && !input.is_empty() {
            output.push_back(input.clone());
        }
        while !input.is_empty() {
            match self.state {
                State::Size => {
                    let Some(size) = self.size(&mut input)? else { continue };
                    if !unsigned && size > SIGNED_CHUNK_SIZE_MAX {
                        return Err(BodyFault::ChunkTooLarge);
                    }
                    if size == 0 && unsigned {
                        output.push_back(Bytes::from_static(b"0\r\n"));
                    }
                    self.state = if size == 0 { State::Tail } else { State::Data(size) };
                }
                State::Data(left) => {
                    let piece = input.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(input.len()));
                    let left = left - piece.len() as u64;
                    if unsigned {
                        output.push_back(Bytes::from(format!("{:x}\r\n", piece.len())));
                        output.push_back(piece);
                        output.push_back(Bytes::from_static(b"\r\n"));
                    }
                    self.state = if left == 0 { State::DataEnd(0) } else { State::Data(left) };
                }
                State::DataEnd(seen) => {
                    if input.split_to(1)[0] != b"\r\n"[seen] {
                        return Err(BodyFault::Framing);
                    }
                    self.state = if seen == 0 { State::DataEnd(1) } else { State::Size };
                }
                State::Tail => {
                    let tail = std::mem::take(&mut input);
                    if unsigned {
                        output.push_back(tail);
                    }
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// `Incomplete` when the body ends before its terminal chunk.
    pub fn finish(&self) -> Result<(), BodyFault> {
        if self.state == State::Tail { Ok(()) } else { Err(BodyFault::Incomplete) }
    }

    /// The size of the next chunk, once its line is complete.
    fn size(&mut self, input: &mut Bytes) -> Result<Option<u64>, BodyFault> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let part = input.split_to(end.map_or(input.len(), |end| end + 1));
        if self.line.len() + part.len() > SIZE_LINE_LENGTH_MAX {
            return Err(BodyFault::Framing);
        }
        self.line.extend_from_slice(&part);
        if end.is_none() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n").ok_or(BodyFault::Framing)?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BodyFault::Framing);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| BodyFault::Framing)?;
        u64::from_str_radix(digits, 16).map(Some).map_err(|_| BodyFault::Framing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(signing: ChunkSigning, pieces: &[&[u8]]) -> Result<Vec<u8>, BodyFault> {
        let (mut frames, mut output) = (ChunkFrames::new(signing), VecDeque::new());
        for piece in pieces {
            frames.feed(Bytes::copy_from_slice(piece), &mut output)?;
        }
        frames.finish()?;
        Ok(output.into_iter().flatten().collect())
    }

    /// What s3s reads out of frames: the data and the tail.
    fn unframe(mut framed: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = Vec::new();
        loop {
            let end = framed.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&framed[..end]).unwrap(), 16).unwrap();
            framed = &framed[end + 2..];
            if size == 0 {
                return (data, framed.to_vec());
            }
            data.extend_from_slice(&framed[..size]);
            assert_eq!(&framed[size..size + 2], b"\r\n");
            framed = &framed[size + 2..];
        }
    }

    #[test]
    fn signed_frames_pass_unchanged_up_to_the_limit() {
        let body = b"5;chunk-signature=00\r\nhello\r\n0;chunk-signature=11\r\n\r\n";
        assert_eq!(run(ChunkSigning::Signed, &[body]).unwrap(), body);
        let large = format!("{:x};chunk-signature=00\r\n", SIGNED_CHUNK_SIZE_MAX + 1);
        assert_eq!(run(ChunkSigning::Signed, &[large.as_bytes()]), Err(BodyFault::ChunkTooLarge));
        assert_eq!(run(ChunkSigning::Unsigned, &[large.as_bytes()]), Err(BodyFault::Incomplete));
    }

    #[test]
    fn a_large_unsigned_chunk_is_cut_where_it_arrived_in_pieces() {
        let framed =
            run(ChunkSigning::Unsigned, &[b"b\r\nhello", b" world", b"\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n"]);
        assert_eq!(framed.unwrap(), b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n");
    }

    #[test]
    fn broken_frames_are_refused() {
        for body in [
            &b"x\r\n"[..],
            b"5\nhello",
            b"5\r\nhelloXX0\r\n\r\n",
            b";\r\n",
            b"+5\r\nhello\r\n",
            b"11111111111111111\r\n",
        ] {
            assert_eq!(run(ChunkSigning::Unsigned, &[body]), Err(BodyFault::Framing), "{body:?}");
        }
        for body in [&b""[..], b"5", b"5\r\nhel", b"5\r\nhello\r\n"] {
            assert_eq!(run(ChunkSigning::Unsigned, &[body]), Err(BodyFault::Incomplete), "{body:?}");
        }
        let endless = vec![b'0'; SIZE_LINE_LENGTH_MAX + 1];
        assert_eq!(run(ChunkSigning::Unsigned, &[&endless]), Err(BodyFault::Framing));
    }

    proptest! {
        #[test]
        fn cutting_keeps_data_and_tail(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..5),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nt:1\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            let framed = run(ChunkSigning::Unsigned, &pieces).unwrap();
            prop_assert_eq!(unframe(&framed), (chunks.concat(), b"t:1\r\n\r\n".to_vec()));
            prop_assert_eq!(run(ChunkSigning::Signed, &pieces).unwrap(), body);
        }

        #[test]
        fn any_bytes_are_framed_or_refused(bytes: Vec<u8>) {
            let _ = run(ChunkSigning::Unsigned, &[&bytes]);
            let _ = run(ChunkSigning::Signed, &[&bytes]);
        }
    }
}
