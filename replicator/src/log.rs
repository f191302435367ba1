//! The entries of the replication log and their durable form (docs/formats/log-entry.md).
//!
//! An entry is a record of kind `LogEntry`: its stamp, its place, the cursors of its partition at its origin, and
//! the mutation as the index encoded it. It goes through every datacenter as the same bytes, because the chained
//! hash of a position covers them (rule 7). What a mutation means is not known here.
//!
//! Invariants: encoding is a function of the entry alone; bytes that fail the checksum or leave a rest are refused.

use bytes::Bytes;
use meridian_types::{
    EntryHash, Incarnation, LogPosition, RecordError, RecordKind, Sequence, Stamp, Timestamp, decode_record,
    encode_record,
};
use serde::{Deserialize, Serialize};

use crate::{CursorVector, OriginCursor};

/// The newest version of the durable form that this program writes and reads.
const LOG_ENTRY_VERSION: u8 = 1;

/// One mutation in the log of its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub stamp: Stamp,
    pub incarnation: Incarnation,
    /// Dense from 1 in the origin's log of this partition; a new incarnation goes on counting.
    pub sequence: Sequence,
    /// What the origin had applied of the others' logs of this partition, as of apply (rule 16).
    pub cursors: CursorVector,
    /// Encoded by the index.
    pub mutation: Bytes,
}

impl LogEntry {
    pub fn encode(&self) -> Vec<u8> {
        encode_record(RecordKind::LogEntry, LOG_ENTRY_VERSION, self)
    }

    /// # Errors
    /// Says which check failed; nothing of an entry that fails one is returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(RecordKind::LogEntry, LOG_ENTRY_VERSION, bytes)
    }

    /// The place of the entry without its hash.
    pub fn cursor(&self) -> OriginCursor {
        OriginCursor { incarnation: self.incarnation, sequence: self.sequence }
    }

    /// The position of the entry, whose encoded form is `encoded`, behind the history that ends in `before`.
    pub fn position_after(&self, before: EntryHash, encoded: &[u8]) -> LogPosition {
        LogPosition {
            origin: self.stamp.datacenter,
            incarnation: self.incarnation,
            sequence: self.sequence,
            hash: before.chain(encoded),
        }
    }
}

/// Where a log ends: the position of its last entry, and the timestamp at or below which it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    pub position: LogPosition,
    /// No entry with a stamp at or below this will follow; at least the last entry's own timestamp.
    pub closed: Timestamp,
}

#[cfg(test)]
mod tests {
    use meridian_types::DatacenterId;
    use proptest::prelude::*;

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    fn golden() -> LogEntry {
        let at = |incarnation, sequence| OriginCursor {
            incarnation: Incarnation(incarnation),
            sequence: Sequence(sequence),
        };
        LogEntry {
            stamp: Stamp::new(Timestamp::from_raw((1 << 42) + 5), dc(2)),
            incarnation: Incarnation(1),
            sequence: Sequence(300),
            cursors: [(dc(1), at(1, 128)), (dc(3), at(2, 1))].into_iter().collect(),
            mutation: Bytes::from_static(b"mutation"),
        }
    }

    #[test]
    fn golden_bytes() {
        let encoded = golden().encode();
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(LogEntry::decode(&encoded).unwrap(), golden());
    }

    /// Also in docs/formats/log-entry.md; on disk for ever.
    const GOLDEN: &str = "0201858080808080010201ac020201018001030201086d75746174696f6ec4d8d97e";

    #[test]
    fn the_position_of_an_entry_covers_the_history_before_it() {
        let encoded = golden().encode();
        let position = golden().position_after(EntryHash::START, &encoded);
        assert_eq!((position.origin, position.incarnation, position.sequence), (dc(2), Incarnation(1), Sequence(300)));
        assert_eq!(OriginCursor::from(position), golden().cursor());
        assert_ne!(position.hash, golden().position_after(position.hash, &encoded).hash);
    }

    prop_compose! {
        fn any_entry()(
            raw: u64, id in 1u8..=254, incarnation: u32, sequence: u64,
            cursors in prop::collection::vec((1u8..=254, any::<u32>(), any::<u64>()), 0..5),
            mutation in prop::collection::vec(any::<u8>(), 0..200),
        ) -> LogEntry {
            LogEntry {
                stamp: Stamp::new(Timestamp::from_raw(raw), dc(id)),
                incarnation: Incarnation(incarnation),
                sequence: Sequence(sequence),
                cursors: cursors
                    .into_iter()
                    .map(|(id, inc, seq)| {
                        (dc(id), OriginCursor { incarnation: Incarnation(inc), sequence: Sequence(seq) })
                    })
                    .collect(),
                mutation: Bytes::from(mutation),
            }
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in any_entry()) {
            prop_assert_eq!(LogEntry::decode(&entry.encode()).unwrap(), entry);
        }

        #[test]
        fn every_flipped_bit_and_every_cut_is_refused(entry in any_entry(), place: prop::sample::Index) {
            let encoded = entry.encode();
            let bit = place.index(encoded.len() * 8);
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(LogEntry::decode(&flipped).is_err());
            prop_assert!(LogEntry::decode(&encoded[..bit / 8]).is_err());
        }

        #[test]
        fn a_record_with_any_body_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let framed = encode_record(RecordKind::LogEntry, LOG_ENTRY_VERSION, &bytes);
            let _ = (LogEntry::decode(&framed), LogEntry::decode(&bytes)); // whatever they say, without a panic
        }
    }
}
