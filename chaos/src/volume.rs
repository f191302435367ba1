//! A model of volumes and mirrors: appends with offsets and stamps, a committed offset, a closed timestamp, and how far
//! a mirror's bytes are durable. Bytes are counted, never stored.
//!
//! Invariants: nothing beyond `committed` is told to anybody (rule 2); everything stamped at or below `closed` lies
//! below `committed`, and no append gets a stamp at or below it (rule 13); a crash cuts back to `committed`.

use std::collections::BTreeMap;
use std::ops::Range;

use meridian_replicator::VolumeReport;
use meridian_types::{FileGeneration, Timestamp, VolumeId};

use crate::replicas::Replicas;

/// A volume takes no further append beyond this, so that each run fills several.
const VOLUME_BYTES_MAX: u64 = 40_000;

#[derive(Debug, Clone)]
pub struct Volume {
    pub id: VolumeId,
    /// The node that orders its appends.
    pub primary: usize,
    /// Which datacenters keep a copy.
    pub mirrored_to: Vec<usize>,
    /// Ends and stamps of needles that are not synced yet.
    unsynced: Vec<(u64, Timestamp)>,
    appended: u64,
    pub committed: u64,
    last_stamp: Timestamp,
    /// The greatest timestamp that appends were closed through.
    close_target: Timestamp,
    full: bool,
    pub sealed: bool,
    /// Of one that has a second replica in its datacenter.
    pub replicas: Option<Replicas>,
}

impl Volume {
    pub fn new(id: VolumeId, primary: usize, mirrored_to: Vec<usize>, created: Timestamp) -> Self {
        Self {
            id,
            primary,
            mirrored_to,
            unsynced: Vec::new(),
            appended: 0,
            committed: 0,
            last_stamp: created,
            close_target: Timestamp::ZERO,
            full: false,
            sealed: false,
            replicas: None,
        }
    }

    pub fn is_open(&self) -> bool {
        // Writers go on while a seal is on its way: they hear of it from the primary.
        let has_primary = self.replicas.as_ref().is_none_or(Replicas::has_primary);
        !self.full && !self.sealed && has_primary
    }

    /// Where the next needle begins.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Of what was appended only so much is left: its primary has started anew.
    pub fn cut_back_to(&mut self, durable: u64) {
        self.appended = durable;
        self.unsynced.retain(|(end, _)| *end <= durable);
    }

    /// Rule 1: control has decided where it ends.
    pub fn seal_at(&mut self, length: u64) {
        self.unsynced.clear();
        (self.appended, self.committed, self.sealed) = (length, length, true);
    }

    /// Appends a needle of `size` bytes and returns its end, or nothing when the stamp may not follow (rule 13).
    pub fn append(&mut self, size: u64, stamp: Timestamp) -> Option<u64> {
        if stamp <= self.last_stamp || stamp <= self.close_target {
            return None;
        }
        self.last_stamp = stamp;
        self.appended += size.next_multiple_of(8);
        self.full = self.appended > VOLUME_BYTES_MAX;
        self.unsynced.push((self.appended, stamp));
        Some(self.appended)
    }

    /// A sync has made everything up to `end` durable.
    pub fn synced(&mut self, end: u64) {
        self.unsynced.retain(|(needle_end, _)| *needle_end > end);
        self.committed = self.committed.max(end.min(self.appended));
        self.sealed |= self.full && self.committed == self.appended;
    }

    pub fn close_through(&mut self, at: Timestamp) {
        self.close_target = self.close_target.max(at);
    }

    /// Everything stamped at or below it lies below `committed`.
    fn closed(&self) -> Timestamp {
        match self.unsynced.first() {
            Some((_, stamp)) => self.close_target.min(Timestamp::from_raw(stamp.raw() - 1)),
            None => self.close_target,
        }
    }

    /// The primary's power is gone: what was not synced was never acknowledged. `seal`: control gives the volume up.
    pub fn crash(&mut self, seal: bool) {
        self.unsynced.clear();
        self.appended = self.committed;
        self.sealed |= seal || self.full;
        self.replicas = self.replicas.take().filter(|_| !self.sealed);
    }

    pub fn report(&self, to: usize) -> VolumeReport {
        VolumeReport {
            volume: self.id,
            generation: FileGeneration(0),
            committed: self.committed,
            closed: self.closed(),
            sealed: self.sealed,
            mirrored_here: self.mirrored_to.contains(&to),
        }
    }
}

/// The copy of another datacenter's volume.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// Durable bytes, parked ranges aside.
    pub have: u64,
    /// The greatest committed offset that the source has told.
    pub target: u64,
    /// Written and not yet synced.
    pub writing: Option<Range<u64>>,
    pub parked: Vec<Range<u64>>,
    /// Transfers of the next range that failed their checks, in a row.
    pub failed_checks: u32,
    /// The call that fetches, and when it is given up.
    pub fetching: Option<(u64, u64)>,
}

impl Mirror {
    /// Whether all bytes of a needle are durable here.
    pub fn holds(&self, needle: &Range<u64>) -> bool {
        let is_parked = self.parked.iter().any(|range| range.start < needle.end && needle.start < range.end);
        self.have >= needle.end && !is_parked
    }

    /// The range to fetch next: what is new first, then what was parked.
    pub fn wanted(&self) -> Option<Range<u64>> {
        if self.have < self.target {
            return Some(self.have..self.target);
        }
        self.parked.first().cloned()
    }

    /// The start of a parked range, or all of it, has arrived after all.
    pub fn unpark(&mut self, arrived: &Range<u64>) {
        for range in &mut self.parked {
            if range.start == arrived.start {
                range.start = arrived.end.min(range.end);
            }
        }
        self.parked.retain(|range| !range.is_empty());
    }

    pub fn crash(&mut self) {
        self.writing = None;
        self.fetching = None;
    }
}

/// The volumes that a datacenter owns, and its registry of them.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// No volume is created with a stamp at or below it.
    pub closed: Timestamp,
    /// Never set back, not even by a restored disk (rule 3).
    pub made: u32,
}

#[cfg(test)]
mod tests {
    use meridian_types::DatacenterId;

    use super::*;

    fn volume() -> Volume {
        let id = VolumeId::new(1, DatacenterId::new(1).unwrap()).unwrap();
        Volume::new(id, 0, vec![1], Timestamp::from_raw(1))
    }

    #[test]
    fn a_volume_closes_no_further_than_its_first_needle_that_is_not_synced() {
        let mut volume = volume();
        let first = volume.append(100, Timestamp::from_raw(5)).unwrap();
        volume.append(100, Timestamp::from_raw(8)).unwrap();
        volume.close_through(Timestamp::from_raw(9));
        assert_eq!(volume.report(1).closed, Timestamp::from_raw(4));
        volume.synced(first);
        assert_eq!(volume.report(1).closed, Timestamp::from_raw(7));
        assert_eq!(volume.append(8, Timestamp::from_raw(9)), None, "closed");
    }

    #[test]
    fn a_parked_range_is_not_held() {
        let mirror = Mirror { have: 300, parked: vec![Range { start: 100, end: 200 }], ..Mirror::default() };
        assert!(mirror.holds(&(0..100)) && mirror.holds(&(200..300)) && !mirror.holds(&(150..250)));
        assert_eq!(mirror.wanted(), Some(100..200));
        assert_eq!(Mirror { target: 400, ..mirror }.wanted(), Some(300..400));
    }
}
