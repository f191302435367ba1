//! Watermarks: how far a source's history is visible here (W_meta) and durable here (W_data), rule 13.
//!
//! W_data of a source is the minimum of its W_meta, of the closed timestamp of its volume registry ("these are all
//! volumes that hold anything ≤ T"), and of each volume whose mirror set holds this datacenter. It fetches nothing
//! and stores nothing: the shell reports what it sees and what it has.
//!
//! Invariants:
//! - The value only moves forward, but for `restart`; what is unknown, unreported, missing or parked holds it where it is.
//! - A volume counts as complete through T only when a report said "everything ≤ T lies below `committed`" and all
//!   bytes below that `committed` are durable here, with no parked range among them.
//! - A volume that a report no longer names stays counted: absence is never read as deletion.

use std::collections::BTreeMap;
use std::ops::Range;

use meridian_types::{FileGeneration, Plant, Planted, Sound, Timestamp, VolumeId};

mod mirror;

use mirror::MirrorProgress;

/// W_meta of a source: the minimum over the partitions' and the catalog's `applied_through`; zero of none.
pub fn meta_watermark(cursors: impl Iterator<Item = Timestamp>) -> Timestamp {
    cursors.min().unwrap_or(Timestamp::ZERO)
}

/// What a source's registry says of its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReport {
    /// The list names every volume that holds anything stamped at or below this.
    pub registry_closed: Timestamp,
    pub volumes: Vec<VolumeReport>,
}

/// One volume as its source reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReport {
    pub volume: VolumeId,
    pub generation: FileGeneration,
    /// Bytes that are acknowledged on every replica (rule 2).
    pub committed: u64,
    /// Everything in the volume stamped at or below this lies below `committed`.
    pub closed: Timestamp,
    /// No append will follow: once `committed` is here, the volume no longer bounds the watermark.
    pub sealed: bool,
    /// Whether the volume's mirror set holds this datacenter.
    pub mirrored_here: bool,
}

/// What keeps a watermark where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatermarkHold {
    /// A metadata stream.
    Meta,
    /// The source's list of volumes.
    Registry,
    /// A mirror that lacks bytes, has a parked range, or whose primary closes nothing.
    Volume(VolumeId),
}

/// W_data of one source at this datacenter.
#[derive(Debug, Clone, Default)]
pub struct DataWatermark<P: Plant = Sound> {
    plant: P,
    value: Timestamp,
    meta: Timestamp,
    registry_closed: Timestamp,
    volumes: BTreeMap<VolumeId, MirrorProgress>,
}

impl DataWatermark {
    /// Starts at `committed`, the value last committed here; zero for a new source.
    pub fn new(committed: Timestamp) -> Self {
        Self::planted(Sound, committed)
    }
}

impl<P: Plant> DataWatermark<P> {
    /// `new`, with mistakes for a simulation to find.
    pub fn planted(plant: P, committed: Timestamp) -> Self {
        let (zero, volumes) = (Timestamp::ZERO, BTreeMap::new());
        Self { plant, value: committed, meta: zero, registry_closed: zero, volumes }
    }

    /// W_meta of the same source; a smaller one than before is ignored.
    pub fn set_meta(&mut self, meta: Timestamp) {
        self.meta = self.meta.max(meta);
        self.advance();
    }

    /// Takes a report of the source. A volume that it does not name stays counted as last reported. A volume that
    /// begins to be mirrored here counts from zero (rule 13): `have` tells, after this call, what is here of it.
    pub fn report(&mut self, report: &RegistryReport) {
        for volume in &report.volumes {
            if self.plant.has(Planted::UnknownVolumeIgnored) && !self.volumes.contains_key(&volume.volume) {
                continue;
            }
            self.volumes.entry(volume.volume).or_default().report(volume);
        }
        // Only now: a closed registry counts together with the volumes that it lists, never before them.
        self.registry_closed = self.registry_closed.max(report.registry_closed);
        self.advance();
    }

    /// Whether the report has a volume mirrored here that was known and was not: another node held it until now.
    pub fn begins_mirrors(&self, report: &RegistryReport) -> bool {
        let begins = |volume: &VolumeReport| {
            volume.mirrored_here && self.volumes.get(&volume.volume).is_some_and(MirrorProgress::is_elsewhere)
        };
        report.volumes.iter().any(begins)
    }

    /// Goes back to `committed`: mirrors that did not count so far begin to (rule 13). What the datacenter has
    /// committed stays true, for it counted them where they were.
    pub fn restart(&mut self, committed: Timestamp) {
        self.value = self.value.min(committed);
    }

    /// The mirror of a volume is durable below `offset`, parked ranges aside. An older generation's is ignored.
    pub fn have(&mut self, volume: VolumeId, generation: FileGeneration, offset: u64) {
        let value = self.value;
        self.volumes.entry(volume).or_default().have(generation, offset, value);
        self.advance();
    }

    /// A range of a mirror could not be fetched: it holds the watermark back until it is unparked (rule 13). Call it
    /// before a `have` that lies behind the range, else the watermark passes the hole before it stops.
    pub fn park(&mut self, volume: VolumeId, generation: FileGeneration, range: Range<u64>) {
        let value = self.value;
        self.volumes.entry(volume).or_default().park(generation, range, value);
    }

    /// A parked range, or a part of one, is durable here now or was given up by an operator. The same generation as
    /// it was parked in.
    pub fn unpark(&mut self, volume: VolumeId, generation: FileGeneration, range: Range<u64>) {
        let value = self.value;
        self.volumes.entry(volume).or_default().unpark(generation, range, value);
        self.advance();
    }

    /// The watermark; it only moves forward, but for `restart`.
    pub fn value(&self) -> Timestamp {
        self.value
    }

    /// What bounds the watermark now. Of equals, metadata before the registry before the smallest volume id.
    pub fn held_by(&self) -> WatermarkHold {
        self.bound().1
    }

    /// Bytes that are committed at the source and not durable here, over the volumes mirrored here.
    pub fn pending_bytes(&self) -> u64 {
        self.volumes.values().map(MirrorProgress::pending_bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of the source's volumes that are durable here, of what it had committed when it was last heard of.
    pub fn durable_bytes(&self) -> u64 {
        self.volumes.values().map(MirrorProgress::durable_bytes).fold(0, u64::saturating_add)
    }

    /// All parked ranges, by volume and offset.
    pub fn parked(&self) -> impl Iterator<Item = (VolumeId, FileGeneration, Range<u64>)> + '_ {
        self.volumes
            .iter()
            .flat_map(|(volume, mirror)| mirror.parked().map(|range| (*volume, mirror.generation(), range)))
    }

    fn advance(&mut self) {
        self.value = self.value.max(self.bound().0);
    }

    fn bound(&self) -> (Timestamp, WatermarkHold) {
        let volumes = self
            .volumes
            .iter()
            .filter_map(|(volume, mirror)| mirror.bound().map(|through| (through, WatermarkHold::Volume(*volume))));
        [(self.meta, WatermarkHold::Meta), (self.registry_closed, WatermarkHold::Registry)]
            .into_iter()
            .chain(volumes)
            .min()
            .expect("metadata and registry always bound it")
    }
}

#[cfg(test)]
mod tests;
