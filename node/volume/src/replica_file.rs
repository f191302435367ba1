//! The file of one replica among several: what is written and synced here, and what is committed because all have it.
//!
//! What to write, whom to send it to, and when something is committed is decided by the protocol between the replicas
//! (`node/replica`); here it is done. Blocks on the disk; not for async tasks.
//!
//! Invariants:
//! - A batch is one write and one sync, begun when the batch before it is durable: its first needle's flag stays true on
//!   every replica (`scan::cut_at`).
//! - An offset is written once: a failed write, want of space included, fails the replica, for the others may have the
//!   bytes already.
//! - Nothing is committed that is not durable here, nor anything at all once the volume is fenced (rule 1).

use std::collections::{HashSet, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use meridian_env::HybridClock;
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Cookie, Epoch, NeedleKey, Timestamp};

use crate::index::Place;
use crate::journal::Entry;
use crate::needle::{ALIGNMENT, block_table, span, verify};
use crate::placing::{Placing, Seat};
use crate::scan::Found;
use crate::state::Phase;
use crate::volume::{Journal, Volume};
use crate::{Appended, VolumeError, VolumeStatus};

/// A needle that has no place yet.
#[derive(Debug)]
pub struct NewNeedle {
    key: NeedleKey,
    cookie: Cookie,
    data: Bytes,
    table: Vec<u8>,
}

impl NewNeedle {
    /// Sums large data; to be called where that may be done in parallel.
    ///
    /// # Errors
    /// `NeedleTooLarge`.
    pub fn new(key: NeedleKey, cookie: Cookie, data: Bytes) -> Result<Self, VolumeError> {
        if data.len() > NEEDLE_SIZE_MAX {
            return Err(VolumeError::NeedleTooLarge { size: data.len(), size_max: NEEDLE_SIZE_MAX });
        }
        let table = block_table(&data);
        Ok(Self { key, cookie, data, table })
    }

    /// Bytes of data.
    pub fn size(&self) -> usize {
        self.data.len()
    }
}

/// Needles in the file that are not committed yet, in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    needles: VecDeque<PendingNeedle>,
    keys: HashSet<u64>,
}

#[derive(Debug, Clone, Copy)]
struct PendingNeedle {
    entry: Entry,
    end: u64,
    stamp: Timestamp,
}

impl PendingNeedle {
    fn new(offset: u64, key: NeedleKey, length: u32, stamp: Timestamp) -> Self {
        Self { entry: (key, Place::new(offset, length)), end: offset + span(length), stamp }
    }
}

impl Pending {
    pub(crate) fn push(&mut self, found: Found) {
        self.extend(&[PendingNeedle::new(found.offset, found.key, found.length, found.stamp)]);
    }

    fn extend(&mut self, needles: &[PendingNeedle]) {
        self.needles.extend(needles);
        self.keys.extend(needles.iter().map(|needle| needle.entry.0.0));
    }

    pub(crate) fn has(&self, key: NeedleKey) -> bool {
        self.keys.contains(&key.0)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn first_stamp(&self) -> Option<Timestamp> {
        self.needles.front().map(|needle| needle.stamp)
    }

    /// Takes out the needles that end at or before `to`, and the last one's stamp.
    fn take_through(&mut self, to: u64) -> (Vec<Entry>, Timestamp) {
        let (mut entries, mut last) = (Vec::new(), Timestamp::ZERO);
        while let Some(needle) = self.needles.pop_front_if(|needle| needle.end <= to) {
            self.keys.remove(&needle.entry.0.0);
            entries.push(needle.entry);
            last = last.max(needle.stamp);
        }
        (entries, last)
    }
}

/// One group commit: bytes of whole needles for one place in the file.
#[derive(Debug, Clone)]
pub struct Batch {
    offset: u64,
    end: u64,
    pieces: Vec<Bytes>,
    needles: Vec<PendingNeedle>,
}

impl Batch {
    /// Where it starts in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes, one piece behind the other; cheap to clone.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
}

/// What became of needles that were to be placed.
pub struct PlacedNeedles {
    /// None when no needle could be placed.
    pub batch: Option<Batch>,
    /// For each needle, in their order: what it will be once the batch is committed, or why it is not in the batch.
    pub outcomes: Vec<Result<Appended, VolumeError>>,
}

/// See the module.
#[derive(Clone)]
pub struct ReplicaFile {
    volume: Arc<Volume>,
    clock: Arc<HybridClock>,
    size_max: u64,
}

impl ReplicaFile {
    pub(crate) fn new(volume: Arc<Volume>, clock: Arc<HybridClock>, size_max: u64) -> Self {
        Self { volume, clock, size_max }
    }

    pub fn status(&self) -> VolumeStatus {
        self.volume.status()
    }

    /// Epoch, durable end and committed length.
    pub fn ends(&self) -> (Epoch, u64, u64) {
        let tail = self.volume.tail.lock();
        (tail.epoch, tail.durable, tail.committed)
    }

    /// Gives needles their places behind the durable end, and stamps. The primary's; nothing is written yet.
    pub fn place(&self, needles: &[NewNeedle]) -> PlacedNeedles {
        const ZEROS: &[u8] = &[0; ALIGNMENT as usize];
        self.volume.begin_flight();
        let (_, start, _) = self.ends();
        let mut placing = Placing::new(&self.volume, &self.clock, self.size_max, start);
        let mut batch = Batch { offset: start, end: start, pieces: Vec::new(), needles: Vec::new() };
        let mut outcomes = Vec::with_capacity(needles.len());
        for needle in needles {
            let Seat { offset, stamp, front } =
                match placing.place(needle.key, needle.cookie, &needle.table, &needle.data) {
                    Ok(seat) => seat,
                    Err(refusal) => {
                        outcomes.push(Err(refusal));
                        continue;
                    }
                };
            let pending = PendingNeedle::new(offset, needle.key, needle.data.len() as u32, stamp);
            let padding = (pending.end - offset) as usize - front.len() - needle.data.len();
            let pieces = [front.into(), needle.data.clone(), Bytes::from_static(&ZEROS[..padding])];
            batch.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
            batch.end = pending.end;
            batch.needles.push(pending);
            outcomes.push(Ok(Appended { end_offset: pending.end, stamp }));
        }
        if batch.needles.is_empty() && self.volume.pending.lock().needles.is_empty() {
            self.volume.end_flight();
        }
        PlacedNeedles { batch: Some(batch).filter(|batch| !batch.needles.is_empty()), outcomes }
    }

    /// Takes the primary's bytes for `offset`. Every one of them must belong to a whole needle.
    ///
    /// # Errors
    /// `CorruptNeedle` with where the first one stands that does not.
    pub fn verify(&self, offset: u64, data: Bytes) -> Result<Batch, VolumeError> {
        let mut batch = Batch { offset, end: offset, pieces: vec![data.clone()], needles: Vec::new() };
        let mut rest = &data[..];
        while !rest.is_empty() {
            let header = match verify(self.volume.identity, batch.end, rest) {
                Ok(header) if batch.end + span(header.length) <= self.size_max => header,
                _ => return Err(VolumeError::CorruptNeedle { volume: self.volume.id(), offset: batch.end }),
            };
            let needle = PendingNeedle::new(batch.end, header.key, header.length, header.stamp);
            rest = &rest[span(header.length) as usize..];
            batch.end = needle.end;
            batch.needles.push(needle);
        }
        Ok(batch)
    }

    /// Writes a batch at the durable end and syncs it; returns the new durable end.
    ///
    /// # Errors
    /// `Gap` when the batch is for another place; `Sealed` once the volume is fenced, `Failed` or `DiskFull` when the
    /// volume takes nothing more: what is behind its durable end is then unknown.
    pub fn write(&self, batch: &Batch) -> Result<u64, VolumeError> {
        let volume = &self.volume;
        let _journal = volume.journal.lock(); // a fence waits for this write
        volume.check_open()?;
        let (_, durable, _) = self.ends();
        if batch.offset != durable {
            return Err(VolumeError::Gap { volume: volume.id(), offset: batch.offset, committed: durable });
        }
        let pieces: Vec<IoSlice<'_>> = batch.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        if let Err(error) = volume.data.write_at(&pieces, durable) {
            let failed = volume.fail(&error); // want of space too: the offset may be taken elsewhere
            return Err(if error.is_no_space() { VolumeError::DiskFull(volume.id()) } else { failed });
        }
        volume.data.sync_data().map_err(|error| volume.fail(&error))?; // rule 6: no retry
        volume.pending.lock().extend(&batch.needles);
        let mut tail = volume.tail.lock();
        tail.durable = batch.end;
        tail.in_flight = true;
        Ok(batch.end)
    }

    /// Commits what every replica has, up to `to` or to what is durable here: from here on it is read, and proven by the
    /// index journal.
    ///
    /// # Errors
    /// `Sealed` once the volume is fenced: then the seal decides. `Failed`.
    pub fn commit(&self, to: u64) -> Result<u64, VolumeError> {
        let volume = &self.volume;
        let mut journal = volume.journal.lock();
        {
            let tail = volume.tail.lock();
            if tail.phase != Phase::Open {
                return Err(VolumeError::Sealed(volume.id()));
            }
        }
        volume.commit_pending(&mut journal, to)
    }

    /// Fails the replica for as long as the process lives: nothing is appended to it any more.
    pub fn fail(&self, reason: &str) {
        self.volume.fail(&reason);
    }
}

impl Volume {
    /// Commits the pending needles that end at or before `to`; returns the committed length.
    pub(crate) fn commit_pending(&self, journal: &mut Journal, to: u64) -> Result<u64, VolumeError> {
        let (durable, committed) = {
            let tail = self.tail.lock();
            (tail.durable, tail.committed)
        };
        let to = to.min(durable);
        if to <= committed {
            return Ok(committed);
        }
        let (entries, last) = self.pending.lock().take_through(to);
        self.commit(journal, &entries, to, last).map_err(|error| self.fail(&error))?;
        let first = self.pending.lock().first_stamp();
        if self.role != crate::ReplicaRole::Secondary {
            self.end_flight_before(first);
        }
        Ok(to)
    }
}
