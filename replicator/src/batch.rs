//! A pulled batch of log entries, and the one check that lets a cursor move over it (rules 7, 12).
//!
//! The same check runs before a batch is proposed (a bad one holds its stream) and inside `apply` (a late or
//! doubled one is ignored). It applies nothing and knows no mutation.
//!
//! Invariants: no entry is passed over; a checked batch yields the one cursor that stands behind all its entries;
//! what the check says depends on the cursor and the batch alone, so it may run inside a state machine.

use bytes::Bytes;
use meridian_types::{DatacenterId, EntryHash, Incarnation, LogPosition, RecordError, Sequence, Timestamp, limits};
use serde::{Deserialize, Serialize};

use crate::{Cursor, LogEntry, LogHead, OriginCursor};

/// Most bytes of entries that are taken in one batch: a source that stops once it has passed
/// `LOG_BATCH_SIZE_MAX` may overshoot it by one entry, and an entry is little more than its mutation.
const BATCH_SIZE_ACCEPTED_MAX: usize = limits::LOG_BATCH_SIZE_MAX + limits::MUTATION_SIZE_MAX + (1 << 16);

/// Entries of one partition's log of one origin, as pulled from `source` (the origin itself, or a relay).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Who sent it. The origin is `after.origin`.
    pub source: DatacenterId,
    /// The cursor that the first entry follows.
    pub after: LogPosition,
    /// Encoded `LogEntry` records, in the order of the log. Empty when only time has passed.
    pub entries: Vec<Bytes>,
    /// Everything stamped at or below it is in `entries` or before. The log's closed timestamp when the batch
    /// reaches the head, else the last entry's own timestamp (see `Batch::new`).
    pub closed: Timestamp,
}

/// A batch that follows its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch {
    /// Each entry with the hash of the log up to and with it, and its encoded bytes.
    pub entries: Vec<(LogEntry, EntryHash, Bytes)>,
    /// Where the cursor stands once all entries are applied.
    pub cursor: Cursor,
}

/// Why a batch may not be applied behind a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not cursor + 1 (rule 12): late, doubled, or beyond a gap. `apply` ignores such a batch.
    #[error("batch follows {found} of origin {origin}, the cursor stands at {expected}")]
    NotNext { origin: DatacenterId, expected: OriginCursor, found: OriginCursor },
    #[error("batch of origin {found} for the log of origin {expected}")]
    WrongOrigin { expected: DatacenterId, found: DatacenterId },
    #[error("history differs: {expected:?} here and {found:?} there at sequence {sequence} of origin {origin}")]
    HashMismatch { origin: DatacenterId, sequence: Sequence, expected: EntryHash, found: EntryHash },
    #[error("entry {sequence} of origin {origin}: {error}")]
    BadEntry {
        origin: DatacenterId,
        sequence: Sequence,
        #[source]
        error: RecordError,
    },
    #[error("entry {expected} of origin {origin} is numbered {found}")]
    Gap { origin: DatacenterId, expected: Sequence, found: Sequence },
    #[error("entry {sequence} of origin {origin} carries a stamp of origin {found}")]
    WrongStampOrigin { origin: DatacenterId, sequence: Sequence, found: DatacenterId },
    #[error("entry {sequence} of origin {origin} goes back to incarnation {found} from {before}")]
    IncarnationBack { origin: DatacenterId, sequence: Sequence, before: Incarnation, found: Incarnation },
    #[error("entry {sequence} of origin {origin} is stamped {found}, not above {applied_through}")]
    StampNotAbove { origin: DatacenterId, sequence: Sequence, applied_through: Timestamp, found: Timestamp },
    #[error("batch of {entries} entries and {bytes} bytes from origin {origin} is larger than agreed")]
    TooLarge { origin: DatacenterId, entries: usize, bytes: usize },
}

impl BatchError {
    /// Whether the batch is only not the next one, so that `apply` ignores it (rule 12); any other error means
    /// that the source's log can't be applied.
    pub fn is_not_next(&self) -> bool {
        matches!(self, Self::NotNext { .. })
    }
}

impl Batch {
    /// A batch for a peer that stands at `after`: `entries` are those that follow it, all read in one view with
    /// `head`, the end of the same log. `closed` becomes the head's only when the entries reach it; a batch that
    /// stops short vouches for no more than its last entry.
    ///
    /// # Errors
    /// The last entry does not decode: this log is damaged.
    pub fn new(
        source: DatacenterId,
        after: LogPosition,
        entries: Vec<Bytes>,
        head: &LogHead,
    ) -> Result<Self, RecordError> {
        let last = after.sequence.0.saturating_add(entries.len() as u64);
        let closed = match entries.last() {
            _ if last == head.position.sequence.0 => head.closed,
            Some(entry) => LogEntry::decode(entry)?.stamp.timestamp,
            None => Timestamp::ZERO,
        };
        Ok(Self { source, after, entries, closed })
    }

    /// The bytes of all entries.
    pub fn size_bytes(&self) -> usize {
        self.entries.iter().map(Bytes::len).sum()
    }
}

/// Checks that `batch` follows `cursor` exactly: its origin, its first position with its hash, dense sequences,
/// incarnations that never fall, and stamps that rise above everything that was closed before.
///
/// # Errors
/// The first fact that does not hold. `BatchError::is_not_next` tells a late batch from a bad one.
pub fn check_batch(cursor: &Cursor, batch: &Batch) -> Result<CheckedBatch, BatchError> {
    check_start(&cursor.position, &batch.after)?;
    check_size(batch)?;
    let mut entries = Vec::with_capacity(batch.entries.len());
    let mut reached = *cursor;
    for encoded in &batch.entries {
        let entry = follow(&reached, encoded)?;
        reached.position = entry.position_after(reached.position.hash, encoded);
        reached.applied_through = entry.stamp.timestamp;
        entries.push((entry, reached.position.hash, encoded.clone()));
    }
    reached.applied_through = reached.applied_through.max(batch.closed);
    Ok(CheckedBatch { entries, cursor: reached })
}

/// Rule 12: a batch names its first position and is nothing unless that is the cursor. Rule 7: the same number
/// with another hash is another history.
fn check_start(cursor: &LogPosition, after: &LogPosition) -> Result<(), BatchError> {
    let origin = cursor.origin;
    if after.origin != origin {
        return Err(BatchError::WrongOrigin { expected: origin, found: after.origin });
    }
    if (after.incarnation, after.sequence) != (cursor.incarnation, cursor.sequence) {
        return Err(BatchError::NotNext {
            origin,
            expected: OriginCursor::from(*cursor),
            found: OriginCursor::from(*after),
        });
    }
    if after.hash != cursor.hash {
        let (sequence, expected, found) = (cursor.sequence, cursor.hash, after.hash);
        return Err(BatchError::HashMismatch { origin, sequence, expected, found });
    }
    Ok(())
}

fn check_size(batch: &Batch) -> Result<(), BatchError> {
    let (entries, bytes) = (batch.entries.len(), batch.size_bytes());
    if entries > limits::LOG_BATCH_ENTRIES_MAX || bytes > BATCH_SIZE_ACCEPTED_MAX {
        return Err(BatchError::TooLarge { origin: batch.after.origin, entries, bytes });
    }
    Ok(())
}

/// The entry in `encoded`, if it is the one that follows `reached`.
fn follow(reached: &Cursor, encoded: &[u8]) -> Result<LogEntry, BatchError> {
    let LogPosition { origin, incarnation, sequence, .. } = reached.position;
    let expected = sequence.next();
    let entry =
        LogEntry::decode(encoded).map_err(|error| BatchError::BadEntry { origin, sequence: expected, error })?;
    if entry.stamp.datacenter != origin {
        return Err(BatchError::WrongStampOrigin { origin, sequence: expected, found: entry.stamp.datacenter });
    }
    if entry.sequence != expected {
        return Err(BatchError::Gap { origin, expected, found: entry.sequence });
    }
    if entry.incarnation < incarnation {
        let (before, found) = (incarnation, entry.incarnation);
        return Err(BatchError::IncarnationBack { origin, sequence: expected, before, found });
    }
    if entry.stamp.timestamp <= reached.applied_through {
        let (applied_through, found) = (reached.applied_through, entry.stamp.timestamp);
        return Err(BatchError::StampNotAbove { origin, sequence: expected, applied_through, found });
    }
    Ok(entry)
}

#[cfg(test)]
mod tests;
