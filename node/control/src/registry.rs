//! The control group's rows as one value of one moment, and the cache of it on this node.
//!
//! What it is for: answering the many readers (gateways, replication, status) without a scan for each. What it does not
//! do: wait for a leader; it is what this node has applied.
//!
//! Invariants: a value is never mixed from two moments; a caller sees its own commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_index::kv::KvRead;
use meridian_raft::Group;
use meridian_types::{DatacenterId, NodeId, VolumeId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::records::{ControlState, MIRRORS, NODES, PEERS, PROGRESS, Row, RowError, STATE_KEY, VOLUMES, WATERMARKS};
use crate::{NodeRecord, PeerRecord, VolumeRecord, WatermarkReport};

/// Everything that the control group knows, each list in the order of its ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Registry {
    pub(crate) state: ControlState,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) volumes: Vec<VolumeRecord>,
    pub(crate) watermarks: Vec<WatermarkReport>,
    pub(crate) peers: Vec<PeerRecord>,
    pub(crate) mirrors: BTreeMap<VolumeId, NodeId>,
    /// How often mirrors of a source were moved to a node.
    pub(crate) moves: BTreeMap<(DatacenterId, NodeId), u64>,
}

impl Registry {
    pub(crate) fn load(kv: &dyn KvRead) -> Result<Self, RowError> {
        let mut registry = Self::default();
        if let Some(row) = Row::read(kv, STATE_KEY)? {
            registry.take(row);
        }
        for prefix in [NODES, VOLUMES, WATERMARKS, PEERS, MIRRORS, PROGRESS] {
            Row::read_all(kv, prefix)?.into_iter().for_each(|row| registry.take(row));
        }
        Ok(registry)
    }

    fn take(&mut self, row: Row) {
        match row {
            Row::State(state) => self.state = state,
            Row::Node(node) => self.nodes.push(node),
            Row::Volume(volume) => self.volumes.push(volume),
            Row::Watermark(report) => self.watermarks.push(report),
            Row::Peer(peer) => self.peers.push(peer),
            Row::Mirror(mirror) => {
                self.mirrors.insert(mirror.volume, mirror.node);
            }
            Row::Progress(progress) => {
                self.moves.insert((progress.source, progress.node), progress.moves);
            }
            Row::Applied(_) => {} // only the state machine needs it
        }
    }

    pub(crate) fn volume(&self, volume: VolumeId) -> Option<&VolumeRecord> {
        let place = self.volumes.binary_search_by_key(&volume, |record| record.id).ok()?;
        Some(&self.volumes[place])
    }

    /// The volumes that `node` orders the appends of.
    pub(crate) fn primaries_of(&self, node: NodeId) -> impl Iterator<Item = &VolumeRecord> {
        self.volumes.iter().filter(move |record| record.primary == node)
    }
}

/// What a cached value was read at: the applied index, and how many own commands had been answered.
type Moment = (u64, u64);

pub(crate) struct RegistryCache {
    group: Group,
    applied: watch::Receiver<u64>,
    answered: AtomicU64,
    cached: Mutex<(Moment, Arc<Registry>)>,
}

impl RegistryCache {
    /// # Errors
    /// `RowError` when the rows can't be read.
    pub(crate) fn new(group: Group) -> Result<Self, RowError> {
        let applied = group.applied();
        let moment = (*applied.borrow(), 0);
        let registry = Arc::new(Registry::load(&group.view())?);
        Ok(Self { group, applied, answered: AtomicU64::new(0), cached: Mutex::new((moment, registry)) })
    }

    /// Call when a command of this node has been answered: the next `get` shows it.
    pub(crate) fn invalidate(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn get(&self) -> Arc<Registry> {
        // The moment is read before the view: the value may be newer than it says, never older.
        let moment = (*self.applied.borrow(), self.answered.load(Ordering::Acquire));
        let mut cached = self.cached.lock();
        if cached.0 != moment {
            match Registry::load(&self.group.view()) {
                Ok(registry) => *cached = (moment, Arc::new(registry)),
                // The group's next apply stops on the same damage; until then the last good value stands.
                Err(error) => tracing::error!(%error, "the control group's rows can't be read"),
            }
        }
        cached.1.clone()
    }
}
