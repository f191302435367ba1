//! The replicas of a volume that has two in its datacenter, one on each node: the shipped cores of `meridian-replica` over
//! models of files, syncs and calls. What seals such a volume stands in `sealing`.
//!
//! Bytes are counted and never stored. Invariants: a file holds what was synced, and of the write in progress a crash
//! keeps all or nothing; a call is answered, or its sender hears of its end; what a needle's operation is told comes from
//! the primary's `Commit` alone.

use std::collections::{BTreeMap, VecDeque};

use meridian_replica::protocol::Session;
use meridian_replica::protocol::primary::{Effect as PrimaryEffect, Event as PrimaryEvent, Primary};
use meridian_replica::protocol::sealing::{Answer, Sealing};
use meridian_replica::protocol::secondary::{Effect, Event as SecondaryEvent, Refused, Secondary};
use meridian_types::{Epoch, NodeId, VolumeId};

use crate::planted::Sown;
use crate::world::{Event, World};
use crate::{Checked, NODES, Violation};

/// The epoch that appends are made under, and that of the one seal that ends them.
pub const FIRST: Epoch = Epoch(1);
pub const SEALED: Epoch = Epoch(2);
/// The way between two nodes of a datacenter, in milliseconds.
const CALL_MS: (u64, u64) = (1, 4);
/// When a call is given up.
const CALL_DEADLINE_MS: u64 = 400;

/// What happens to the replicas of one volume.
#[derive(Debug, Clone)]
pub enum Step {
    /// The volume is made, and its primary begins.
    Start,
    /// A call reaches the secondary.
    Called {
        request: u64,
    },
    /// The primary hears of a call.
    Heard {
        request: u64,
        event: PrimaryEvent,
    },
    TimedOut {
        request: u64,
    },
    /// A write has ended.
    Written {
        node: usize,
        life: u32,
        to: u64,
    },
    /// Control seals the volume, or goes on with that.
    Seal,
    /// The seal's question reaches a node.
    Fence {
        node: usize,
    },
    /// Its answer reaches control.
    Fenced {
        node: usize,
        answer: Answer,
    },
}

/// One replica's file.
#[derive(Debug, Clone, Default)]
pub struct ReplicaFile {
    /// The disk was wiped.
    pub missing: bool,
    pub durable: u64,
    pub committed: u64,
    pub fenced: bool,
    /// Where the write in progress ends, and the request that it is for on the secondary.
    pub writing: Option<(u64, u64)>,
}

/// A call of the primary's that is not answered.
#[derive(Debug, Clone)]
struct Asked {
    event: SecondaryEvent,
    attempt: u32,
    primary_life: u32,
}

#[derive(Debug, Clone)]
pub struct Replicas {
    pub files: [ReplicaFile; NODES],
    pub primary: Option<Primary>,
    pub secondary: Option<Secondary<Sown>>,
    /// Needles that are placed and not committed: where each ends, and its operation.
    waiting: VecDeque<(u64, usize)>,
    /// Where the batch that ends at a place begins.
    batches: BTreeMap<u64, u64>,
    asked: BTreeMap<u64, Asked>,
    pub seal: Option<Sealing<Sown>>,
    /// Control seals it.
    pub given_up: bool,
}

impl Replicas {
    pub fn new(primary: usize, plant: Sown) -> Self {
        Self {
            files: Default::default(),
            primary: Some(Primary::new([NodeId(other(primary) as u32)], 0, 0)),
            secondary: Some(Secondary::planted(plant, FIRST, 0, 0)),
            waiting: VecDeque::new(),
            batches: BTreeMap::new(),
            asked: BTreeMap::new(),
            seal: None,
            given_up: false,
        }
    }
}

impl Replicas {
    /// Whether a primary lives that may take appends, now or once it has begun.
    pub fn has_primary(&self) -> bool {
        self.primary.as_ref().is_some_and(|primary| !primary.is_ended())
    }
}

fn other(node: usize) -> usize {
    NODES - 1 - node
}

impl World {
    pub fn schedule_replicas(&mut self, after_ms: u64, datacenter: usize, volume: VolumeId, step: Step) {
        self.schedule(after_ms, Event::Replicas { datacenter, volume, step: Box::new(step) });
    }

    fn replicas(&mut self, datacenter: usize, volume: VolumeId) -> Option<&mut Replicas> {
        self.datacenters[datacenter].registry.volumes.get_mut(&volume)?.replicas.as_mut()
    }

    pub fn step_replicas(&mut self, datacenter: usize, volume: VolumeId, step: Step) -> Checked {
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get(&volume) else { return Ok(()) };
        let primary = subject.primary;
        let life = |node: usize| self.datacenters[datacenter].nodes[node].life;
        let (primary_life, is_up) = (life(primary), |node: usize| self.datacenters[datacenter].nodes[node].alive);
        let (secondary_is_up, own_life) = (is_up(other(primary)), [life(0), life(1)]);
        let Some(replicas) = self.replicas(datacenter, volume) else { return Ok(()) };
        match step {
            Step::Start => self.start_primary(datacenter, volume),
            Step::Called { request } => {
                let Some(asked) = replicas.asked.get(&request).cloned() else { return Ok(()) };
                if !secondary_is_up || replicas.secondary.is_none() {
                    let reason = "it does not have the volume".to_owned();
                    let event = PrimaryEvent::LinkFailed { node: NodeId(other(primary) as u32), reason };
                    return self.answer(datacenter, volume, request, event);
                }
                self.secondary(datacenter, volume, asked.event)
            }
            Step::Heard { request, event } => match replicas.asked.remove(&request) {
                Some(asked) if asked.primary_life == primary_life => self.primary(datacenter, volume, event),
                _ => Ok(()),
            },
            Step::TimedOut { request } => {
                if !replicas.asked.contains_key(&request) {
                    return Ok(());
                }
                let (node, reason) = (NodeId(other(primary) as u32), "its deadline passed".to_owned());
                self.answer(datacenter, volume, request, PrimaryEvent::LinkFailed { node, reason })
            }
            Step::Written { node, life, to } => {
                let is_current = replicas.files[node].writing.is_some_and(|(writing, _)| writing == to);
                if own_life[node] != life || !is_current {
                    return Ok(());
                }
                self.end_write(datacenter, volume, node)
            }
            Step::Seal => self.seal(datacenter, volume),
            Step::Fence { node } => self.fence_replica(datacenter, volume, node),
            Step::Fenced { node, answer } => {
                if let Some(seal) = &mut replicas.seal {
                    seal.answered(NodeId(node as u32), answer);
                }
                Ok(())
            }
        }
    }

    /// The primary begins the session.
    pub fn start_primary(&mut self, datacenter: usize, volume: VolumeId) -> Checked {
        self.primary(datacenter, volume, PrimaryEvent::Start)
    }

    /// Whether the primary takes a needle now; else it is to be asked again soon.
    pub fn has_room(&self, datacenter: usize, volume: VolumeId) -> bool {
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get(&volume) else { return false };
        let Some(replicas) = &subject.replicas else { return true };
        let is_idle = replicas.files[subject.primary].writing.is_none();
        is_idle && replicas.primary.as_ref().is_some_and(Primary::has_room)
    }

    /// A needle is placed behind the last one, up to `end`.
    pub fn place(&mut self, datacenter: usize, volume: VolumeId, from: u64, end: u64, operation: usize) -> Checked {
        let Some(replicas) = self.replicas(datacenter, volume) else { return Ok(()) };
        replicas.batches.insert(end, from);
        replicas.waiting.push_back((end, operation));
        self.tally.add("… batches sent to a replica", 1);
        self.primary(datacenter, volume, PrimaryEvent::Placed { end })
    }

    pub fn primary(&mut self, datacenter: usize, volume: VolumeId, event: PrimaryEvent) -> Checked {
        let mut effects = Vec::new();
        let Some(core) = self.replicas(datacenter, volume).and_then(|replicas| replicas.primary.as_mut()) else {
            return Ok(());
        };
        core.step(event, &mut effects);
        for effect in effects {
            self.perform(datacenter, volume, effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, datacenter: usize, volume: VolumeId, effect: PrimaryEffect) -> Checked {
        let request = self.name();
        let node = self.datacenters[datacenter].registry.volumes[&volume].primary;
        let life = self.datacenters[datacenter].nodes[node].life;
        let (epoch, session) = (FIRST, Session(u64::from(life) + 1));
        match effect {
            PrimaryEffect::Begin { attempt, .. } => {
                self.ask(datacenter, volume, request, attempt, SecondaryEvent::Begin { request, epoch, session });
            }
            PrimaryEffect::Send { attempt, to, committed, .. } => {
                let Some(replicas) = self.replicas(datacenter, volume) else { return Ok(()) };
                let offset = replicas.batches.get(&to).copied().unwrap_or(0);
                let append = SecondaryEvent::Append { request, epoch, session, offset, to, committed };
                self.ask(datacenter, volume, request, attempt, append);
            }
            PrimaryEffect::Tell { committed, .. } => {
                let tell = SecondaryEvent::Tell { request, epoch, session, committed };
                self.ask(datacenter, volume, request, 0, tell);
            }
            PrimaryEffect::Write { to } => self.start_write(datacenter, volume, node, (to, 0)),
            PrimaryEffect::Commit { to } => return self.commit_needles(datacenter, volume, to),
            PrimaryEffect::Fail { .. } => {
                self.give_up(datacenter, volume);
                self.fail_needles(datacenter, volume);
            }
        }
        Ok(())
    }

    fn ask(&mut self, datacenter: usize, volume: VolumeId, request: u64, attempt: u32, event: SecondaryEvent) {
        let node = self.datacenters[datacenter].registry.volumes[&volume].primary;
        let primary_life = self.datacenters[datacenter].nodes[node].life;
        let Some(replicas) = self.replicas(datacenter, volume) else { return };
        replicas.asked.insert(request, Asked { event, attempt, primary_life });
        let after_ms = self.rng.between(CALL_MS.0, CALL_MS.1);
        self.schedule_replicas(after_ms, datacenter, volume, Step::Called { request });
        self.schedule_replicas(CALL_DEADLINE_MS, datacenter, volume, Step::TimedOut { request });
    }

    fn answer(&mut self, datacenter: usize, volume: VolumeId, request: u64, event: PrimaryEvent) -> Checked {
        let after_ms = self.rng.between(CALL_MS.0, CALL_MS.1);
        self.schedule_replicas(after_ms, datacenter, volume, Step::Heard { request, event });
        Ok(())
    }

    pub fn secondary(&mut self, datacenter: usize, volume: VolumeId, event: SecondaryEvent) -> Checked {
        let node = other(self.datacenters[datacenter].registry.volumes[&volume].primary);
        let mut effects = Vec::new();
        let Some(core) = self.replicas(datacenter, volume).and_then(|replicas| replicas.secondary.as_mut()) else {
            return Ok(());
        };
        core.step(event, &mut effects);
        for effect in effects {
            let Some(replicas) = self.replicas(datacenter, volume) else { return Ok(()) };
            match effect {
                Effect::Write { request } => {
                    let Some(Asked { event: SecondaryEvent::Append { to, .. }, .. }) = replicas.asked.get(&request)
                    else {
                        // Its sender has given up; the core knows it no more than by its bytes.
                        continue;
                    };
                    let to = *to;
                    self.start_write(datacenter, volume, node, (to, request));
                }
                Effect::Answer { request, outcome } => {
                    let Some(asked) = replicas.asked.get(&request) else { continue };
                    let (attempt, began) = (asked.attempt, matches!(asked.event, SecondaryEvent::Begin { .. }));
                    if attempt == 0 {
                        replicas.asked.remove(&request);
                        continue; // a tell
                    }
                    let of = NodeId(node as u32);
                    let event = match outcome {
                        Ok(end) if began => PrimaryEvent::Begun { node: of, attempt, end },
                        Ok(end) => PrimaryEvent::Acknowledged { node: of, end },
                        Err(Refused::UnknownSession) => PrimaryEvent::SessionLost { node: of, attempt },
                        Err(refused) => PrimaryEvent::LinkFailed { node: of, reason: refused.to_string() },
                    };
                    self.answer(datacenter, volume, request, event)?;
                }
                Effect::Commit { to } => replicas.files[node].committed = to,
            }
        }
        Ok(())
    }

    fn start_write(&mut self, datacenter: usize, volume: VolumeId, node: usize, (to, request): (u64, u64)) {
        let life = self.datacenters[datacenter].nodes[node].life;
        let after_ms = self.sync_ms(datacenter);
        let Some(replicas) = self.replicas(datacenter, volume) else { return };
        replicas.files[node].writing = Some((to, request));
        self.schedule_replicas(after_ms, datacenter, volume, Step::Written { node, life, to });
    }

    pub fn end_write(&mut self, datacenter: usize, volume: VolumeId, node: usize) -> Checked {
        let primary = self.datacenters[datacenter].registry.volumes[&volume].primary;
        let Some(replicas) = self.replicas(datacenter, volume) else { return Ok(()) };
        let Some((end, _)) = replicas.files[node].writing.take() else { return Ok(()) };
        replicas.files[node].durable = end;
        if node == primary {
            self.primary(datacenter, volume, PrimaryEvent::Synced { end })
        } else {
            self.secondary(datacenter, volume, SecondaryEvent::Synced)
        }
    }

    /// Everything up to `to` is on both replicas: its operations are told.
    fn commit_needles(&mut self, datacenter: usize, volume: VolumeId, to: u64) -> Checked {
        let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { return Ok(()) };
        self.tally.add("C2 a sealed volume commits nothing late (rule 1)", 1);
        if subject.sealed && to > subject.committed {
            let what = format!("{volume:?} of {datacenter} is sealed at {} and commits {to}", subject.committed);
            return Err(Violation::new("C2 (rule 1)", what));
        }
        subject.synced(to);
        let node = subject.primary;
        let Some(replicas) = &mut subject.replicas else { return Ok(()) };
        self.tally.add("C2 what is committed is synced on every replica", 1);
        if let Some(behind) = replicas.files.iter().position(|file| !file.missing && file.durable < to) {
            let durable = replicas.files[behind].durable;
            let what = format!("{volume:?} of {datacenter} commits {to}, and node {behind} has synced {durable}");
            return Err(Violation::new("C2 (promise 1)", what));
        }
        replicas.files[node].committed = to;
        let mut told = Vec::new();
        while replicas.waiting.front().is_some_and(|(end, _)| *end <= to) {
            told.extend(replicas.waiting.pop_front());
        }
        for (end, operation_index) in told {
            if let Some((start, stamp)) = self.operations[operation_index].needle.take() {
                self.needle_stored(operation_index, volume, start..end, stamp);
            }
        }
        Ok(())
    }

    /// Their operations take another volume.
    fn fail_needles(&mut self, datacenter: usize, volume: VolumeId) {
        let Some(replicas) = self.replicas(datacenter, volume) else { return };
        for (_, operation_index) in std::mem::take(&mut replicas.waiting) {
            self.operations[operation_index].needle = None;
            let after_ms = self.rng.between(20, 200);
            self.schedule(after_ms, Event::Step { operation_index });
        }
    }

    /// A node has lost its power, and with it its part of every volume that has two.
    pub fn crash_replicas(&mut self, datacenter: usize, node: usize) {
        let volumes: Vec<VolumeId> = self.datacenters[datacenter].registry.volumes.keys().copied().collect();
        for volume in volumes {
            let (survives, keeps, gives_up) = (self.rng.chance(500), self.rng.below(3), self.rng.chance(500));
            let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { continue };
            let (is_primary, is_sealed) = (subject.primary == node, subject.sealed);
            let Some(replicas) = &mut subject.replicas else { continue };
            let file = &mut replicas.files[node];
            if let Some((to, _)) = file.writing.take().filter(|_| survives) {
                file.durable = to;
            }
            file.committed = file.committed * keeps / 2; // what a journal can prove may fall back
            if is_primary {
                replicas.primary = None;
                replicas.asked.clear();
                self.fail_needles(datacenter, volume);
            } else {
                replicas.secondary = None;
            }
            if is_primary && gives_up && !is_sealed {
                self.give_up(datacenter, volume);
            }
        }
    }

    /// A node is back: its replicas go on, unless they are gone or being sealed.
    pub fn restart_replicas(&mut self, datacenter: usize, node: usize) -> Checked {
        let plant = self.plant();
        let volumes: Vec<VolumeId> = self.datacenters[datacenter].registry.volumes.keys().copied().collect();
        for volume in volumes {
            let Some(subject) = self.datacenters[datacenter].registry.volumes.get_mut(&volume) else { continue };
            let is_primary = subject.primary == node;
            let Some(replicas) = &mut subject.replicas else { continue };
            let file = &replicas.files[node];
            let (durable, committed) = (file.durable, file.committed);
            if file.missing || file.fenced || subject.sealed {
                continue; // the file answers for itself
            }
            if !is_primary {
                replicas.secondary = Some(Secondary::planted(plant, FIRST, durable, committed));
            } else if !replicas.given_up {
                replicas.primary = Some(Primary::new([NodeId(other(node) as u32)], durable, committed));
                subject.cut_back_to(durable);
                self.start_primary(datacenter, volume)?;
            }
        }
        Ok(())
    }

    /// A disk is wiped: every replica there is gone, but of volumes whose seal is under way. Then the only replica that was
    /// asked may be gone, with bytes that nobody was told of: two failures at once.
    pub fn wipe_replicas(&mut self, datacenter: usize, node: usize) {
        let mut wiped = Vec::new();
        for volume in self.datacenters[datacenter].registry.volumes.values_mut() {
            let is_open = !volume.sealed;
            let Some(replicas) = &mut volume.replicas else { continue };
            if is_open && replicas.seal.is_some() {
                continue;
            }
            replicas.files[node] = ReplicaFile { missing: true, ..ReplicaFile::default() };
            wiped.push(volume.id);
        }
        self.tally.add("… replicas wiped", wiped.len() as u64);
        for volume in wiped {
            self.give_up(datacenter, volume); // one that is sealed already stays as it is
        }
    }
}
