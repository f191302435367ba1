//! The probe: now and then it takes every datacenter for lost, one after the other, and holds what would be gone against
//! the watermarks that the others report (C12). It also ends the run when everything is everywhere.
//!
//! Invariant: a probe changes nothing but the reports.

use meridian_index::queries;
use meridian_replicator::meta_watermark;

use crate::blob_lane::DRIVER;
use crate::proposer::unreadable;
use crate::volume::Mirror;
use crate::workload::State;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, Violation};

/// Time between two probes.
const PROBE_MS: u64 = 200;

impl World {
    pub fn probe(&mut self) -> Checked {
        for datacenter in 0..DATACENTERS {
            for source in (0..DATACENTERS).filter(|source| *source != datacenter) {
                self.report_watermarks(datacenter, source)?;
                self.check_loss(source, datacenter)?;
            }
        }
        if self.has_converged()? {
            self.converged = true;
        } else {
            self.schedule(PROBE_MS, Event::Probe);
        }
        Ok(())
    }

    /// What a datacenter commits as its report on a source.
    fn report_watermarks(&mut self, datacenter: usize, source: usize) -> Checked {
        if !self.datacenters[datacenter].nodes[DRIVER].alive {
            return Ok(());
        }
        let id = self.datacenters[source].id;
        let mut applied_through = Vec::new();
        for group in &self.datacenters[datacenter].groups {
            applied_through.push(queries::cursor(&group.kv, id).map_err(unreadable)?.applied_through);
        }
        let known = &mut self.datacenters[datacenter].sources[source];
        let meta = meta_watermark(applied_through.into_iter());
        known.watermark.set_meta(meta);
        let (before, now) = (known.reported, (meta, known.watermark.value()));
        known.reported = now;
        self.tally.add("C12 watermarks only forward", 1);
        if now.0 < before.0 || now.1 < before.1 || now.1 > now.0.max(before.1) {
            let what = format!("watermarks {source}→{datacenter} went from {before:?} to {now:?}");
            return Err(Violation::new("C12", what));
        }
        Ok(())
    }

    /// If `source` were lost now: which of its acknowledged writes would be gone in `datacenter`?
    fn check_loss(&mut self, source: usize, datacenter: usize) -> Checked {
        let (meta, data) = self.datacenters[datacenter].sources[source].reported;
        let (mut lost_rows, mut lost_bytes) = (0, 0);
        for operation in self.operations.iter().filter(|operation| operation.datacenter == source) {
            let State::Acknowledged(stamp) = operation.state else { continue };
            if operation.forgotten {
                continue; // lost already, and said so when its disk was restored
            }
            let here = &self.oracle.datacenters[datacenter].groups[operation.group];
            if !here.applied.contains(&stamp) {
                lost_rows += 1;
                if stamp.timestamp <= meta {
                    let what =
                        format!("{stamp} of {source} is not in {datacenter}, whose W_meta is {meta}: {operation:?}");
                    return Err(Violation::new("C12", what));
                }
            }
            for (volume, span) in &operation.spans {
                let owner = self.datacenters[source].registry.volumes.get(volume);
                if owner.is_none_or(|owner| !owner.mirrored_to.contains(&datacenter)) {
                    continue; // no copy there by policy
                }
                let mirror: Option<&Mirror> = self.datacenters[datacenter].mirrors.get(volume);
                if mirror.is_none_or(|mirror| !mirror.holds(span)) {
                    lost_bytes += 1;
                    if stamp.timestamp <= data {
                        let what = format!(
                            "bytes {span:?} of {volume:?}, stamped {stamp}, are not in {datacenter}: W_data is {data}"
                        );
                        return Err(Violation::new("C12", what));
                    }
                }
            }
        }
        self.tally.add("C12 lost metadata above W_meta", lost_rows);
        self.tally.add("C12 lost bytes above W_data", lost_bytes);
        Ok(())
    }
}
