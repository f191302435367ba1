//! Sealing of a volume that has two replicas, with the shipped `Sealing`; the simulation's counterpart of control and of
//! `node/replica` (rule 1).
//!
//! Control asks both nodes, some of its questions are lost, and it decides with who has answered; without a complete
//! replica the volume stays *sealing* and is asked again. Invariants: a replica records the epoch behind its write in
//! progress and only then says how long it is; what was committed lies below the sealed length.

use meridian_replica::protocol::primary::Event as PrimaryEvent;
use meridian_replica::protocol::sealing::{Answer, Sealing};
use meridian_replica::protocol::secondary::Event as SecondaryEvent;
use meridian_types::{NodeId, VolumeId};

use crate::replicas::{SEALED, Step};
use crate::world::World;
use crate::{Checked, NODES, Violation};

/// The way between control and a node, in milliseconds.
const CALL_MS: (u64, u64) = (1, 60);
/// How often a question is lost, in a thousand.
const LOST_PER_MILLE: u64 = 200;
/// When control decides with who has answered, and when it asks again.
const DECIDE_MS: (u64, u64) = (150, 400);

impl World {
    /// The volume takes no further append and is to be sealed.
    pub fn give_up(&mut self, datacenter: usize, volume: VolumeId) {
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { return };
        let Some(replicas) = subject.replicas.as_mut().filter(|replicas| !replicas.given_up) else { return };
        replicas.given_up = true;
        let after_ms = self.rng.between(CALL_MS.0, DECIDE_MS.1);
        self.schedule_replicas(after_ms, datacenter, volume, Step::Seal);
    }

    /// A volume under load is given up: by an operator who drains its node, or because its primary was silent for a while.
    pub fn give_up_under_load(&mut self, datacenter: usize) {
        let is_busy = |volume: &&crate::volume::Volume| volume.is_open() && volume.replicas.is_some();
        let found = self.datacenters[datacenter].registry.volumes.values().find(is_busy).map(|volume| volume.id);
        if let Some(volume) = found {
            self.tally.add("volume: sealed under load", 1);
            self.give_up(datacenter, volume);
        }
    }

    pub fn seal(&mut self, datacenter: usize, volume: VolumeId) -> Checked {
        let plant = self.plant();
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { return Ok(()) };
        let is_sealed = subject.sealed;
        let Some(replicas) = subject.replicas.as_mut().filter(|_| !is_sealed) else { return Ok(()) };
        match replicas.seal.take() {
            None => {
                replicas.seal = Some(Sealing::planted(plant, SEALED, (0..NODES).map(|node| NodeId(node as u32)), 0));
                for node in 0..NODES {
                    if !self.rng.chance(LOST_PER_MILLE) {
                        let after_ms = self.rng.between(CALL_MS.0, CALL_MS.1);
                        self.schedule_replicas(after_ms, datacenter, volume, Step::Fence { node });
                    }
                }
            }
            // Decided with who has answered; without a complete replica everybody is asked again.
            Some(seal) => match seal.decide() {
                Ok(decision) => {
                    self.tally.add("C2 a sealed length holds all that was committed (rule 1)", 1);
                    if decision.length < subject.committed {
                        let what = format!(
                            "{volume:?} of {datacenter} is sealed at {} bytes, {} were acknowledged",
                            decision.length, subject.committed
                        );
                        return Err(Violation::new("C2 (rule 1)", what));
                    }
                    self.tally.add("… seals without a replica", u64::from(decision.complete.len() < NODES));
                    subject.seal_at(decision.length);
                    return Ok(());
                }
                Err(_) => self.tally.add("… seals undecided", 1),
            },
        }
        let after_ms = self.rng.between(DECIDE_MS.0, DECIDE_MS.1);
        self.schedule_replicas(after_ms, datacenter, volume, Step::Seal);
        Ok(())
    }

    /// A node is asked to record the epoch and to say how long its replica is. One without power says nothing.
    pub fn fence_replica(&mut self, datacenter: usize, volume: VolumeId, node: usize) -> Checked {
        if !self.datacenters[datacenter].nodes[node].alive {
            return Ok(());
        }
        // A batch that was held may be next when a write ends.
        while self.has_write(datacenter, volume, node) {
            self.end_write(datacenter, volume, node)?;
        }
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { return Ok(()) };
        let is_primary = subject.primary == node;
        let Some(replicas) = &mut subject.replicas else { return Ok(()) };
        let file = &mut replicas.files[node];
        let answer = if file.missing {
            Answer::Incomplete { reason: "it has no file".to_owned() }
        } else {
            file.fenced = true;
            Answer::Report { epoch: SEALED, length: file.durable, committed: file.committed }
        };
        if is_primary {
            self.primary(datacenter, volume, PrimaryEvent::Fenced)?;
        } else {
            self.secondary(datacenter, volume, SecondaryEvent::Fenced { epoch: SEALED })?;
        }
        let after_ms = self.rng.between(CALL_MS.0, CALL_MS.1);
        self.schedule_replicas(after_ms, datacenter, volume, Step::Fenced { node, answer });
        Ok(())
    }

    fn has_write(&self, datacenter: usize, volume: VolumeId, node: usize) -> bool {
        let subject = self.datacenters[datacenter].registry.volumes.get(&volume);
        let replicas = subject.and_then(|volume| volume.replicas.as_ref());
        replicas.is_some_and(|replicas| replicas.files[node].writing.is_some())
    }
}
