//! The world of one run: everything that is, the queue of what will happen, and the loop that takes one event at a time.
//!
//! What each event does stands with its subject. Invariants: events of one millisecond happen in the order in which they
//! were scheduled; nothing happens that is not in the trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use meridian_types::{BucketId, ObjectKey, Timestamp, VolumeId};

use crate::bucket_deletion::{Deletion, FenceJob, INCARNATIONS, MORTAL_NAME};
use crate::datacenter::{Datacenter, DiskCopy, Place};
use crate::faults::Fault;
use crate::network::{Message, Network};
use crate::node::START_UNIX_MS;
use crate::oracle::Oracle;
use crate::planted::{PlantedBug, ShellMistake, Sown};
use crate::replicas::Step as ReplicaStep;
use crate::rng::{Rng, mix};
use crate::run::Options;
use crate::session::{Session, Step as SessionStep};
use crate::tally::Tally;
use crate::workload::{KEYS, Operation};
use crate::{Checked, DATACENTERS};

/// What will happen.
#[derive(Debug)]
pub enum Event {
    NextOperation,
    /// An operation takes its next step, or tries one again.
    Step {
        operation_index: usize,
    },
    NeedleSynced {
        datacenter: usize,
        volume: VolumeId,
        end: u64,
        life: u32,
        operation_index: usize,
    },
    Replicas {
        datacenter: usize,
        volume: VolumeId,
        step: Box<ReplicaStep>,
    },
    DeletionTick {
        call: u64,
    },
    Session {
        session: usize,
        step: SessionStep,
    },
    Pump {
        place: Place,
    },
    Committed {
        place: Place,
        term: u64,
        through: u64,
    },
    Election {
        place: Place,
        term: u64,
    },
    BoundSynced {
        datacenter: usize,
        node: usize,
        life: u32,
    },
    Deliver {
        from: usize,
        to: usize,
        message: Box<Message>,
    },
    StreamTick {
        place: Place,
        source: usize,
    },
    PullTimedOut {
        place: Place,
        source: usize,
        call: u64,
    },
    LongPollEnded {
        place: Place,
        id: u64,
    },
    VolumesPoll {
        datacenter: usize,
        source: usize,
    },
    MirrorSynced {
        datacenter: usize,
        volume: VolumeId,
        life: u32,
    },
    CloseTick {
        datacenter: usize,
    },
    StableTick {
        datacenter: usize,
    },
    /// A member learns that the third datacenter joins.
    CountJoining {
        datacenter: usize,
    },
    Close {
        datacenter: usize,
        node: usize,
        whole: bool,
    },
    Probe,
    Fault(Fault),
    FaultEnds(Fault),
    NodeUp {
        datacenter: usize,
        node: usize,
        life: u32,
    },
}

struct Scheduled {
    at_ms: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.order) == (other.at_ms, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// A bucket that the workload writes to, or one incarnation of it.
pub struct SharedBucket {
    pub name: &'static str,
    pub id: BucketId,
    pub versioned: bool,
}

pub struct World {
    pub options: Options,
    pub rng: Rng,
    pub now_ms: u64,
    pub network: Network,
    pub datacenters: Vec<Datacenter>,
    pub oracle: Oracle,
    pub operations: Vec<Operation>,
    pub buckets: Vec<SharedBucket>,
    pub keys: Vec<ObjectKey>,
    pub partitions: usize,
    pub tally: Tally,
    /// Calls and other names that are used once.
    pub names: u64,
    /// The run is over: everything is everywhere.
    pub converged: bool,
    /// Links, disks and clocks are healed for good.
    pub healed_at_ms: Option<u64>,
    /// The furthest that a clock was ahead when its guard began to believe it.
    pub believed_offset_ms_max: i64,
    pub disk_copies: BTreeMap<usize, DiskCopy>,
    /// By call.
    pub deletions: BTreeMap<u64, Deletion>,
    pub fence_jobs: BTreeMap<u64, FenceJob>,
    pub sessions: Vec<Session>,
    /// Faults that have struck.
    pub struck: u64,
    pub trace: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let partitions = options.partitions.unwrap_or_else(|| 1 + rng.index(3));
        let mut offset_ms = || i64::try_from(rng.below(240)).expect("small") - 120;
        let offsets_ms: Vec<[i64; crate::NODES]> = (0..DATACENTERS).map(|_| [offset_ms(), offset_ms()]).collect();
        let plant = Sown::new(options.bug);
        let datacenters = offsets_ms
            .into_iter()
            .enumerate()
            .map(|(index, offsets)| Datacenter::new(index, partitions, offsets, plant));
        let bucket = |name: &'static str, deletions, versioned| SharedBucket {
            name,
            id: BucketId::derive(&name.parse().expect("a valid name"), deletions),
            versioned,
        };
        let mortal = (0..INCARNATIONS).map(|deletions| bucket(MORTAL_NAME, deletions, false));
        Self {
            options,
            now_ms: 0,
            network: Network::default(),
            datacenters: datacenters.collect(),
            oracle: Oracle::new(partitions + 1),
            operations: Vec::new(),
            buckets: [bucket("alpha", 0, false), bucket("beta", 0, true)].into_iter().chain(mortal).collect(),
            keys: KEYS.iter().map(|key| key.parse().expect("a valid key")).collect(),
            partitions,
            tally: Tally::default(),
            names: 0,
            converged: false,
            healed_at_ms: None,
            believed_offset_ms_max: 120,
            disk_copies: BTreeMap::new(),
            deletions: BTreeMap::new(),
            fence_jobs: BTreeMap::new(),
            sessions: Vec::new(),
            struck: 0,
            trace: mix(seed),
            queue: BinaryHeap::new(),
            order: 0,
            rng,
        }
    }

    pub fn has_bug(&self, mistake: ShellMistake) -> bool {
        self.options.bug == Some(PlantedBug::Shell(mistake))
    }

    /// The mistakes of the shipped code in this run.
    pub fn plant(&self) -> Sown {
        Sown::new(self.options.bug)
    }

    /// The true time.
    pub fn true_time(&self) -> Timestamp {
        Timestamp::from_unix_ms(START_UNIX_MS + self.now_ms)
    }

    pub fn schedule(&mut self, after_ms: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at_ms: self.now_ms + after_ms, order: self.order, event }));
    }

    pub fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Adds to the trace.
    pub fn note(&mut self, what: u64, value: u64) {
        self.trace = mix(self.trace ^ mix(what).wrapping_add(value));
    }

    /// How long the next sync of a datacenter's disks takes.
    pub fn sync_ms(&mut self, datacenter: usize) -> u64 {
        self.rng.between(1, self.datacenters[datacenter].sync_ms_max)
    }

    pub fn group(&mut self, place: Place) -> &mut crate::group::Group {
        &mut self.datacenters[place.datacenter].groups[place.group]
    }

    /// Takes the next event; false when nothing will ever happen again.
    pub fn step(&mut self) -> Checked<bool> {
        let Some(Reverse(Scheduled { at_ms, order, event })) = self.queue.pop() else { return Ok(false) };
        self.now_ms = at_ms;
        self.note(at_ms, order);
        self.dispatch(event)?;
        Ok(true)
    }

    fn dispatch(&mut self, event: Event) -> Checked {
        match event {
            Event::NextOperation => self.next_operation(),
            Event::Step { operation_index } => self.step_operation(operation_index),
            Event::NeedleSynced { datacenter, volume, end, life, operation_index } => {
                self.needle_synced(datacenter, volume, end, life, operation_index)
            }
            Event::Replicas { datacenter, volume, step } => self.step_replicas(datacenter, volume, *step),
            Event::Session { session, step } => self.step_session(session, step),
            Event::DeletionTick { call } => self.deletion_tick(call),
            Event::Pump { place } => self.pump(place),
            Event::Committed { place, term, through } => self.committed(place, term, through),
            Event::Election { place, term } => self.elect(place, term),
            Event::BoundSynced { datacenter, node, life } => {
                let node = &mut self.datacenters[datacenter].nodes[node];
                if node.life == life && node.alive {
                    node.bound_synced();
                }
                Ok(())
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
            Event::StreamTick { place, source } => self.step_stream(place, source, meridian_replicator::Event::Tick),
            Event::PullTimedOut { place, source, call } => self.pull_timed_out(place, source, call),
            Event::LongPollEnded { place, id } => {
                self.long_poll_ended(place, id);
                Ok(())
            }
            Event::VolumesPoll { datacenter, source } => {
                self.poll_volumes(datacenter, source);
                Ok(())
            }
            Event::MirrorSynced { datacenter, volume, life } => {
                self.mirror_synced(datacenter, volume, life);
                Ok(())
            }
            Event::CloseTick { datacenter } => {
                self.close_tick(datacenter);
                Ok(())
            }
            Event::Close { datacenter, node, whole } => {
                self.close(datacenter, node, whole);
                Ok(())
            }
            Event::StableTick { datacenter } => self.stable_tick(datacenter),
            Event::CountJoining { datacenter } => self.count_joining(datacenter),
            Event::Probe => self.probe(),
            Event::Fault(fault) => self.strike(&fault),
            Event::FaultEnds(fault) => self.end_fault(&fault),
            Event::NodeUp { datacenter, node, life } => self.node_up(datacenter, node, life),
        }
    }
}
