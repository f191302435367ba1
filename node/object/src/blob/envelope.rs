//! The head in front of a blob's data, inside its needle: docs/formats/blob.md.
//!
//! ```text
//!    0  magic     "Mb"
//!    2  version   u8   1
//!    3  zero
//!    4  head      u16  bytes of the head: the data starts there
//!    6  name      u8   bytes of the name
//!    7  type      u8   bytes of the media type
//!    8  modified  u64  Unix time in ms
//!   16  expires   u64  Unix time in ms; 0: never
//!   24  checksum  u64  CRC-64/NVME of the data: its entity tag
//!   32  name, then type, both UTF-8
//! ```
//!
//! The head stands in front, so that one read of a small blob has all of it. It needs no checksum of its own: it is data of
//! the needle, and so under the needle's.
//!
//! Invariants: what `decode` takes is what `encode` made; data that does not begin with a head is no blob.

use super::BLOB_WORD_LENGTH_MAX;

const MAGIC: [u8; 2] = *b"Mb";
const VERSION: u8 = 1;
const FIXED_SIZE: usize = 32;
/// Largest head, in bytes.
pub(super) const HEAD_SIZE_MAX: usize = FIXED_SIZE + 2 * BLOB_WORD_LENGTH_MAX;
const CHECKSUM_AT: usize = 24;

/// What a blob says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) modified_unix_ms: u64,
    /// 0: never.
    pub(super) expires_unix_ms: u64,
    pub(super) checksum: u64,
    pub(super) name: String,
    pub(super) content_type: String,
}

impl Head {
    /// Bytes of its encoding.
    pub(super) fn size(&self) -> usize {
        FIXED_SIZE + self.name.len() + self.content_type.len()
    }

    /// Both words have at most `BLOB_WORD_LENGTH_MAX` bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let word = |word: &str| u8::try_from(word.len()).expect("words were checked to fit a byte");
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, 0]);
        bytes.extend(u16::try_from(self.size()).expect("a head is at most HEAD_SIZE_MAX").to_le_bytes());
        bytes.extend([word(&self.name), word(&self.content_type)]);
        bytes.extend(self.modified_unix_ms.to_le_bytes());
        bytes.extend(self.expires_unix_ms.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(self.content_type.as_bytes());
        bytes
    }

    /// `None` for bytes that do not begin with a head.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_SIZE] = bytes.first_chunk()?;
        let u64_at = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let (size, name, content_type) =
            (usize::from(u16::from_le_bytes([fixed[4], fixed[5]])), usize::from(fixed[6]), usize::from(fixed[7]));
        let is_head = fixed[..2] == MAGIC && fixed[2] == VERSION && fixed[3] == 0;
        if !is_head || size != FIXED_SIZE + name + content_type {
            return None;
        }
        let words = bytes.get(FIXED_SIZE..size)?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(Self {
            modified_unix_ms: u64_at(8),
            expires_unix_ms: u64_at(16),
            checksum: u64_at(CHECKSUM_AT),
            name: text(&words[..name])?,
            content_type: text(&words[name..])?,
        })
    }
}

/// Writes the data's checksum into an encoded head: it is known only once the data has come.
pub(super) fn set_checksum(bytes: &mut [u8], checksum: u64) {
    bytes[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// The entity tag of a checksum, without quotes.
pub(super) fn etag(checksum: u64) -> String {
    format!("{checksum:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            modified_unix_ms: 0x0102_0304_0506,
            expires_unix_ms: 7,
            checksum: 0x1122_3344_5566_7788,
            name: "a.png".into(),
            content_type: "image/png".into(),
        }
    }

    #[test]
    fn golden_bytes_and_round_trip() {
        let bytes = head().encode();
        let golden =
            "4d620100 2e00 05 09 0605040302010000 0700000000000000 8877665544332211 612e706e67 696d6167652f706e67";
        assert_eq!(hex::encode(&bytes), golden.replace(' ', ""));
        assert_eq!((Head::decode(&bytes), bytes.len()), (Some(head()), head().size()));
        let followed = [bytes, b"data".to_vec()].concat();
        assert_eq!(Head::decode(&followed), Some(head()));
        let empty = Head { name: String::new(), content_type: String::new(), ..head() };
        assert_eq!(Head::decode(&empty.encode()), Some(empty));
    }

    #[test]
    fn what_is_cut_or_of_another_form_is_no_head() {
        let bytes = head().encode();
        for length in 0..bytes.len() {
            assert_eq!(Head::decode(&bytes[..length]), None, "cut at {length}");
        }
        for at in [0, 1, 2, 3, 4, 5, 6, 7] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Head::decode(&flipped), None, "byte {at}");
        }
        let mut no_text = bytes;
        no_text[32] = 0xff;
        assert_eq!(Head::decode(&no_text), None);
    }

    #[test]
    fn the_checksum_is_written_in_place() {
        let mut bytes = Head { checksum: 0, ..head() }.encode();
        set_checksum(&mut bytes, head().checksum);
        assert_eq!(Head::decode(&bytes), Some(head()));
        assert_eq!(etag(0xab), "00000000000000ab");
    }
}
