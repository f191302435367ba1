//! Decides, before RocksDB looks, whether the write-ahead log ends in a torn write or is damaged (rule 8).
//!
//! RocksDB's own tolerance is too wide: a flipped length in the last block of a log passes for its end, and all behind
//! it is dropped in silence. So RocksDB is opened with no tolerance, and this module cuts a torn end first.
//!
//! What tells a torn end from damage: each sync first writes a *mark* that says up to which sequence number the sync
//! before it had made the log durable. Behind a torn end there may still be whole records (the kernel writes pages of
//! an unsynced tail in any order), but no mark there covers what is missing. Where one does, synced bytes are gone.
//!
//! ```text
//! log file   = blocks of 32 KiB; a record that does not fit is split into fragments
//! fragment   = masked crc32c u32 LE | length u16 LE | type u8 | payload; under the checksum: type, payload
//! payload    = sequence u64 LE | count u32 LE | operations   (of a whole record)
//! mark       = magic 8 | store identity 16 | sequence u64 LE | crc32c u32 LE, as "log data" in such a payload
//! ```
//!
//! The identity keeps a client from planting a mark in a row that it stores.
//!
//! Invariants: only the end of the last log file that holds a whole record is ever cut, and only behind one; nothing
//! is cut where a mark proves that it had been synced; a log that fails is left untouched.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::StoreError;

const BLOCK_SIZE: usize = 32 << 10;
const HEADER_LENGTH: usize = 7;
const BATCH_HEADER_LENGTH: usize = 12;
const MARK_MAGIC: &[u8; 8] = b"MDSYNC\x00\x01";
const IDENTITY_LENGTH: usize = 16;
const MARK_PREFIX_LENGTH: usize = MARK_MAGIC.len() + IDENTITY_LENGTH;
const MARK_LENGTH: usize = MARK_PREFIX_LENGTH + 12;

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// RocksDB masks stored checksums, so that a checksum of bytes that hold checksums stays useful.
fn unmasked(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// Writes and finds the marks of one store.
#[derive(Debug, Clone)]
pub(crate) struct SyncMark {
    prefix: [u8; MARK_PREFIX_LENGTH],
}

impl SyncMark {
    /// Of the store at `path`, whose identity RocksDB drew when it made it.
    pub(crate) fn load(path: &Path) -> Result<Self, StoreError> {
        let file = path.join("IDENTITY");
        let text = fs::read_to_string(&file).map_err(StoreError::file("read", &file))?;
        Ok(Self::of(&text))
    }

    fn of(identity: &str) -> Self {
        let mut prefix = [0; MARK_PREFIX_LENGTH];
        prefix[..MARK_MAGIC.len()].copy_from_slice(MARK_MAGIC);
        let digits = identity.chars().filter_map(|digit| digit.to_digit(16)).take(2 * IDENTITY_LENGTH);
        for (index, digit) in digits.enumerate() {
            prefix[MARK_MAGIC.len() + index / 2] |= (digit as u8) << (4 * (1 - index % 2));
        }
        Self { prefix }
    }

    /// Says that everything up to `sequence` is durable.
    pub(crate) fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut mark = self.prefix.to_vec();
        mark.extend_from_slice(&sequence.to_le_bytes());
        let crc = crc32c(&mark);
        mark.extend_from_slice(&crc.to_le_bytes());
        mark
    }

    /// The greatest sequence number of the marks in `payload`.
    fn find(&self, payload: &[u8]) -> Option<u64> {
        payload.windows(MARK_LENGTH).filter(|window| window.starts_with(&self.prefix)).filter_map(decode_mark).max()
    }
}

fn decode_mark(mark: &[u8]) -> Option<u64> {
    let (content, crc) = mark.split_at(MARK_LENGTH - 4);
    let sequence = content[MARK_PREFIX_LENGTH..].try_into().expect("eight bytes");
    (crc32c(content).to_le_bytes() == crc).then(|| u64::from_le_bytes(sequence))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FragmentKind {
    Whole,
    First,
    Middle,
    Last,
    /// Settings of the log itself; no batch.
    Setting,
}

struct Fragment<'b> {
    kind: FragmentKind,
    payload: &'b [u8],
    /// With its header.
    size: usize,
}

/// The fragment at the start of `bytes`, which end with their block or file.
fn fragment(bytes: &[u8]) -> Result<Fragment<'_>, &'static str> {
    if bytes.len() < HEADER_LENGTH {
        return Err("the header of a record is cut short");
    }
    let stored = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    let length = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    let kind = match bytes[6] {
        1 => FragmentKind::Whole,
        2 => FragmentKind::First,
        3 => FragmentKind::Middle,
        4 => FragmentKind::Last,
        9 | 10 | 130 => FragmentKind::Setting,
        _ => return Err("a record has a type that is not written here"),
    };
    let size = HEADER_LENGTH + length;
    let Some(checked) = bytes.get(6..size) else { return Err("a record runs past its block or the file") };
    if crc32c(checked) != unmasked(stored) {
        return Err("a record fails its checksum");
    }
    Ok(Fragment { kind, payload: &checked[1..], size })
}

/// Where the whole records of a log file end, and why there.
#[derive(Debug, Default)]
struct Scan {
    /// Behind the last whole record.
    end: u64,
    last_sequence: Option<u64>,
    /// Where the first byte lies that is no record, and what is wrong with it.
    damage: Option<(u64, &'static str)>,
}

/// Reads one block; shorter at the end of the file.
fn read_block(file: &File, offset: u64, block: &mut [u8; BLOCK_SIZE]) -> io::Result<usize> {
    let mut length = 0;
    while length < BLOCK_SIZE {
        match file.read_at(&mut block[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn scan(file: &File) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut block = Box::new([0; BLOCK_SIZE]);
    // The first bytes of a record whose last fragment has not come yet.
    let mut open: Option<Vec<u8>> = None;
    for offset in (0..).step_by(BLOCK_SIZE) {
        let length = read_block(file, offset, &mut block)?;
        let mut position = 0;
        while position < length && (length < BLOCK_SIZE || BLOCK_SIZE - position >= HEADER_LENGTH) {
            let at = offset + position as u64;
            let found = match fragment(&block[position..length]) {
                Ok(found) => found,
                Err(reason) => {
                    scan.damage = Some((at, reason));
                    return Ok(scan);
                }
            };
            let whole = match (found.kind, open.take()) {
                (FragmentKind::Setting, None) => Some(Vec::new()),
                (FragmentKind::Whole, None) => Some(head(Vec::new(), found.payload)),
                (FragmentKind::First, None) => {
                    open = Some(head(Vec::new(), found.payload));
                    None
                }
                (FragmentKind::Middle, Some(begun)) => {
                    open = Some(head(begun, found.payload));
                    None
                }
                (FragmentKind::Last, Some(begun)) => Some(head(begun, found.payload)),
                _ => {
                    scan.damage = Some((at, "a fragment of a record is missing"));
                    return Ok(scan);
                }
            };
            position += found.size;
            if let Some(head) = whole {
                scan.end = offset + position as u64;
                scan.last_sequence = last_sequence(&head).or(scan.last_sequence);
            }
        }
        if length < BLOCK_SIZE {
            if open.is_some() {
                scan.damage = Some((scan.end, "the last record is cut short"));
            }
            return Ok(scan);
        }
    }
    unreachable!("a file ends")
}

/// Keeps as much of a record as its batch header needs.
fn head(mut begun: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let missing = BATCH_HEADER_LENGTH.saturating_sub(begun.len());
    begun.extend_from_slice(&payload[..missing.min(payload.len())]);
    begun
}

/// The last sequence number that a batch uses; none for a batch of a mark alone.
fn last_sequence(head: &[u8]) -> Option<u64> {
    let first = u64::from_le_bytes(head.get(..8)?.try_into().ok()?);
    let count = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?);
    (count > 0).then(|| first.saturating_add(u64::from(count) - 1))
}

/// The greatest sequence number of the marks behind `damage`. Since a length there may be wrong, every offset of a
/// block is tried as the start of a fragment until one fits.
fn marks_behind(file: &File, damage: u64, mark: &SyncMark) -> io::Result<Option<u64>> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    let mut greatest = None;
    let first = damage - damage % BLOCK_SIZE as u64;
    for offset in (first..).step_by(BLOCK_SIZE) {
        let length = read_block(file, offset, &mut block)?;
        let mut position = damage.saturating_sub(offset) as usize;
        while position < length {
            position += match fragment(&block[position..length]) {
                Ok(found) => {
                    greatest = greatest.max(mark.find(found.payload));
                    found.size
                }
                Err(_) => 1,
            };
        }
        if length < BLOCK_SIZE {
            return Ok(greatest);
        }
    }
    unreachable!("a file ends")
}

/// The log files of a store, oldest first.
fn log_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|extension| extension.to_str())) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Checks all log files of the store at `directory` and cuts a torn end. A directory without a store passes.
///
/// # Errors
/// `StoreError::WalDamaged` for any damage but a torn end.
pub(crate) fn check_and_cut(directory: &Path) -> Result<(), StoreError> {
    if !directory.join("IDENTITY").exists() {
        return Ok(());
    }
    let mark = SyncMark::load(directory)?;
    let files = log_files(directory).map_err(StoreError::file("list", directory))?;
    let mut cuts = Vec::new();
    // From the newest back, until the last file with a record has been seen; those before it must be whole.
    let mut is_end = true;
    for path in files.iter().rev() {
        let file = File::open(path).map_err(StoreError::file("open", path))?;
        let found = scan(&file).map_err(StoreError::file("read", path))?;
        if let Some((offset, reason)) = found.damage {
            let damaged = || StoreError::WalDamaged { path: path.clone(), offset, reason: reason.to_owned() };
            let synced = marks_behind(&file, offset, &mark).map_err(StoreError::file("read", path))?;
            // With no batch before the damage in this file it is unknown which one is missing: any mark condemns it.
            let lost = found.last_sequence.map_or(0, |last| last.saturating_add(1));
            if !is_end || synced.is_some_and(|synced| synced >= lost) {
                return Err(damaged());
            }
            cuts.push((path, found.end, reason));
        }
        is_end &= found.end == 0;
    }
    for (path, end, reason) in cuts {
        tracing::warn!(log = %path.display(), end, reason, "cutting the torn end of the write-ahead log");
        let file = OpenOptions::new().write(true).open(path).map_err(StoreError::file("open", path))?;
        file.set_len(end).and_then(|()| file.sync_all()).map_err(StoreError::file("cut", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
