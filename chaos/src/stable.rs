//! Stable times in the simulation: members tell each other their committed reports, each computes what all have with the
//! shipped `StableView`, and commits it in its groups; the simulation's counterpart of `stable` in `node/replication`. It
//! also lets the third datacenter join late (rule 15).
//!
//! Invariants: a view starts at what is committed here and remembers no report over a crash; a joining datacenter starts
//! only after every member counts it, and serves clients only once it has all that they had: what it wrote before would be
//! concurrent with rows that they have let go; nothing is reclaimable before its successor is durable wherever it shall be (rule 14).

use meridian_index::{Command, queries};
use meridian_replicator::{MemberReport, SourceReport, StableTimes, StableView};
use meridian_types::{DatacenterId, Timestamp};

use crate::blob_lane::DRIVER;
use crate::datacenter::{Place, id_of};
use crate::group::Carries;
use crate::network::Message;
use crate::proposer::unreadable;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, NODES, Violation};

/// Time between two reports.
const REPORT_MS: (u64, u64) = (150, 350);
/// The datacenter that joins late, if any does.
pub const JOINING: usize = 2;

impl World {
    /// Tells the others what is committed here, and commits what all are known to have.
    pub fn stable_tick(&mut self, datacenter: usize) -> Checked {
        let after_ms = self.rng.between(REPORT_MS.0, REPORT_MS.1);
        self.schedule(after_ms, Event::StableTick { datacenter });
        let subject = &self.datacenters[datacenter];
        if !subject.nodes[DRIVER].alive {
            return Ok(());
        }
        let report = self.member_report(datacenter)?;
        for other in (0..DATACENTERS).filter(|other| *other != datacenter) {
            self.send(datacenter, other, Message::Member(report.clone()));
        }
        self.datacenters[datacenter].stable.report(report);
        let times = self.datacenters[datacenter].stable.times();
        for group in 0..=self.partitions {
            let place = Place { datacenter, group };
            let (id, subject) = (self.datacenters[datacenter].id, &self.datacenters[datacenter].groups[group]);
            if subject.leader.is_some() && queries::is_stable_due(&subject.kv, id, times).map_err(unreadable)? {
                self.append(place, &Command::Stable(times), Carries::Nothing);
            }
        }
        Ok(())
    }

    fn member_report(&self, datacenter: usize) -> Checked<MemberReport> {
        let subject = &self.datacenters[datacenter];
        let others = (0..DATACENTERS).filter(|other| *other != datacenter);
        let sources = others.map(|other| {
            let (meta, data) = subject.sources[other].reported;
            SourceReport { source: id_of(other), meta, data }
        });
        let sources = sources.collect();
        let mut stamped_through = Timestamp::ZERO;
        for group in &subject.groups {
            stamped_through = stamped_through.max(queries::state(&group.kv).map_err(unreadable)?.greatest);
        }
        Ok(MemberReport { member: subject.id, stamped_through, sources })
    }

    pub fn take_member_report(&mut self, datacenter: usize, report: MemberReport) {
        if self.datacenters[datacenter].nodes[DRIVER].alive {
            self.datacenters[datacenter].stable.report(report);
        }
    }

    /// The driver has started again: it knows what is committed, and the members.
    pub fn restart_stable(&mut self, datacenter: usize) -> Checked {
        let plant = self.plant();
        let subject = &mut self.datacenters[datacenter];
        let mut times = StableTimes::default();
        for group in &subject.groups {
            times = times.max(queries::stable(&group.kv).map_err(unreadable)?);
        }
        subject.stable = StableView::planted(plant, subject.members.iter().copied(), times);
        Ok(())
    }

    /// Rule 14: a group has committed stable times. What may be reclaimed since has successors whose bytes are durable in
    /// every member that mirrors their volumes.
    pub fn check_reclaimable(&mut self, place: Place) -> Checked {
        let kv = &self.datacenters[place.datacenter].groups[place.group].kv;
        let released = queries::stable(kv).map_err(unreadable)?;
        let rows = queries::reclaimable_planted(self.plant(), kv, usize::MAX).map_err(unreadable)?;
        let checked = self.datacenters[place.datacenter].groups[place.group].reclaim_checked;
        let is_restored = self.datacenters.iter().any(|datacenter| datacenter.restored);
        let mut looked_at = 0;
        for row in rows.iter().filter(|row| row.superseding.timestamp > checked && !is_restored) {
            let Some(operation_index) = self.oracle.by_stamp.get(&row.superseding).copied() else { continue };
            looked_at += 1;
            for (volume, span) in &self.operations[operation_index].spans {
                let owner = self.operations[operation_index].datacenter;
                let Some(found) = self.datacenters[owner].registry.volumes.get(volume) else { continue };
                for holder in found.mirrored_to.iter().copied() {
                    let member = self.datacenters[place.datacenter].members.contains(&id_of(holder));
                    let mirror = self.datacenters[holder].mirrors.get(volume);
                    if member && mirror.is_none_or(|mirror| !mirror.holds(span)) {
                        let what = format!(
                            "{:?} of {place:?} may be reclaimed at {released:?}, and bytes {span:?} of {volume:?} are not in {holder}",
                            row.key
                        );
                        return Err(Violation::new("C12 (rule 14)", what));
                    }
                }
            }
        }
        let group = &mut self.datacenters[place.datacenter].groups[place.group];
        group.reclaim_checked = rows.last().map_or(checked, |row| row.superseding.timestamp.max(checked));
        self.tally.add("C12 reclaimable only past its successor's bytes", looked_at);
        Ok(())
    }

    /// A member applies the entry that the third datacenter joins; the last of them to do so lets it start (rule 15).
    pub fn count_joining(&mut self, datacenter: usize) -> Checked {
        let joining: DatacenterId = id_of(JOINING);
        let subject = &mut self.datacenters[datacenter];
        if !subject.members.contains(&joining) {
            subject.members.push(joining);
            subject.stable.add_member(joining);
            // What all had before it was a member has been passed, also where that is still to be committed.
            let passed = subject.stable.times().data;
            for group in &mut subject.groups {
                group.reclaim_checked = group.reclaim_checked.max(passed);
            }
        }
        let all_count_it = (0..JOINING).all(|member| self.datacenters[member].members.contains(&joining));
        if all_count_it && self.datacenters[JOINING].members.is_empty() {
            self.join()?;
        }
        Ok(())
    }

    fn join(&mut self) -> Checked {
        self.tally.add("member: added", 1);
        self.datacenters[JOINING].members = (0..DATACENTERS).map(id_of).collect();
        self.datacenters[JOINING].joined_at = Some(self.true_time());
        self.restart_stable(JOINING)?;
        for node in 0..NODES {
            let life = self.datacenters[JOINING].nodes[node].life;
            self.node_up(JOINING, node, life)?;
        }
        Ok(())
    }

    /// Whether clients are served: always, but by a datacenter that is about to join or has not caught up since.
    pub fn serves(&mut self, datacenter: usize) -> bool {
        // A source on old disks may be held for good.
        let others: Vec<usize> =
            (0..DATACENTERS).filter(|other| *other != datacenter && !self.datacenters[*other].restored).collect();
        let subject = &mut self.datacenters[datacenter];
        if let Some(joined_at) = subject.joined_at {
            let has_all = |other: usize| subject.sources[other].reported.0 >= joined_at;
            if others.into_iter().all(has_all) {
                subject.joined_at = None;
            }
        }
        subject.joined_at.is_none() && !subject.members.is_empty()
    }

    /// In some runs the third datacenter is not there from the start.
    pub fn schedule_join(&mut self) {
        if !self.rng.chance(self.options.join_per_mille) {
            return;
        }
        let joining = id_of(JOINING);
        for datacenter in &mut self.datacenters {
            datacenter.members.retain(|member| *member != joining);
            datacenter.stable = StableView::planted(
                crate::planted::Sown::new(self.options.bug),
                datacenter.members.iter().copied(),
                StableTimes::default(),
            );
        }
        let third = &mut self.datacenters[JOINING];
        third.members.clear();
        third.nodes.iter_mut().for_each(|node| node.alive = false);
        let after_ms = self.rng.between(1_500, 6_000);
        for datacenter in 0..JOINING {
            let spread_ms = self.rng.below(1_000);
            self.schedule(after_ms + spread_ms, Event::CountJoining { datacenter });
        }
    }
}
