//! The blob lane: reports of volumes, ranges of mirrors, and the shipped `DataWatermark` fed with both; the simulation's
//! counterpart of the lane in `node/replication`. It runs on each datacenter's first node.
//!
//! Invariants: a mirror reports what is synced (rule 5's parked ranges aside); after a restart the watermark starts at
//! its last committed value and learns everything else anew (rule 13).

use std::ops::Range;

use meridian_replicator::{DataWatermark, RegistryReport};
use meridian_types::{FileGeneration, VolumeId};

use crate::network::Message;
use crate::planted::{PlantedBug, ShellMistake};
use crate::volume::{Mirror, Volume};
use crate::world::{Event, World};

/// The node that the lane runs on.
pub const DRIVER: usize = 0;
/// When a call is given up.
const CALL_DEADLINE_MS: u64 = 1_500;
/// Most bytes of one transfer.
const RANGE_BYTES_MAX: u64 = 6_000;
/// Transfers of one range that fail their checks before it is parked.
const FAILED_CHECKS_MAX: u32 = 2;
/// All files of the simulation are of the first generation.
const GENERATION: FileGeneration = FileGeneration(0);

impl World {
    pub fn poll_volumes(&mut self, datacenter: usize, source: usize) {
        let after_ms = self.rng.between(150, 350);
        self.schedule(after_ms, Event::VolumesPoll { datacenter, source });
        let now_ms = self.now_ms;
        let call = self.name();
        let subject = &mut self.datacenters[datacenter];
        let under_way = subject.sources[source].volumes_call.is_some_and(|(_, until_ms)| until_ms > now_ms);
        if under_way || !subject.nodes[DRIVER].alive {
            return;
        }
        subject.sources[source].volumes_call = Some((call, now_ms + CALL_DEADLINE_MS));
        self.send(datacenter, source, Message::Volumes { call });
    }

    pub fn serve_volumes(&mut self, source: usize, to: usize, call: u64) {
        let registry = &self.datacenters[source].registry;
        let report = RegistryReport {
            registry_closed: registry.closed,
            volumes: registry.volumes.values().map(|volume: &Volume| volume.report(to)).collect(),
        };
        self.send(source, to, Message::VolumesReply { call, report });
    }

    /// A report has arrived. One that comes late is taken as well: reports only add.
    pub fn take_volumes(&mut self, datacenter: usize, source: usize, call: u64, report: RegistryReport) {
        if !self.datacenters[datacenter].nodes[DRIVER].alive {
            return;
        }
        let subject = &mut self.datacenters[datacenter];
        let lane = &mut subject.sources[source];
        if lane.volumes_call.is_some_and(|(under_way, _)| under_way == call) {
            lane.volumes_call = None;
        }
        lane.watermark.report(&report);
        let mirrored: Vec<_> = report.volumes.iter().filter(|volume| volume.mirrored_here).collect();
        for volume in &mirrored {
            let mirror = subject.mirrors.entry(volume.volume).or_default();
            mirror.target = mirror.target.max(volume.committed);
            for range in &mirror.parked {
                lane.watermark.park(volume.volume, GENERATION, range.clone()); // before what lies behind it counts
            }
            lane.watermark.have(volume.volume, GENERATION, mirror.have);
        }
        let volumes: Vec<VolumeId> = mirrored.iter().map(|volume| volume.volume).collect();
        for volume in volumes {
            self.fetch(datacenter, source, volume);
        }
    }

    fn fetch(&mut self, datacenter: usize, source: usize, volume: VolumeId) {
        let (now_ms, call) = (self.now_ms, self.name());
        let Some(mirror) = self.datacenters[datacenter].mirrors.get_mut(&volume) else { return };
        let under_way = mirror.fetching.is_some_and(|(_, until_ms)| until_ms > now_ms);
        if let (Some(range), false, None) = (mirror.wanted(), under_way, &mirror.writing) {
            mirror.fetching = Some((call, now_ms + CALL_DEADLINE_MS));
            let message = Message::Range { volume, from: range.start, to: range.end, call };
            self.send(datacenter, source, message);
        }
    }

    pub fn serve_range(&mut self, source: usize, to: usize, volume: VolumeId, range: Range<u64>, call: u64) {
        let Some(found) = self.datacenters[source].registry.volumes.get(&volume) else { return };
        let end = range.end.min(found.committed).min(range.start + RANGE_BYTES_MAX);
        if range.start >= end {
            return; // beyond the committed length nothing is told (rule 2)
        }
        let corrupt = self.rng.chance(self.network.corrupt_per_mille);
        self.send(source, to, Message::RangeReply { volume, from: range.start, to: end, call, corrupt });
    }

    pub fn take_range(
        &mut self,
        datacenter: usize,
        source: usize,
        volume: VolumeId,
        range: Range<u64>,
        call: u64,
        corrupt: bool,
    ) {
        let subject = &mut self.datacenters[datacenter];
        let life = subject.nodes[DRIVER].life;
        let (lane, Some(mirror)) = (&mut subject.sources[source], subject.mirrors.get_mut(&volume)) else { return };
        if !subject.nodes[DRIVER].alive || mirror.fetching.is_none_or(|(under_way, _)| under_way != call) {
            return;
        }
        mirror.fetching = None;
        if corrupt {
            self.tally.add("link: corruption", 1);
            mirror.failed_checks += 1;
            if mirror.failed_checks >= FAILED_CHECKS_MAX && range.start == mirror.have {
                mirror.failed_checks = 0;
                lane.watermark.park(volume, GENERATION, range.clone());
                lane.watermark.have(volume, GENERATION, range.end);
                mirror.have = range.end;
                mirror.parked.push(range);
                self.tally.add("… ranges parked", 1);
            }
            return;
        }
        if self.options.bug == Some(PlantedBug::Shell(ShellMistake::MirrorCountsUnsynced)) {
            lane.watermark.have(volume, GENERATION, range.end);
        }
        mirror.failed_checks = 0;
        mirror.writing = Some(range);
        let after_ms = self.sync_ms(datacenter);
        self.schedule(after_ms, Event::MirrorSynced { datacenter, volume, life });
    }

    pub fn mirror_synced(&mut self, datacenter: usize, volume: VolumeId, life: u32) {
        let source = usize::from(volume.datacenter().get()) - 1;
        let subject = &mut self.datacenters[datacenter];
        if subject.nodes[DRIVER].life != life {
            return;
        }
        let (lane, Some(mirror)) = (&mut subject.sources[source], subject.mirrors.get_mut(&volume)) else { return };
        let Some(range) = mirror.writing.take() else { return };
        if range.start == mirror.have {
            mirror.have = range.end;
            lane.watermark.have(volume, GENERATION, range.end);
        } else {
            mirror.unpark(&range);
            lane.watermark.unpark(volume, GENERATION, range);
        }
        self.fetch(datacenter, source, volume);
    }

    /// The lane's node is gone: what it had written and not synced, and all that it remembered.
    pub fn crash_blob_lane(&mut self, datacenter: usize) {
        let plant = self.plant();
        let subject = &mut self.datacenters[datacenter];
        subject.mirrors.values_mut().for_each(Mirror::crash);
        for source in &mut subject.sources {
            source.watermark = DataWatermark::planted(plant, source.reported.1);
            source.volumes_call = None;
        }
    }
}
