//! How far the mirror of one volume is complete, in the source's time.
//!
//! Reports run ahead of the bytes, so the (committed, closed) pairs of a few of them are kept as checkpoints: when
//! the bytes pass one's `committed`, the mirror is complete through its `closed`. It knows no other volume.
//!
//! Invariants: checkpoints rise in both figures; a dropped checkpoint only delays; `complete_through` falls only
//! when the mirror set or the file generation has changed, and then to zero (rule 13).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use meridian_types::{FileGeneration, Timestamp};

use super::VolumeReport;

/// Most checkpoints kept for one volume; beyond it every second one is dropped.
pub(super) const CHECKPOINTS_MAX: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct MirrorProgress {
    /// Whether a report has named the volume, and then whether its mirror set holds this datacenter.
    mirrored_here: Option<bool>,
    generation: FileGeneration,
    committed: u64,
    have: u64,
    complete_through: Timestamp,
    /// The greatest `committed` that has been passed.
    settled: u64,
    checkpoints: VecDeque<Checkpoint>,
    /// Start → end; disjoint.
    parked: BTreeMap<u64, u64>,
    /// Set while bytes are missing that had been counted: the watermark stands where it stood then.
    frozen_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Checkpoint {
    committed: u64,
    closed: Timestamp,
}

impl MirrorProgress {
    pub(super) fn report(&mut self, report: &VolumeReport) {
        if report.generation < self.generation {
            return; // of before a compaction
        }
        self.enter(report.generation);
        if self.mirrored_here == Some(false) && report.mirrored_here {
            *self = Self { generation: self.generation, ..Self::default() }; // a new mirror counts from zero
        }
        self.mirrored_here = Some(report.mirrored_here);
        if !report.mirrored_here {
            self.checkpoints.clear();
            return;
        }
        self.committed = self.committed.max(report.committed); // below what was once committed: a failed replica
        let closed = if report.sealed { Timestamp::MAX } else { report.closed };
        self.add(Checkpoint { committed: self.committed, closed });
        self.settle();
    }

    /// A report has named it, and its mirror lies on another node or nowhere here.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.mirrored_here == Some(false)
    }

    pub(super) fn have(&mut self, generation: FileGeneration, offset: u64, watermark: Timestamp) {
        if generation < self.generation {
            return;
        }
        self.enter(generation);
        self.have = offset;
        self.freeze_or_thaw(watermark);
        self.settle();
    }

    pub(super) fn park(&mut self, generation: FileGeneration, range: Range<u64>, watermark: Timestamp) {
        if generation < self.generation || range.is_empty() {
            return;
        }
        self.enter(generation);
        let Range { mut start, mut end } = range;
        let touching: Vec<u64> = self.parked.range(..=end).filter(|(_, e)| **e >= start).map(|(s, _)| *s).collect();
        for first in touching {
            let last = self.parked.remove(&first).expect("taken from the map just now");
            (start, end) = (start.min(first), end.max(last));
        }
        self.parked.insert(start, end);
        self.freeze_or_thaw(watermark);
    }

    pub(super) fn unpark(&mut self, generation: FileGeneration, range: Range<u64>, watermark: Timestamp) {
        if generation != self.generation || range.is_empty() {
            return;
        }
        let overlapping: Vec<(u64, u64)> =
            self.parked.range(..range.end).filter(|(_, end)| **end > range.start).map(|(s, e)| (*s, *e)).collect();
        for (start, end) in overlapping {
            self.parked.remove(&start);
            for (left_start, left_end) in [(start, range.start), (range.end, end)] {
                if left_start < left_end {
                    self.parked.insert(left_start, left_end);
                }
            }
        }
        self.freeze_or_thaw(watermark);
        self.settle();
    }

    /// Everything of the volume stamped at or below it is durable here; `None` when the volume does not count: it
    /// is not mirrored here, or no report has named it yet (then `registry_closed` bounds the watermark).
    pub(super) fn bound(&self) -> Option<Timestamp> {
        if self.mirrored_here != Some(true) {
            return None;
        }
        Some(self.frozen_at.unwrap_or(Timestamp::MAX).min(self.complete_through))
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        if self.mirrored_here != Some(true) {
            return 0;
        }
        let here = self.have.min(self.committed);
        let holes: u64 = self.parked.iter().map(|(start, end)| end.min(&here).saturating_sub(*start)).sum();
        self.committed - here + holes
    }

    pub(super) fn durable_bytes(&self) -> u64 {
        if self.mirrored_here == Some(true) { self.committed - self.pending_bytes() } else { 0 }
    }

    pub(super) fn parked(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.parked.iter().map(|(start, end)| *start..*end)
    }

    pub(super) fn generation(&self) -> FileGeneration {
        self.generation
    }

    /// Offsets of another generation mean nothing in this one (rule 4), so the new file counts from zero: a source
    /// that doesn't want the watermark to stand still names a new generation once its mirrors hold it.
    fn enter(&mut self, generation: FileGeneration) {
        if generation > self.generation {
            *self = Self { mirrored_here: self.mirrored_here, generation, ..Self::default() };
        }
    }

    fn add(&mut self, checkpoint: Checkpoint) {
        let newest = self.checkpoints.back().map_or(self.complete_through, |back| back.closed);
        if checkpoint.closed <= newest {
            return;
        }
        if self.checkpoints.back().is_some_and(|back| back.committed == checkpoint.committed) {
            self.checkpoints.pop_back(); // the same bytes, closed further
        }
        if self.checkpoints.len() == CHECKPOINTS_MAX {
            let mut is_kept = false;
            self.checkpoints.retain(|_| {
                is_kept = !is_kept; // the first, which is the next to be passed, is kept
                is_kept
            });
        }
        self.checkpoints.push_back(checkpoint);
    }

    /// Passes the checkpoints whose bytes are all here.
    fn settle(&mut self) {
        let complete = self.complete();
        while let Some(first) = self.checkpoints.front().filter(|first| first.committed <= complete) {
            (self.complete_through, self.settled) = (first.closed, first.committed);
            self.checkpoints.pop_front();
        }
    }

    /// Bytes that had been counted may be missing again: a range parked by a scrub, a mirror fetched anew. Which
    /// stamps they carry is not known, so the watermark stands where it stood until they are back.
    fn freeze_or_thaw(&mut self, watermark: Timestamp) {
        if self.complete() >= self.settled {
            self.frozen_at = None;
        } else {
            self.frozen_at.get_or_insert(watermark);
        }
    }

    /// All bytes below it are durable here.
    fn complete(&self) -> u64 {
        self.parked.first_key_value().map_or(self.have, |(start, _)| self.have.min(*start))
    }
}
