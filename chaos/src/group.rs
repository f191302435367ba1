//! A model of a raft group around the shipped state machine: a log of which a suffix is not yet committed, one applied
//! state, a leader. Elections, proposals and what clients see of them are in `proposer`.
//!
//! A group's replicas apply the same commands, so one state stands for all. Invariants: what was answered is committed
//! and survives every crash; of the rest a crash keeps any prefix, as a new leader may; a replay of the log from a
//! snapshot gives the same rows.

use std::collections::VecDeque;

use bytes::Bytes;
use meridian_index::kv::{MemoryKv, Overlay, WriteSet};
use meridian_index::{IndexMachine, Machine, Operation, PlantedMachine, Response};
use meridian_replicator::{Cursor, OriginCursor};
use meridian_types::{DatacenterId, PartitionId, RequestId, Stamp, Timestamp};

use crate::planted::Sown;
use crate::{Checked, Violation};

/// Applied commands between two snapshots.
const SNAPSHOT_INTERVAL: usize = 150;

/// A proposal that waits for its stamp.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation_index: usize,
    pub request: RequestId,
    pub operation: Operation,
    /// The greatest stamp of its chunks (rule 13).
    pub seen: Timestamp,
    pub deadline_ms: u64,
}

/// A stamped proposal in the log.
#[derive(Debug, Clone)]
pub struct Flying {
    pub request: Request,
    pub stamp: Stamp,
    /// Somebody waits for the outcome: false once its leader is gone.
    pub awaited: bool,
}

/// What a log slot's command carries, for whoever waits and for the oracle.
#[derive(Debug)]
pub enum Carries {
    Local(Vec<Flying>),
    Remote {
        source: usize,
        number: u64,
        places: Vec<OriginCursor>,
        last: Option<Stamp>,
        wall: Timestamp,
        awaited: bool,
    },
    /// One partition's part of a fence.
    Fence {
        job: u64,
    },
    Nothing,
}

#[derive(Debug)]
pub struct Slot {
    pub command: Bytes,
    pub carries: Carries,
}

/// A pull that waits for news.
#[derive(Debug, Clone)]
pub struct ParkedPull {
    pub from: usize,
    pub cursor: Cursor,
    pub call: u64,
    pub id: u64,
}

pub struct Group {
    machine: PlantedMachine<Sown>,
    pub kv: MemoryKv,
    /// Everything after the snapshot.
    pub log: VecDeque<Slot>,
    /// Commands before the log's first.
    pub base: u64,
    /// How many of the log's commands are applied.
    pub applied: usize,
    snapshot: MemoryKv,
    pub leader: Option<usize>,
    pub term: u64,
    /// No commit comes before one proposed earlier.
    pub commit_at_ms: u64,
    pub queue: VecDeque<Request>,
    pub parked: Vec<ParkedPull>,
    /// Superseded rows up to here were reclaimable, and rightly so.
    pub reclaim_checked: Timestamp,
}

impl Group {
    pub fn new(datacenter: DatacenterId, partition: PartitionId, plant: Sown) -> Self {
        Self {
            machine: PlantedMachine { machine: IndexMachine { datacenter, partition }, plant },
            kv: MemoryKv::new(),
            log: VecDeque::new(),
            base: 0,
            applied: 0,
            snapshot: MemoryKv::new(),
            leader: None,
            term: 0,
            commit_at_ms: 0,
            queue: VecDeque::new(),
            parked: Vec::new(),
            reclaim_checked: Timestamp::ZERO,
        }
    }

    /// Appends a command and returns its index.
    pub fn append(&mut self, slot: Slot) -> u64 {
        self.log.push_back(slot);
        self.base + self.log.len() as u64 - 1
    }

    /// Applies the first command that is not applied, if its index is at most `through`.
    pub fn apply_next(&mut self, through: u64) -> Checked<Option<(Carries, Response)>> {
        let index = self.base + self.applied as u64;
        if index > through || self.applied >= self.log.len() {
            return Ok(None);
        }
        let slot = &mut self.log[self.applied];
        let carries = std::mem::replace(&mut slot.carries, Carries::Nothing);
        let (writes, response) = run(&self.machine, &self.kv, &slot.command)?;
        self.kv.apply(writes);
        self.applied += 1;
        Ok(Some((carries, response)))
    }

    /// The leader is gone. Of the commands that were not committed the first `kept` survive with their effects still to
    /// come; returns what the others carried.
    pub fn cut_suffix(&mut self, kept: usize) -> Vec<Carries> {
        let lost = self.log.split_off(self.log.len().min(self.applied + kept));
        lost.into_iter().map(|slot| slot.carries).collect()
    }

    /// Whether mutations are proposed and not committed.
    pub fn has_work_under_way(&self) -> bool {
        self.log.iter().skip(self.applied).any(|slot| !matches!(slot.carries, Carries::Nothing | Carries::Fence { .. }))
    }

    pub fn uncommitted(&self) -> usize {
        self.log.len() - self.applied
    }

    /// A state machine that starts anew from its snapshot comes to the same rows.
    ///
    /// # Errors
    /// It does not: `apply` depends on more than the view and the command.
    pub fn check_replay(&self) -> Checked {
        let mut replayed = self.snapshot.clone();
        for slot in self.log.iter().take(self.applied) {
            let (writes, _) = run(&self.machine, &replayed, &slot.command)?;
            replayed.apply(writes);
        }
        if replayed == self.kv {
            return Ok(());
        }
        Err(Violation::new("C3", format!("a replay of {:?} gives other rows", self.machine)))
    }

    pub fn snapshot_if_due(&mut self) {
        if self.applied >= SNAPSHOT_INTERVAL && self.applied == self.log.len() {
            self.snapshot = self.kv.clone();
            self.base += self.applied as u64;
            self.log.clear();
            self.applied = 0;
        }
    }

    /// Puts an old state in place: a restored disk.
    pub fn restore(&mut self, kv: MemoryKv) {
        self.base += self.log.len() as u64;
        self.log.clear();
        self.applied = 0;
        self.snapshot = kv.clone();
        self.kv = kv;
    }
}

fn run(machine: &PlantedMachine<Sown>, kv: &MemoryKv, command: &[u8]) -> Checked<(WriteSet, Response)> {
    let mut view = Overlay::new(kv);
    let damaged = |error: String| Violation::new("C2", format!("{machine:?} stopped: {error}"));
    let response = machine.apply(&mut view, command).map_err(|error| damaged(error.to_string()))?;
    let response = Response::decode(&response).map_err(|error| damaged(error.to_string()))?;
    Ok((view.into_writes(), response))
}
