//! The frame of every small durable record: rows, log entries, configuration files of a node.
//!
//! ```text
//! kind u8 | version u8 | postcard body | crc32c u32 LE over all before it
//! ```
//!
//! The checksum stands last so that a record is framed in one pass; the kind comes first so that a record read
//! from the wrong place is refused by name. Kinds are explicit and never reused. See docs/formats/record.md.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a record holds. Never reuse a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    ObjectRow = 1,
    LogEntry = 2,
    Cursor = 3,
    PartitionState = 4,
    UploadRow = 5,
    PartRow = 6,
    RememberedRequest = 7,
    ReclaimRow = 8,
    ConflictRow = 9,
    BucketRow = 10,
    Command = 11,
    Response = 12,
    ControlCommand = 13,
    ControlState = 14,
    RaftEntry = 15,
    RaftVote = 16,
    RaftState = 17,
    ClockBound = 18,
    NodeIdentity = 19,
    FenceRow = 20,
    UserRow = 21,
    GroupSnapshot = 22,
    VolumeState = 23,
    StableRow = 30,
    GroupRow = 40,
    Seen = 50,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record of {length} bytes is too short")]
    Short { length: usize },
    #[error("expected a record of kind {expected:?}, found kind {found}")]
    Kind { expected: RecordKind, found: u8 },
    #[error("record of kind {kind:?} has version {found}, newest known {known}")]
    Version { kind: RecordKind, found: u8, known: u8 },
    #[error("record of kind {kind:?} fails its checksum")]
    Checksum { kind: RecordKind },
    #[error("record of kind {kind:?} does not decode: {reason}")]
    Body { kind: RecordKind, reason: String },
}

const HEADER_LENGTH: usize = 2;
const CHECKSUM_LENGTH: usize = 4;

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Frames `body` as a record of `kind`, `version`.
pub fn encode_record<T: Serialize>(kind: RecordKind, version: u8, body: &T) -> Vec<u8> {
    let bytes = postcard::to_extend(body, vec![kind as u8, version]).expect("our types serialise into memory");
    let mut bytes: Vec<u8> = bytes;
    let crc = checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks and opens a record; versions above `version` are refused, not guessed at.
///
/// # Errors
/// Says which check failed; nothing of a record that fails one is returned.
pub fn decode_record<T: DeserializeOwned>(kind: RecordKind, version: u8, bytes: &[u8]) -> Result<T, RecordError> {
    let (body, rest) = postcard::take_from_bytes(open_record(kind, version, bytes)?)
        .map_err(|error| RecordError::Body { kind, reason: error.to_string() })?;
    if !rest.is_empty() {
        return Err(RecordError::Body { kind, reason: format!("{} bytes too many", rest.len()) });
    }
    Ok(body)
}

/// The first fields of a record, borrowed from it: for those who need no more. `T` names these fields and no others.
///
/// # Errors
/// As `decode_record`: the whole record is checked.
pub fn decode_front<'r, T: Deserialize<'r>>(kind: RecordKind, version: u8, bytes: &'r [u8]) -> Result<T, RecordError> {
    let (front, _) = postcard::take_from_bytes(open_record(kind, version, bytes)?)
        .map_err(|error| RecordError::Body { kind, reason: error.to_string() })?;
    Ok(front)
}

/// The body of a record that is whole and of a known version.
fn open_record(kind: RecordKind, version: u8, bytes: &[u8]) -> Result<&[u8], RecordError> {
    if bytes.len() < HEADER_LENGTH + CHECKSUM_LENGTH {
        return Err(RecordError::Short { length: bytes.len() });
    }
    let (content, crc) = bytes.split_at(bytes.len() - CHECKSUM_LENGTH);
    if content[0] != kind as u8 {
        return Err(RecordError::Kind { expected: kind, found: content[0] });
    }
    if checksum(content) != u32::from_le_bytes(crc.try_into().expect("four bytes")) {
        return Err(RecordError::Checksum { kind });
    }
    if content[1] == 0 || content[1] > version {
        return Err(RecordError::Version { kind, found: content[1], known: version });
    }
    Ok(&content[HEADER_LENGTH..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let bytes = encode_record(RecordKind::Cursor, 1, &(7u32, "abc"));
        assert_eq!(hex::encode(&bytes), "030107036162639c6f7070");
        assert_eq!(decode_record::<(u32, String)>(RecordKind::Cursor, 1, &bytes).unwrap(), (7, "abc".to_owned()));
    }

    #[test]
    fn a_front_is_read_without_the_rest_and_only_of_a_whole_record() {
        let mut bytes = encode_record(RecordKind::Cursor, 1, &(7u32, "abc", 9u8));
        assert_eq!(decode_front::<(u32, &str)>(RecordKind::Cursor, 1, &bytes).unwrap(), (7, "abc"));
        assert!(matches!(decode_record::<(u32, String)>(RecordKind::Cursor, 1, &bytes), Err(RecordError::Body { .. })));
        bytes[7] ^= 1; // behind the front
        assert!(matches!(
            decode_front::<(u32, &str)>(RecordKind::Cursor, 1, &bytes),
            Err(RecordError::Checksum { .. })
        ));
    }

    #[test]
    fn wrong_kind_and_newer_version_are_refused() {
        let bytes = encode_record(RecordKind::Cursor, 2, &1u32);
        assert!(matches!(decode_record::<u32>(RecordKind::ObjectRow, 2, &bytes), Err(RecordError::Kind { .. })));
        assert!(matches!(decode_record::<u32>(RecordKind::Cursor, 1, &bytes), Err(RecordError::Version { .. })));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_and_cut_is_refused(body: Vec<u8>, flip: prop::sample::Index) {
            let bytes = encode_record(RecordKind::ObjectRow, 1, &body);
            let bit = flip.index(bytes.len() * 8);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_record::<Vec<u8>>(RecordKind::ObjectRow, 1, &flipped).is_err());
            prop_assert!(decode_record::<Vec<u8>>(RecordKind::ObjectRow, 1, &bytes[..bit / 8]).is_err());
        }
    }
}
