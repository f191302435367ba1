//! What strikes: links, power, clocks, disks. Which, where, when and for how long is drawn at the start of a run.
//!
//! Invariants: every fault of a run has ended when the healed phase begins; what a fault took back, it takes back once.

use crate::datacenter::{Place, SYNC_MS_MAX};
use crate::run::SAFETY_MS;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, NODES};

/// Faults of a run.
const FAULTS_PER_RUN: (u64, u64) = (8, 13);
/// So long before the heal nothing waits any more.
const LAST_STRIKE_MS: u64 = 600;
/// How long one lasts.
const DURATION_MS: (u64, u64) = (300, 4_000);
/// How often one of a datacenter's disks is wiped, in a thousand runs.
const WIPED_PER_MILLE: u64 = 250;
/// Volumes of each datacenter that are sealed while they take appends.
const SEALED_UNDER_LOAD: u64 = 2;
/// How often in a thousand milliseconds a crash goes on waiting for something that it can interrupt.
const WAITING_PER_MILLE: u64 = 980;

#[derive(Debug, Clone)]
pub enum Fault {
    /// Ways that carry nothing.
    Cut {
        name: &'static str,
        ways: Vec<(usize, usize)>,
    },
    Loss(u64),
    Duplication(u64),
    Reordering(u64),
    Corruption(u64),
    CrashNode {
        datacenter: usize,
        node: usize,
    },
    CrashDatacenter {
        datacenter: usize,
    },
    LeaderChange(Place),
    /// The wall clock leaps under a running node.
    ClockJump {
        datacenter: usize,
        node: usize,
        by_ms: i64,
    },
    /// A node starts again with a clock that is wrong.
    SkewedRestart {
        datacenter: usize,
        node: usize,
        by_ms: i64,
    },
    SlowDisk {
        datacenter: usize,
        sync_ms_max: u64,
    },
    /// A node loses its power and what it had of volumes with two replicas.
    WipeReplicas {
        datacenter: usize,
        node: usize,
    },
    /// A volume that takes appends is sealed.
    SealUnderLoad {
        datacenter: usize,
    },
    CopyDisks {
        datacenter: usize,
    },
    RestoreDisks {
        datacenter: usize,
    },
    /// The end of all faults.
    Heal,
}

impl World {
    pub fn schedule_faults(&mut self) {
        for number in 0..self.rng.between(FAULTS_PER_RUN.0, FAULTS_PER_RUN.1) {
            let (fault, after_ms) = (self.draw_fault(number), self.rng.between(300, SAFETY_MS - 1_000));
            let duration_ms = self.rng.between(DURATION_MS.0, DURATION_MS.1);
            self.schedule(after_ms, Event::Fault(fault.clone()));
            self.schedule(after_ms + duration_ms, Event::FaultEnds(fault));
        }
        if self.rng.chance(self.options.restore_per_mille) {
            let datacenter = self.rng.index(DATACENTERS);
            let copied_ms = self.rng.between(1_500, 4_000);
            let restored_ms = copied_ms + self.rng.between(200, 2_500);
            self.schedule(copied_ms, Event::Fault(Fault::CopyDisks { datacenter }));
            self.schedule(restored_ms, Event::Fault(Fault::RestoreDisks { datacenter }));
        }
        // One disk of a datacenter: two would be two failures at once.
        for datacenter in 0..DATACENTERS {
            if self.rng.chance(WIPED_PER_MILLE) {
                let node = self.rng.index(NODES);
                let after_ms = self.rng.between(1_000, SAFETY_MS - 1_000);
                self.schedule(after_ms, Event::Fault(Fault::WipeReplicas { datacenter, node }));
            }
            for _ in 0..SEALED_UNDER_LOAD {
                let after_ms = self.rng.between(1_000, SAFETY_MS - 1_000);
                self.schedule(after_ms, Event::Fault(Fault::SealUnderLoad { datacenter }));
            }
        }
        self.schedule(SAFETY_MS, Event::Fault(Fault::Heal));
    }

    /// `number` tells the faults of a run apart.
    fn draw_fault(&mut self, number: u64) -> Fault {
        let (datacenter, node) = (self.rng.index(DATACENTERS), self.rng.index(NODES));
        let other = (datacenter + 1 + self.rng.index(DATACENTERS - 1)) % DATACENTERS;
        let group = self.rng.index(self.partitions + 1);
        match self.rng.below(16) {
            0 => {
                let mut ways = vec![(datacenter, other), (other, datacenter)];
                if self.rng.chance(500) {
                    let third = DATACENTERS - datacenter - other;
                    ways.extend([(datacenter, third), (third, datacenter)]); // alone
                }
                Fault::Cut { name: "cut: symmetric", ways }
            }
            1 => Fault::Cut { name: "cut: one-way", ways: vec![(datacenter, other)] },
            2 => Fault::Cut { name: "cut: A-C only", ways: vec![(0, 2), (2, 0)] },
            3 => Fault::Loss(self.rng.between(50, 400)),
            4 => Fault::Duplication(self.rng.between(100, 500)),
            5 => Fault::Reordering(self.rng.between(100, 600)),
            6 => Fault::Corruption(self.rng.between(200, 900)),
            7 | 8 => Fault::CrashNode { datacenter, node },
            9 => Fault::CrashDatacenter { datacenter },
            10 | 11 => Fault::LeaderChange(Place { datacenter, group }),
            12 | 13 => {
                // No two clocks leap alike: a guard rightly believes a clock that most of its peers agree with.
                let by_ms = i64::try_from(6_000 + 4_000 * number + self.rng.below(1_000)).expect("small");
                let by_ms = if self.rng.chance(400) { -by_ms } else { by_ms };
                Fault::ClockJump { datacenter, node, by_ms }
            }
            14 => {
                let by_ms = i64::try_from(self.rng.between(700, 4_000)).expect("small");
                let by_ms = if self.rng.chance(250) { -by_ms } else { by_ms };
                Fault::SkewedRestart { datacenter, node, by_ms }
            }
            _ => Fault::SlowDisk { datacenter, sync_ms_max: self.rng.between(100, 600) },
        }
    }

    /// A fault begins.
    pub fn strike(&mut self, fault: &Fault) -> Checked {
        if self.healed_at_ms.is_some() {
            return Ok(());
        }
        // One that would find nobody, or nothing under way, waits; but not so long that the run ends without it.
        let has_time = self.now_ms < SAFETY_MS - LAST_STRIKE_MS;
        let finds_nobody = matches!(fault, Fault::LeaderChange(place) if self.group(*place).leader.is_none());
        if has_time && (finds_nobody || (self.waits_for_work(fault) && self.rng.chance(WAITING_PER_MILLE))) {
            self.schedule(1, Event::Fault(fault.clone()));
            return Ok(());
        }
        let has_struck = match fault {
            Fault::LeaderChange(place) => self.group(*place).leader.is_some(),
            Fault::SealUnderLoad { .. } | Fault::CopyDisks { .. } | Fault::RestoreDisks { .. } | Fault::Heal => false,
            _ => true,
        };
        self.struck += u64::from(has_struck); // sealed volumes and restored disks come on top
        match fault {
            Fault::Cut { name, ways } => {
                self.tally.add(name, 1);
                ways.iter().for_each(|(from, to)| self.network.cut(*from, *to));
            }
            Fault::Loss(per_mille) => {
                self.tally.add("link: loss", 1);
                self.network.loss_per_mille = *per_mille;
            }
            Fault::Duplication(per_mille) => {
                self.tally.add("link: duplication", 1);
                self.network.duplicate_per_mille = *per_mille;
            }
            Fault::Reordering(per_mille) => {
                self.tally.add("link: reordering", 1);
                self.network.reorder_per_mille = *per_mille;
            }
            Fault::Corruption(per_mille) => self.network.corrupt_per_mille = *per_mille,
            Fault::CrashNode { datacenter, node } => {
                self.tally.add("crash: node", 1);
                let down_ms = self.rng.between(50, 1_500);
                self.crash(*datacenter, *node, down_ms)?;
            }
            Fault::CrashDatacenter { datacenter } => {
                self.tally.add("crash: datacenter", 1);
                for node in 0..NODES {
                    let down_ms = self.rng.between(50, 1_500);
                    self.crash(*datacenter, node, down_ms)?;
                }
            }
            Fault::LeaderChange(place) => {
                if self.group(*place).leader.is_some() {
                    self.tally.add("leader change", 1);
                    self.lose_leader(*place)?;
                }
            }
            Fault::ClockJump { datacenter, node, by_ms } => {
                self.tally.add("clock: jump", 1);
                self.datacenters[*datacenter].nodes[*node].offset_ms += by_ms;
            }
            Fault::SkewedRestart { datacenter, node, by_ms } => {
                self.tally.add("clock: skew beyond the limit", 1);
                let down_ms = self.rng.between(50, 300);
                self.crash(*datacenter, *node, down_ms)?;
                let subject = &mut self.datacenters[*datacenter].nodes[*node];
                subject.offset_ms = subject.offset_base_ms + by_ms;
            }
            Fault::SlowDisk { datacenter, sync_ms_max } => {
                self.tally.add("disk: slow", 1);
                self.datacenters[*datacenter].sync_ms_max = *sync_ms_max;
            }
            Fault::WipeReplicas { datacenter, node } => {
                self.tally.add("disk: wiped", 1);
                let down_ms = self.rng.between(50, 1_500);
                self.crash(*datacenter, *node, down_ms)?;
                self.wipe_replicas(*datacenter, *node);
            }
            Fault::SealUnderLoad { datacenter } => self.give_up_under_load(*datacenter),
            Fault::CopyDisks { datacenter } => {
                let copy = self.datacenters[*datacenter].copy_disks(&self.oracle.datacenters[*datacenter]);
                self.disk_copies.insert(*datacenter, copy);
            }
            Fault::RestoreDisks { datacenter } => self.restore_disks(*datacenter)?,
            Fault::Heal => self.heal(),
        }
        Ok(())
    }

    /// A crash is the more telling the more is under way.
    fn waits_for_work(&self, fault: &Fault) -> bool {
        let datacenter = match fault {
            Fault::CrashNode { datacenter, .. } | Fault::CrashDatacenter { datacenter } => *datacenter,
            Fault::LeaderChange(place) => place.datacenter,
            _ => return false,
        };
        !self.datacenters[datacenter].groups.iter().any(|group| group.has_work_under_way())
    }

    pub fn end_fault(&mut self, fault: &Fault) -> Checked {
        if self.healed_at_ms.is_some() {
            return Ok(());
        }
        match fault {
            Fault::Cut { ways, .. } => ways.iter().for_each(|(from, to)| self.network.mend(*from, *to)),
            Fault::Loss(_) => self.network.loss_per_mille = 0,
            Fault::Duplication(_) => self.network.duplicate_per_mille = 0,
            Fault::Reordering(_) => self.network.reorder_per_mille = 0,
            Fault::Corruption(_) => self.network.corrupt_per_mille = 0,
            Fault::ClockJump { datacenter, node, .. } | Fault::SkewedRestart { datacenter, node, .. } => {
                let subject = &mut self.datacenters[*datacenter].nodes[*node];
                subject.offset_ms = subject.offset_base_ms;
            }
            Fault::SlowDisk { datacenter, .. } => self.datacenters[*datacenter].sync_ms_max = SYNC_MS_MAX,
            _ => {} // it ends by itself
        }
        Ok(())
    }
}
