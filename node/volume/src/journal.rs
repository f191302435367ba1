//! The index journal: which needles the volume file holds, so that a start need not read them.
//!
//! ```text
//! file header, 64 bytes (kind index), then blocks, each a multiple of 8 bytes:
//!    0  checksum  u32  CRC32C of the block's place in this file and of everything after this field
//!    4  magic     "Mi"
//!    6  kind      u8   1 needles · 2 damaged ranges
//!    7  zero      u8
//!    8  count     u32  of entries
//!   12  zero      u32
//!   16  from      u64  the volume file's bytes before `from` are told by the blocks before
//!   24  to        u64  those before `to` by this one too; all of them committed
//!   32  stamp     u64  of the last needle before `to`
//!   40  entries   needles: key u64, offset/8 u32, length u32 · ranges: offset u64, length u64, known u64, key u64
//! ```
//!
//! A block is written after its needles are durable and before they are acknowledged. For an own volume it is not synced
//! each time: a block that a power cut takes is found again by scanning the data, and until then it proves after a mere
//! kill that its needles were committed. `load` reports this as `recorded`.
//!
//! Invariants: blocks chain, each `from` is the `to` before it; a block never tells of bytes that are not durable.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use meridian_env::disk::replace_file;
use meridian_env::{Disk, DiskError, DiskFile};
use meridian_types::{NeedleKey, Timestamp};

use crate::DamagedRange;
use crate::file_header::{self, FileHeader, FileKind, VOLUME_HEADER_SIZE};
use crate::index::Place;
use crate::needle::{ALIGNMENT, FileIdentity, checksum};
use crate::window::Window;

const BLOCK_HEADER_SIZE: usize = 40;
const MAGIC: [u8; 2] = *b"Mi";
const KIND_NEEDLES: u8 = 1;
const KIND_DAMAGED: u8 = 2;
const NEEDLE_SIZE: usize = 16;
const RANGE_SIZE: usize = 32;
/// Most entries of one block.
const BLOCK_ENTRIES_MAX: usize = 4096;

/// One needle as the journal tells it.
pub(crate) type Entry = (NeedleKey, Place);

/// The journal, open at its end.
#[derive(Debug)]
pub(crate) struct IndexJournal {
    file: Arc<dyn DiskFile>,
    identity: FileIdentity,
    /// Where the next block goes.
    position: u64,
    /// What the written blocks tell of.
    through: u64,
    stamp: Timestamp,
    /// Entries behind `through` whose block could not be written yet: the disk was full.
    pending: Vec<Entry>,
}

/// What `load` found.
pub(crate) struct Loaded {
    pub(crate) journal: IndexJournal,
    pub(crate) damaged: Vec<DamagedRange>,
    /// The greatest `to` of any whole block, also of one behind a damaged one: so much was committed.
    pub(crate) recorded: u64,
    /// The journal was there from the volume's beginning. If not, it proves nothing about what was committed.
    pub(crate) intact: bool,
}

impl IndexJournal {
    /// A new journal, durable under its name.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, header: &FileHeader) -> Result<Self, DiskError> {
        replace_file(disk, path, &file_header::encode(FileKind::Index, header))?;
        Ok(Self::at_start(disk.open(path)?, header.identity))
    }

    fn at_start(file: Arc<dyn DiskFile>, identity: FileIdentity) -> Self {
        Self {
            file,
            identity,
            position: VOLUME_HEADER_SIZE,
            through: VOLUME_HEADER_SIZE,
            stamp: Timestamp::ZERO,
            pending: Vec::new(),
        }
    }

    /// Reads the journal up to its first block that is not whole, cuts it there, and visits the needles in their order.
    /// A journal that is missing or is no journal of this volume is made anew.
    pub(crate) fn load(
        disk: &dyn Disk,
        path: &Path,
        header: &FileHeader,
        visit: &mut dyn FnMut(Entry),
    ) -> Result<Loaded, DiskError> {
        let file = match disk.open(path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => {
                let journal = Self::create(disk, path, header)?;
                return Ok(Loaded { journal, damaged: Vec::new(), recorded: VOLUME_HEADER_SIZE, intact: false });
            }
            Err(error) => return Err(error),
        };
        let length = file.length()?;
        let mut window = Window::new(file.clone(), length);
        let found = file_header::decode(FileKind::Index, window.get(0, VOLUME_HEADER_SIZE as usize)?);
        if found.as_ref() != Ok(header) {
            tracing::warn!(path = %path.display(), ?found, "index journal unreadable: rebuilding it from the data");
            let journal = Self::create(disk, path, header)?;
            return Ok(Loaded { journal, damaged: Vec::new(), recorded: VOLUME_HEADER_SIZE, intact: false });
        }
        let mut journal = Self::at_start(file, header.identity);
        let mut damaged = Vec::new();
        while let Some(block) = Block::read(&mut window, header.identity, journal.position)? {
            if block.from != journal.through || block.to < block.from {
                break;
            }
            block.visit(window.get(journal.position, block.size)?, visit, &mut damaged);
            journal.position += block.size as u64;
            journal.through = block.to;
            journal.stamp = block.stamp;
        }
        let mut recorded = journal.through;
        let mut position = journal.position;
        while position < length {
            match Block::read(&mut window, header.identity, position)? {
                Some(block) => {
                    recorded = recorded.max(block.to);
                    position += block.size as u64;
                }
                None => position += ALIGNMENT,
            }
        }
        if journal.position < length {
            tracing::warn!(path = %path.display(), at = journal.position, length, "index journal cut at a torn block");
            journal.file.truncate(journal.position)?;
        }
        Ok(Loaded { journal, damaged, recorded, intact: true })
    }

    /// The volume file's bytes that the journal tells of.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// Stamp of the last needle told of.
    pub(crate) fn stamp(&self) -> Timestamp {
        self.stamp
    }

    /// Tells of needles, in their order, up to `to`; they are durable. False when the disk is full: then they wait for the
    /// next call, or for `forget`.
    pub(crate) fn append(&mut self, entries: &[Entry], to: u64, stamp: Timestamp) -> Result<bool, DiskError> {
        self.pending.extend_from_slice(entries);
        let mut blocks = Vec::new();
        let mut from = self.through;
        let mut rest = self.pending.as_slice();
        while from < to {
            let (block, behind) = rest.split_at(rest.len().min(BLOCK_ENTRIES_MAX));
            let block_to = behind.first().map_or(to, |(_, place)| place.offset());
            let bytes: Vec<u8> = block.iter().flat_map(encode_needle).collect();
            let place = self.position + blocks.len() as u64;
            blocks.extend(self.encode_block(KIND_NEEDLES, block.len(), place, (from, block_to), stamp, &bytes));
            (from, rest) = (block_to, behind);
        }
        match self.file.write_at(&[IoSlice::new(&blocks)], self.position) {
            Ok(()) => {}
            Err(error) if error.is_no_space() => {
                tracing::warn!(%error, "index journal falls behind");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.position += blocks.len() as u64;
        self.through = to;
        self.stamp = stamp;
        self.pending = Vec::new(); // a rebuilt index has left room for all its needles
        Ok(true)
    }

    /// Gives up the needles that wait: they have been cut off the volume file again.
    pub(crate) fn forget(&mut self) {
        self.pending.clear();
    }

    /// Tells of damaged ranges before `through`.
    pub(crate) fn append_damaged(&mut self, ranges: &[DamagedRange]) -> Result<(), DiskError> {
        for group in ranges.chunks(BLOCK_ENTRIES_MAX) {
            let bytes: Vec<u8> = group.iter().flat_map(encode_range).collect();
            let span = (self.through, self.through);
            let block = self.encode_block(KIND_DAMAGED, group.len(), self.position, span, self.stamp, &bytes);
            self.file.write_at(&[IoSlice::new(&block)], self.position)?;
            self.position += block.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }

    fn encode_block(
        &self,
        kind: u8,
        count: usize,
        place: u64,
        (from, to): (u64, u64),
        stamp: Timestamp,
        entries: &[u8],
    ) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_HEADER_SIZE + entries.len());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&[kind, 0]);
        block.extend_from_slice(&u32::try_from(count).expect("a block is small").to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&from.to_le_bytes());
        block.extend_from_slice(&to.to_le_bytes());
        block.extend_from_slice(&stamp.raw().to_le_bytes());
        block.extend_from_slice(entries);
        let crc = checksum(&[&self.identity.place(place), &block[4..]]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

/// A whole block's header.
struct Block {
    kind: u8,
    size: usize,
    from: u64,
    to: u64,
    stamp: Timestamp,
}

impl Block {
    /// The block at `position`, if a whole one is there.
    fn read(window: &mut Window, identity: FileIdentity, position: u64) -> Result<Option<Self>, DiskError> {
        let bytes = window.get(position, BLOCK_HEADER_SIZE)?;
        if bytes.len() < BLOCK_HEADER_SIZE || bytes[4..6] != MAGIC {
            return Ok(None);
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let count = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
        let entry_size = match bytes[6] {
            KIND_NEEDLES => NEEDLE_SIZE,
            KIND_DAMAGED => RANGE_SIZE,
            _ => return Ok(None),
        };
        if count > BLOCK_ENTRIES_MAX {
            return Ok(None);
        }
        let block = Self {
            kind: bytes[6],
            size: BLOCK_HEADER_SIZE + count * entry_size,
            from: u64_at(16),
            to: u64_at(24),
            stamp: Timestamp::from_raw(u64_at(32)),
        };
        let whole = window.get(position, block.size)?;
        let passes = whole.len() == block.size
            && checksum(&[&identity.place(position), &whole[4..]]).to_le_bytes() == whole[..4];
        Ok(passes.then_some(block))
    }

    fn visit(&self, whole: &[u8], visit: &mut dyn FnMut(Entry), damaged: &mut Vec<DamagedRange>) {
        let entries = &whole[BLOCK_HEADER_SIZE..];
        if self.kind == KIND_NEEDLES {
            entries.chunks_exact(NEEDLE_SIZE).for_each(|entry| visit(decode_needle(entry)));
        } else {
            damaged.extend(entries.chunks_exact(RANGE_SIZE).map(decode_range));
        }
    }
}

fn encode_needle((key, place): &Entry) -> Vec<u8> {
    let unit = u32::try_from(place.offset() / ALIGNMENT).expect("a place fits");
    [&key.0.to_le_bytes()[..], &unit.to_le_bytes(), &place.length.to_le_bytes()].concat()
}

fn decode_needle(bytes: &[u8]) -> Entry {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let key = NeedleKey(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")));
    (key, Place::new(u64::from(u32_at(8)) * ALIGNMENT, u32_at(12)))
}

fn encode_range(range: &DamagedRange) -> Vec<u8> {
    let (known, key) = range.key.map_or((0u64, 0), |key| (1, key.0));
    [range.offset, range.length, known, key].into_iter().flat_map(u64::to_le_bytes).collect()
}

fn decode_range(bytes: &[u8]) -> DamagedRange {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    DamagedRange { offset: u64_at(0), length: u64_at(8), key: (u64_at(16) == 1).then(|| NeedleKey(u64_at(24))) }
}

#[cfg(test)]
mod tests;
