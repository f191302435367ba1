//! The codec of needles: the bytes of one blob in a volume file.
//!
//! ```text
//! header, 32 bytes, little-endian
//!    0  checksum u32   CRC32C, see below
//!    4  magic    "Mn"
//!    6  version  u8    1
//!    7  flags    u8    1: has a block table; 2: first of its group commit
//!    8  key      u64
//!   16  cookie   u32
//!   20  length   u32   of the data, in bytes
//!   24  stamp    u64
//! block table          only above 64 KiB of data: CRC32C u32 of each 64 KiB of data
//! data
//! padding              zeros up to a multiple of 8
//! ```
//!
//! The checksum covers where the needle stands (volume, generation, offset: 16 bytes that are not stored), the header from
//! byte 4 on, and then either the block table or, without one, the data. So a needle written to the wrong place does not
//! pass, nor does one inside the data of another (a volume file kept as an object), and a range of a large needle
//! is checked by its blocks alone. The checksum stands first because it is computed last and read first.
//! See docs/formats/volume.md.
//!
//! Invariants: whatever passes `verify` is exactly what `encode_front` and the data made at that place; every bit of it,
//! padding included, is covered.

use crc_fast::{CrcAlgorithm, Digest};
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Cookie, FileGeneration, NeedleKey, Timestamp, VolumeId};

/// Bytes of a needle's header.
pub const NEEDLE_HEADER_SIZE: usize = 32;
/// Bytes of data under one checksum of the block table; smaller needles have no table.
pub const BLOCK_SIZE: usize = 64 << 10;
/// Needles start and end at multiples of this.
pub const ALIGNMENT: u64 = 8;
/// Most bytes of a volume file that one needle takes.
pub const NEEDLE_SPAN_MAX: u64 = span(NEEDLE_SIZE_MAX as u32);

const MAGIC: [u8; 2] = *b"Mn";
const VERSION: u8 = 1;
const FLAG_BLOCKS: u8 = 1;
const FLAG_BATCH_FIRST: u8 = 2;
const CHECKSUM_SIZE: usize = 4;

/// Which file a checksum is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) volume: VolumeId,
    pub(crate) generation: FileGeneration,
}

impl FileIdentity {
    /// The bytes that stand for a place in this file in front of what a checksum covers.
    pub(crate) fn place(self, offset: u64) -> [u8; 16] {
        let mut place = [0; 16];
        place[..4].copy_from_slice(&self.volume.get().to_le_bytes());
        place[4..8].copy_from_slice(&self.generation.0.to_le_bytes());
        place[8..].copy_from_slice(&offset.to_le_bytes());
        place
    }
}

/// What a needle says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeedleHeader {
    pub(crate) key: NeedleKey,
    pub(crate) cookie: Cookie,
    /// Bytes of data.
    pub(crate) length: u32,
    pub(crate) stamp: Timestamp,
    /// The needles before it were durable when it was written.
    pub(crate) batch_first: bool,
}

/// Why bytes are not a needle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NeedleError {
    #[error("{needed} bytes are needed")]
    Short { needed: u64 },
    #[error("no needle starts here")]
    Header,
    #[error("the header or its data fails the checksum")]
    Checksum,
    #[error("block {0} fails its checksum")]
    Block(usize),
    #[error("the padding is not zero")]
    Padding,
}

/// CRC32C over pieces, one behind the other.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize() as u32
}

/// Bytes of the block table of a needle with `length` bytes of data.
pub(crate) const fn table_size(length: u32) -> usize {
    if length as usize <= BLOCK_SIZE { 0 } else { (length as usize).div_ceil(BLOCK_SIZE) * CHECKSUM_SIZE }
}

/// Bytes before the data.
pub(crate) const fn front_size(length: u32) -> usize {
    NEEDLE_HEADER_SIZE + table_size(length)
}

/// Bytes of the file that a needle with `length` bytes of data takes, padding included.
pub(crate) const fn span(length: u32) -> u64 {
    ((front_size(length) + length as usize) as u64).next_multiple_of(ALIGNMENT)
}

/// The block table of `data`: empty when it has none. Depends on nothing but the data.
pub(crate) fn block_table(data: &[u8]) -> Vec<u8> {
    if data.len() <= BLOCK_SIZE {
        return Vec::new();
    }
    data.chunks(BLOCK_SIZE).flat_map(|block| checksum(&[block]).to_le_bytes()).collect()
}

/// Header and block table of a needle at `offset`; the data and zeros up to `span` follow it in the file.
pub(crate) fn encode_front(
    identity: FileIdentity,
    offset: u64,
    header: &NeedleHeader,
    table: &[u8],
    data: &[u8],
) -> Vec<u8> {
    assert_eq!(header.length as usize, data.len(), "a header names its data's length");
    assert_eq!(table.len(), table_size(header.length), "a table has an entry for each block");
    let mut front = vec![0; NEEDLE_HEADER_SIZE];
    front[4..6].copy_from_slice(&MAGIC);
    front[6] = VERSION;
    front[7] = if table.is_empty() { 0 } else { FLAG_BLOCKS } | if header.batch_first { FLAG_BATCH_FIRST } else { 0 };
    front[8..16].copy_from_slice(&header.key.0.to_le_bytes());
    front[16..20].copy_from_slice(&header.cookie.0.to_le_bytes());
    front[20..24].copy_from_slice(&header.length.to_le_bytes());
    front[24..32].copy_from_slice(&header.stamp.raw().to_le_bytes());
    let covered = if table.is_empty() { data } else { table };
    let crc = checksum(&[&identity.place(offset), &front[CHECKSUM_SIZE..], covered]);
    front[..CHECKSUM_SIZE].copy_from_slice(&crc.to_le_bytes());
    front.extend_from_slice(table);
    front
}

/// Reads a header without its checksum: what it claims to be, if it can be a needle at all.
pub(crate) fn claimed(bytes: &[u8]) -> Option<NeedleHeader> {
    let bytes: &[u8; NEEDLE_HEADER_SIZE] = bytes.get(..NEEDLE_HEADER_SIZE)?.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (length, flags) = (u32_at(20), bytes[7]);
    let expected = if length as usize > BLOCK_SIZE { FLAG_BLOCKS } else { 0 };
    let plausible = bytes[4..6] == MAGIC
        && bytes[6] == VERSION
        && flags & !FLAG_BATCH_FIRST == expected
        && length as usize <= NEEDLE_SIZE_MAX;
    plausible.then(|| NeedleHeader {
        key: NeedleKey(u64_at(8)),
        cookie: Cookie(u32_at(16)),
        length,
        stamp: Timestamp::from_raw(u64_at(24)),
        batch_first: flags & FLAG_BATCH_FIRST != 0,
    })
}

/// Checks what the header's checksum covers: the front of a needle with a block table, all of one without.
///
/// `bytes` starts at the needle and may be longer.
pub(crate) fn verify_front(identity: FileIdentity, offset: u64, bytes: &[u8]) -> Result<NeedleHeader, NeedleError> {
    if bytes.len() < NEEDLE_HEADER_SIZE {
        return Err(NeedleError::Short { needed: NEEDLE_HEADER_SIZE as u64 });
    }
    let header = claimed(bytes).ok_or(NeedleError::Header)?;
    let covered_end = match table_size(header.length) {
        0 => NEEDLE_HEADER_SIZE + header.length as usize,
        table => NEEDLE_HEADER_SIZE + table,
    };
    let covered = bytes.get(CHECKSUM_SIZE..covered_end).ok_or(NeedleError::Short { needed: covered_end as u64 })?;
    if checksum(&[&identity.place(offset), covered]).to_le_bytes() != bytes[..CHECKSUM_SIZE] {
        return Err(NeedleError::Checksum);
    }
    Ok(header)
}

/// Checks a whole needle, every bit of it.
///
/// `bytes` starts at the needle and may be longer.
pub(crate) fn verify(identity: FileIdentity, offset: u64, bytes: &[u8]) -> Result<NeedleHeader, NeedleError> {
    let header = verify_front(identity, offset, bytes)?;
    let needed = span(header.length);
    if (bytes.len() as u64) < needed {
        return Err(NeedleError::Short { needed });
    }
    let (front, data_end) = (front_size(header.length), front_size(header.length) + header.length as usize);
    verify_blocks(&bytes[..front], 0, &bytes[front..data_end])?;
    if bytes[data_end..needed as usize].iter().any(|byte| *byte != 0) {
        return Err(NeedleError::Padding);
    }
    Ok(header)
}

/// Checks `data`, which starts at block `first`, against the table in `front`. Without a table there is nothing to check.
pub(crate) fn verify_blocks(front: &[u8], first: usize, data: &[u8]) -> Result<(), NeedleError> {
    let table = &front[NEEDLE_HEADER_SIZE..];
    if table.is_empty() {
        return Ok(());
    }
    for (block, bytes) in (first..).zip(data.chunks(BLOCK_SIZE)) {
        let entry = table.get(block * CHECKSUM_SIZE..(block + 1) * CHECKSUM_SIZE).ok_or(NeedleError::Block(block))?;
        if checksum(&[bytes]).to_le_bytes() != entry {
            return Err(NeedleError::Block(block));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
