//! How the log entries of one partition's batch are packed: an `EntryBlock`, plain or in one zstd frame.
//!
//! Layout (docs/formats/wire.md): the block is a protobuf message and not a framing of our own, so that opening it
//! yields slices of the received buffer. The count and the size before compression travel beside it: the opener
//! knows how much memory it takes before it spends any.
//!
//! Invariants: no more than the announced size is ever decompressed, and the announced size has a limit.

use bytes::Bytes;
use prost::Message;

use crate::limits::ENTRIES_SIZE_MAX;
use crate::replication::{EntryBlock, EntryEncoding, PartitionBatch};

/// Blocks below this are sent plain: a frame's overhead and the call cost more than they save.
const COMPRESS_SIZE_MIN: usize = 512;
/// zstd level 1: about 500 MB/s a core, and the metadata lane is mostly text and ids.
const COMPRESS_LEVEL: i32 = 1;

/// Why a block of entries is refused. The batch that carries it is not applied.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    #[error("a block of {size_bytes} bytes is above the limit of {ENTRIES_SIZE_MAX}")]
    TooLarge { size_bytes: usize },
    #[error("unknown entry encoding {0}")]
    Encoding(i32),
    #[error("the block has {got} bytes, announced were {announced}")]
    Size { announced: usize, got: usize },
    #[error("the block has {got} entries, announced were {announced}")]
    Count { announced: usize, got: usize },
    #[error("decompress the block: {0}")]
    Zstd(#[source] std::io::Error),
    #[error("decode the block: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// A packed block with the figures that travel beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedEntries {
    pub encoding: EntryEncoding,
    pub count: u32,
    /// Before compression.
    pub size_bytes: u32,
    pub bytes: Bytes,
}

impl PackedEntries {
    /// Puts the block into the batch that is to carry it.
    pub fn fill(self, batch: &mut PartitionBatch) {
        batch.encoding = self.encoding as i32;
        batch.entries_count = self.count;
        batch.entries_size_bytes = self.size_bytes;
        batch.entries = self.bytes;
    }
}

/// Packs `entries` in order; compresses them if the peer accepts it and it pays. Takes up to some milliseconds of
/// CPU for a full batch.
///
/// # Errors
/// `TooLarge` above `ENTRIES_SIZE_MAX`: take fewer entries.
pub fn pack_entries(entries: Vec<Bytes>, accept_zstd: bool) -> Result<PackedEntries, EntriesError> {
    let count = entries.len() as u32;
    let block = EntryBlock { entries };
    let size_bytes = block.encoded_len();
    if size_bytes > ENTRIES_SIZE_MAX {
        return Err(EntriesError::TooLarge { size_bytes });
    }
    let plain = block.encode_to_vec();
    let (encoding, bytes) = if accept_zstd && plain.len() >= COMPRESS_SIZE_MIN {
        let frame = zstd::bulk::compress(&plain, COMPRESS_LEVEL).map_err(EntriesError::Zstd)?;
        if frame.len() < plain.len() { (EntryEncoding::Zstd, frame) } else { (EntryEncoding::Plain, plain) }
    } else {
        (EntryEncoding::Plain, plain)
    };
    Ok(PackedEntries { encoding, count, size_bytes: size_bytes as u32, bytes: bytes.into() })
}

/// Opens the entries of a batch, in order. They are slices of one buffer.
///
/// # Errors
/// Says which announced figure does not hold; nothing of such a block is returned.
pub fn unpack_entries(batch: &PartitionBatch) -> Result<Vec<Bytes>, EntriesError> {
    let announced = batch.entries_size_bytes as usize;
    if announced > ENTRIES_SIZE_MAX {
        return Err(EntriesError::TooLarge { size_bytes: announced });
    }
    let encoding = EntryEncoding::try_from(batch.encoding).map_err(|_| EntriesError::Encoding(batch.encoding))?;
    let plain = match encoding {
        EntryEncoding::Plain => batch.entries.clone(),
        EntryEncoding::Zstd => zstd::bulk::decompress(&batch.entries, announced).map_err(EntriesError::Zstd)?.into(),
    };
    if plain.len() != announced {
        return Err(EntriesError::Size { announced, got: plain.len() });
    }
    let entries = EntryBlock::decode(plain)?.entries;
    if entries.len() != batch.entries_count as usize {
        return Err(EntriesError::Count { announced: batch.entries_count as usize, got: entries.len() });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::sample::Index;

    use super::*;

    fn batch(entries: Vec<Bytes>, accept_zstd: bool) -> PartitionBatch {
        let mut batch = PartitionBatch::default();
        pack_entries(entries, accept_zstd).unwrap().fill(&mut batch);
        batch
    }

    fn compressible() -> Vec<Bytes> {
        (0..64u8).map(|i| Bytes::from(vec![i; 200])).collect()
    }

    #[test]
    fn a_plain_block_has_these_bytes() {
        let batch = batch(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")], true);
        assert_eq!(&batch.entries[..], [0x0a, 2, b'a', b'b', 0x0a, 0, 0x0a, 1, b'c']);
        assert_eq!((batch.encoding, batch.entries_count, batch.entries_size_bytes), (0, 3, 9));
    }

    #[test]
    fn text_is_compressed_only_for_those_who_accept_it() {
        let (packed, plain) = (batch(compressible(), true), batch(compressible(), false));
        assert_eq!((packed.encoding, plain.encoding), (1, 0));
        assert!(packed.entries.len() < plain.entries.len() / 4);
        assert_eq!(unpack_entries(&packed).unwrap(), compressible());
        assert_eq!(unpack_entries(&plain).unwrap(), compressible());
    }

    #[test]
    fn a_frame_that_grows_past_its_announced_size_is_refused() {
        let bomb = PartitionBatch {
            encoding: EntryEncoding::Zstd as i32,
            entries_count: 1,
            entries_size_bytes: 1000,
            entries: zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap().into(),
            ..PartitionBatch::default()
        };
        assert!(matches!(unpack_entries(&bomb), Err(EntriesError::Zstd(_))));
        let greedy = PartitionBatch { entries_size_bytes: u32::MAX, ..bomb };
        assert!(matches!(unpack_entries(&greedy), Err(EntriesError::TooLarge { .. })));
    }

    #[test]
    fn figures_that_do_not_hold_are_refused() {
        let good = batch(compressible(), true);
        let size = good.entries_size_bytes;
        let wrong = PartitionBatch { entries_count: 63, ..good.clone() };
        assert!(matches!(unpack_entries(&wrong), Err(EntriesError::Count { announced: 63, got: 64 })));
        let wrong = PartitionBatch { entries_size_bytes: size + 1, ..good.clone() };
        assert!(matches!(unpack_entries(&wrong), Err(EntriesError::Size { .. })));
        let wrong = PartitionBatch { encoding: 9, ..good };
        assert!(matches!(unpack_entries(&wrong), Err(EntriesError::Encoding(9))));
    }

    #[test]
    fn a_block_above_the_limit_is_not_packed() {
        let entries = vec![Bytes::from(vec![0; 1 << 20]); 8];
        assert!(matches!(pack_entries(entries, true), Err(EntriesError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn entries_round_trip(entries in vec(vec(any::<u8>(), 0..300), 0..40), zstd: bool) {
            let entries: Vec<Bytes> = entries.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(unpack_entries(&batch(entries.clone(), zstd)).unwrap(), entries);
        }

        /// The entries' own records carry checksums; here a damaged block must be an error or other entries, no panic.
        #[test]
        fn damaged_blocks_never_panic(at in any::<Index>(), flip in 1u8.., cut in any::<Index>()) {
            let good = batch(compressible(), true);
            let mut bytes = good.entries.to_vec();
            let index = at.index(bytes.len());
            bytes[index] ^= flip;
            let _ = unpack_entries(&PartitionBatch { entries: bytes.into(), ..good.clone() });
            let short = good.entries.slice(..cut.index(good.entries.len()));
            assert!(unpack_entries(&PartitionBatch { entries: short, ..good }).is_err());
        }
    }
}
