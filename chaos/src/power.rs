//! Power off and on, and disks that come back as they were some time ago.
//!
//! Invariants: a crash takes what was not synced, and nothing else; a restored datacenter starts a new incarnation of its
//! log and gives its old volumes up (rule 7).

use crate::blob_lane::DRIVER;
use crate::datacenter::Place;
use crate::workload::State;
use crate::world::{Event, World};
use crate::{Checked, NODES};

/// How long a datacenter is down while its disks are restored: longer than any clock was ahead before.
const RESTORE_MS: u64 = 5_000;
/// The furthest that a clock is wrong at a boot. What a node stamps before it has heard its peers is as wrong, and a run
/// must outlast that.
const BOOT_OFFSET_MS_MAX: i64 = 4_000;

impl World {
    /// A node loses its power, and is back after a while.
    pub fn crash(&mut self, datacenter: usize, node: usize, down_ms: u64) -> Checked {
        let bound_arrived = self.rng.chance(500);
        let subject = &mut self.datacenters[datacenter].nodes[node];
        if !subject.alive {
            return Ok(());
        }
        subject.crash(bound_arrived);
        let life = subject.life;
        for volume in self.datacenters[datacenter].registry.volumes.values_mut() {
            if volume.primary == node && !volume.sealed && volume.replicas.is_none() {
                volume.crash(self.rng.chance(500));
            }
        }
        self.crash_replicas(datacenter, node);
        if node == DRIVER {
            self.crash_blob_lane(datacenter);
        }
        for group in 0..=self.partitions {
            let place = Place { datacenter, group };
            if self.group(place).leader == Some(node) {
                self.lose_leader(place)?;
            }
        }
        self.schedule(down_ms, Event::NodeUp { datacenter, node, life });
        Ok(())
    }

    pub fn node_up(&mut self, datacenter: usize, node: usize, life: u32) -> Checked {
        let now_ms = self.now_ms;
        let subject = &mut self.datacenters[datacenter].nodes[node];
        if subject.alive || subject.life != life {
            return Ok(());
        }
        if (subject.offset_ms - subject.offset_base_ms).abs() > BOOT_OFFSET_MS_MAX {
            subject.offset_ms = subject.offset_base_ms; // the boot has set the clock
        }
        subject.restart(now_ms);
        if node == DRIVER {
            self.restart_stable(datacenter)?;
        }
        self.restart_replicas(datacenter, node)?;
        let subject = &mut self.datacenters[datacenter].nodes[node];
        self.believed_offset_ms_max = self.believed_offset_ms_max.max(subject.offset_ms);
        for group in 0..=self.partitions {
            let place = Place { datacenter, group };
            let (term, after_ms) = (self.group(place).term, self.rng.between(20, 200));
            if self.group(place).leader.is_none() {
                self.schedule(after_ms, Event::Election { place, term });
            }
        }
        Ok(())
    }

    /// A datacenter comes back with all its disks as they were when they were copied (rule 7). What it acknowledged
    /// since is forgotten there; its boot counters tell, so it starts a new incarnation of its log.
    pub fn restore_disks(&mut self, datacenter: usize) -> Checked {
        let Some(copy) = self.disk_copies.remove(&datacenter) else { return Ok(()) };
        if self.datacenters[datacenter].members.is_empty() {
            return Ok(()); // it has not joined yet
        }
        self.tally.add("disk: restored", 1);
        self.end_sessions();
        for node in 0..NODES {
            self.crash(datacenter, node, RESTORE_MS)?;
            let (alive, life) =
                (self.datacenters[datacenter].nodes[node].alive, self.datacenters[datacenter].nodes[node].life);
            debug_assert!(!alive, "just crashed");
            self.datacenters[datacenter].nodes[node].life = life + 1; // also where it was down already
            self.schedule(RESTORE_MS, Event::NodeUp { datacenter, node, life: life + 1 });
        }
        self.datacenters[datacenter].restore(&copy);
        self.datacenters[datacenter].incarnation.0 += 1;
        for (operation_index, operation) in self.operations.iter_mut().enumerate() {
            if operation.datacenter != datacenter {
                continue;
            }
            match operation.state {
                State::Acknowledged(stamp) if copy.model.groups[operation.group].applied.contains(&stamp) => {}
                State::Refused => {}
                State::Acknowledged(_) | State::Running | State::Unknown => {
                    operation.forgotten = true;
                    operation.state = State::Unknown;
                    self.oracle.commits.remove(&operation_index);
                }
            }
        }
        for group in &mut self.datacenters[datacenter].groups {
            group.queue.clear();
        }
        self.oracle.datacenters[datacenter] = copy.model;
        Ok(())
    }
}
