//! From the fields of a message to the types of the program and back. A field is parsed here or refused; no
//! number is cut to fit.
//!
//! Each function takes the field's name for the error, which says what was wrong without repeating a long value.

use bytes::Bytes;
use meridian_types::limits::PARTITIONS_MAX;
use meridian_types::{
    BucketId, ClusterId, DatacenterId, EntryHash, Incarnation, LogPosition, PartitionId, ReplicaCode, Sequence,
    VolumeId,
};

use crate::common::{PartitionPosition, Position};
use crate::limits::DETAIL_LENGTH_MAX;

/// A field that is missing or out of range. As a `tonic::Status`: INVALID_ARGUMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} must be {expected} bytes, got {got}")]
    Length { field: &'static str, expected: usize, got: usize },
    #[error("{field}: {reason}")]
    Range { field: &'static str, reason: String },
}

impl From<FieldError> for tonic::Status {
    fn from(error: FieldError) -> Self {
        tonic::Status::invalid_argument(error.to_string())
    }
}

fn range(field: &'static str, reason: impl ToString) -> FieldError {
    FieldError::Range { field, reason: reason.to_string() }
}

/// # Errors
/// `Missing` for a message field that was not set.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or(FieldError::Missing { field })
}

/// # Errors
/// `Length` unless there are exactly 16 bytes.
pub fn bytes16(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], FieldError> {
    bytes.try_into().map_err(|_| FieldError::Length { field, expected: 16, got: bytes.len() })
}

/// # Errors
/// `Length`.
pub fn cluster(field: &'static str, bytes: &[u8]) -> Result<ClusterId, FieldError> {
    bytes16(field, bytes).map(ClusterId)
}

/// # Errors
/// `Length`.
pub fn bucket(field: &'static str, bytes: &[u8]) -> Result<BucketId, FieldError> {
    bytes16(field, bytes).map(BucketId)
}

/// # Errors
/// `Range` outside of 1..=254.
pub fn datacenter(field: &'static str, value: u32) -> Result<DatacenterId, FieldError> {
    let id = u8::try_from(value).map_err(|_| range(field, format_args!("datacenter id {value} is outside 1..=254")))?;
    DatacenterId::new(id).map_err(|error| range(field, error))
}

/// A partition below `PARTITIONS_MAX`, or the catalog. Whether the cluster has it is for the caller to say.
///
/// # Errors
/// `Range`.
pub fn partition(field: &'static str, value: u32) -> Result<PartitionId, FieldError> {
    let partition = u16::try_from(value).map(PartitionId).ok();
    partition
        .filter(|id| id.is_catalog() || id.0 < PARTITIONS_MAX)
        .ok_or_else(|| range(field, format_args!("there is no partition {value}")))
}

/// # Errors
/// `Range` when the low byte is no datacenter.
pub fn volume(field: &'static str, value: u32) -> Result<VolumeId, FieldError> {
    VolumeId::from_raw(value).map_err(|error| range(field, error))
}

/// # Errors
/// `Range` unless it is three digits.
pub fn code(field: &'static str, text: &str) -> Result<ReplicaCode, FieldError> {
    text.parse().map_err(|error| range(field, error))
}

/// The log position in a message field.
///
/// # Errors
/// `Missing`, `Length` or `Range`, also for a position before the first entry with a hash, or behind it without one.
pub fn position(field: &'static str, value: Option<&Position>) -> Result<LogPosition, FieldError> {
    let value = required(field, value)?;
    let position = LogPosition {
        origin: datacenter(field, value.origin)?,
        incarnation: Incarnation(value.incarnation),
        sequence: Sequence(value.sequence),
        hash: EntryHash(bytes16(field, &value.hash)?),
    };
    if (position.sequence == Sequence::ZERO) != (position.hash == EntryHash::START) {
        return Err(range(field, "only the place before the first entry has the hash of zeros"));
    }
    Ok(position)
}

/// A text for an operator from a peer: cut to `DETAIL_LENGTH_MAX` characters, control characters replaced, so that
/// it can stand in a log line or on a screen.
pub fn detail(text: &str) -> String {
    text.chars().take(DETAIL_LENGTH_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<LogPosition> for Position {
    fn from(position: LogPosition) -> Self {
        Self {
            origin: u32::from(position.origin.get()),
            incarnation: position.incarnation.0,
            sequence: position.sequence.0,
            hash: Bytes::copy_from_slice(&position.hash.0),
        }
    }
}

impl From<(PartitionId, LogPosition)> for PartitionPosition {
    fn from((partition, position): (PartitionId, LogPosition)) -> Self {
        Self { partition: u32::from(partition.0), position: Some(position.into()) }
    }
}

impl TryFrom<&PartitionPosition> for (PartitionId, LogPosition) {
    type Error = FieldError;

    fn try_from(value: &PartitionPosition) -> Result<Self, FieldError> {
        Ok((partition("partition", value.partition)?, position("position", value.position.as_ref())?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use prost::Message;

    use super::*;

    fn example() -> LogPosition {
        LogPosition {
            origin: DatacenterId::new(3).unwrap(),
            incarnation: Incarnation(2),
            sequence: Sequence(500),
            hash: EntryHash([7; 16]),
        }
    }

    #[test]
    fn a_position_has_these_bytes() {
        let bytes = Position::from(example()).encode_to_vec();
        let mut golden = vec![0x08, 3, 0x10, 2, 0x18, 0xf4, 0x03, 0x22, 16];
        golden.extend_from_slice(&[7; 16]);
        assert_eq!(bytes, golden);
        let decoded = Position::decode(&bytes[..]).unwrap();
        assert_eq!(position("position", Some(&decoded)), Ok(example()));
    }

    #[test]
    fn the_start_of_a_log_round_trips() {
        let start = LogPosition::start(DatacenterId::new(254).unwrap());
        assert_eq!(position("position", Some(&start.into())), Ok(start));
    }

    #[test]
    fn positions_that_can_not_be_are_refused() {
        assert_eq!(position("after", None), Err(FieldError::Missing { field: "after" }));
        let good = Position::from(example());
        for bad in [
            Position { origin: 0, ..good.clone() },
            Position { origin: 255, ..good.clone() },
            Position { origin: 259, ..good.clone() },
            Position { hash: Bytes::new(), ..good.clone() },
            Position { hash: Bytes::from_static(&[7; 17]), ..good.clone() },
            Position { hash: Bytes::from_static(&[0; 16]), ..good.clone() },
            Position { sequence: 0, ..good.clone() },
        ] {
            let error = position("after", Some(&bad)).unwrap_err();
            assert_eq!(tonic::Status::from(error).code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn partitions_are_not_cut_to_sixteen_bits() {
        assert_eq!(partition("partition", 4095), Ok(PartitionId(4095)));
        assert_eq!(partition("partition", 65_535), Ok(PartitionId::CATALOG));
        for bad in [4096, 65_534, 65_536, u32::MAX] {
            assert!(partition("partition", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_codes_and_buckets_are_checked() {
        assert!(volume("volume", 0x0703).is_ok() && volume("volume", 0x0700).is_err());
        assert!(code("code", "200").is_ok() && code("code", "2000").is_err() && code("code", "").is_err());
        assert!(bucket("bucket", &[1; 16]).is_ok() && bucket("bucket", &[1; 15]).is_err());
    }

    #[test]
    fn a_text_from_a_peer_is_cut_and_made_printable() {
        assert_eq!(detail("a\nb\u{1b}[31mc"), "a b [31mc");
        assert_eq!(detail(&"é".repeat(9999)).chars().count(), DETAIL_LENGTH_MAX);
    }

    proptest! {
        #[test]
        fn partition_positions_round_trip(p in 0u16..4096, dc in 1u8..=254, incarnation: u32, seq in 1u64.., tag in 1u8..) {
            let position = LogPosition {
                origin: DatacenterId::new(dc).unwrap(),
                incarnation: Incarnation(incarnation),
                sequence: Sequence(seq),
                hash: EntryHash([tag; 16]),
            };
            let bytes = PartitionPosition::from((PartitionId(p), position)).encode_to_vec();
            let back = PartitionPosition::decode(&bytes[..]).unwrap();
            prop_assert_eq!(<(PartitionId, LogPosition)>::try_from(&back), Ok((PartitionId(p), position)));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = PartitionPosition::decode(&bytes[..]) {
                let _ = <(PartitionId, LogPosition)>::try_from(&message);
            }
        }
    }
}
