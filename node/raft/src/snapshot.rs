//! A group's state on its way to a member that lags too far behind the log.
//!
//! The sender walks a view, so the group goes on meanwhile. The receiver writes the rows beside its own state
//! (`Installation`) and flips to them only when the whole stream has come and its checksum fits.
//!
//! ```text
//! start   record GroupSnapshot v1: vote, last applied log id, membership
//! data    rows one after another, cut anywhere into pieces: key length u32 LE | value length u32 LE | key | value
//! end     count of bytes and CRC32C over all data
//! ```
//!
//! Invariants: nothing of a stream that ends early, or differs from its end, becomes state.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use meridian_index::kv::Step;
use meridian_store::{GroupId, GroupView, Installation, Store, StoreError};
use meridian_types::{RecordError, RecordKind, decode_record, encode_record};
use meridian_wire::limits::SNAPSHOT_PIECE_SIZE_MAX;
use serde::{Deserialize, Serialize};

use crate::record::{AppliedMembership, LogIdRecord, VoteRecord, io_error};
use crate::types::{LogId, SnapshotMeta, Vote};

const HEAD_VERSION: u8 = 1;
const ROW_HEADER_LENGTH: usize = 8;
/// A row beyond this is damage, not a row.
const ROW_SIZE_MAX: usize = 64 << 20;

/// A snapshot here: one to send, or one that came.
pub(crate) enum SnapshotData {
    Held(GroupView),
    Received(Installation),
}

/// What opens a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    vote: VoteRecord,
    last: Option<LogIdRecord>,
    membership: AppliedMembership,
}

impl SnapshotHead {
    pub(crate) fn new(vote: &Vote, meta: &SnapshotMeta) -> Self {
        let last = meta.last_log_id.as_ref().map(LogIdRecord::from);
        Self { vote: vote.into(), last, membership: (&meta.last_membership).into() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_record(RecordKind::GroupSnapshot, HEAD_VERSION, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(RecordKind::GroupSnapshot, HEAD_VERSION, bytes)
    }

    pub(crate) fn into_parts(self) -> (Vote, SnapshotMeta) {
        let last_log_id = self.last.map(LogId::from);
        (self.vote.into(), SnapshotMeta { last_log_id, last_membership: self.membership.into() })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("a row of {length} bytes is too long")]
    RowTooLong { length: usize },
    #[error("the snapshot ends within a row")]
    CutShort,
    #[error("the snapshot has {got} bytes with checksum {got_crc:08x}, its end says {want} and {want_crc:08x}")]
    Mismatch { got: u64, got_crc: u32, want: u64, want_crc: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counts and sums the bytes of a stream; both sides do.
struct Sum {
    size_bytes: u64,
    digest: crc_fast::Digest,
}

impl Sum {
    fn new() -> Self {
        Self { size_bytes: 0, digest: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn crc32c(&self) -> u32 {
        self.digest.finalize() as u32
    }
}

/// Size and checksum of a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamEnd {
    pub size_bytes: u64,
    pub crc32c: u32,
}

/// Walks a view and gives its rows to `send` in pieces of bounded size, until it says `false`. Blocks.
///
/// # Errors
/// When the view can't be read. `Ok(None)` when `send` had enough.
pub(crate) fn write_rows(
    view: &GroupView,
    mut send: impl FnMut(Bytes) -> bool,
) -> Result<Option<StreamEnd>, meridian_index::kv::KvError> {
    let mut sum = Sum::new();
    let mut buffer = BytesMut::with_capacity(2 * SNAPSHOT_PIECE_SIZE_MAX);
    let mut stopped = false;
    let mut flush = |buffer: &mut BytesMut, least: usize| {
        while buffer.len() >= least && !buffer.is_empty() {
            let piece = buffer.split_to(buffer.len().min(SNAPSHOT_PIECE_SIZE_MAX)).freeze();
            sum.add(&piece);
            if !send(piece) {
                return false;
            }
        }
        true
    };
    view.scan_all(&mut |key, value| {
        buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
        stopped = !flush(&mut buffer, SNAPSHOT_PIECE_SIZE_MAX);
        if stopped { Step::Stop } else { Step::Next }
    })?;
    if stopped || !flush(&mut buffer, 0) {
        return Ok(None);
    }
    Ok(Some(StreamEnd { size_bytes: sum.size_bytes, crc32c: sum.crc32c() }))
}

/// Takes the pieces of a stream into an installation.
pub(crate) struct RowReader {
    installation: Installation,
    buffer: BytesMut,
    sum: Sum,
}

impl RowReader {
    pub(crate) fn new(installation: Installation) -> Self {
        Self { installation, buffer: BytesMut::new(), sum: Sum::new() }
    }

    /// Writes the rows that `piece` completes.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.sum.add(piece);
        self.buffer.extend_from_slice(piece);
        while self.buffer.len() >= ROW_HEADER_LENGTH {
            let mut header = &self.buffer[..];
            let (key, value) = (header.get_u32_le() as usize, header.get_u32_le() as usize);
            let length = ROW_HEADER_LENGTH + key + value;
            if length > ROW_SIZE_MAX {
                return Err(SnapshotError::RowTooLong { length });
            }
            if self.buffer.len() < length {
                break;
            }
            let row = self.buffer.split_to(length);
            let (key, value) = row[ROW_HEADER_LENGTH..].split_at(key);
            self.installation.put(key, value)?;
        }
        Ok(())
    }

    /// The installation, ready to be finished.
    pub(crate) fn end(self, want: StreamEnd) -> Result<Installation, SnapshotError> {
        let (got, got_crc) = (self.sum.size_bytes, self.sum.crc32c());
        if (got, got_crc) != (want.size_bytes, want.crc32c) {
            return Err(SnapshotError::Mismatch { got, got_crc, want: want.size_bytes, want_crc: want.crc32c });
        }
        if self.buffer.is_empty() { Ok(self.installation) } else { Err(SnapshotError::CutShort) }
    }
}

/// Copies a view's rows into an installation of `store`, with no stream between.
pub(crate) fn copy(view: &GroupView, store: &Store, group: GroupId) -> io::Result<Installation> {
    let mut installation = store.install(group).map_err(io_error)?;
    let mut failure = None;
    view.scan_all(&mut |key, value| match installation.put(key, value) {
        Ok(()) => Step::Next,
        Err(error) => {
            failure = Some(error);
            Step::Stop
        }
    })
    .map_err(io_error)?;
    match failure {
        Some(error) => Err(io_error(error)),
        None => Ok(installation),
    }
}

#[cfg(test)]
mod tests;
