//! Where this node would put a volume: the datacenter as placement sees it at this moment.
//!
//! What it is for: the tree that `topology` selects from, and whether all nodes of a volume can be written to. What it does
//! not do: decide by itself who is dead for good; it only keeps new bytes away from nodes that do not answer.
//!
//! Invariants: a node that gossip does not hear of, that drains, or that lately failed an append or whose disk is nearly
//! full gets no new volume; this node always counts as live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meridian_replica::Replicas;
use meridian_topology::{LocalSet, Node, PlacementError, Policy, Tree};
use meridian_types::{DatacenterId, DatacenterName, NodeId, ReplicaCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::registry::Registry;
use crate::{Liveness, VolumeRecord, VolumeState};

/// How long a node that failed an append or a creation is passed over. Gossip knows more by then.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// What a node must have free to be given a replica, in bytes: the rest of a volume's life is other volumes' room too.
pub const PLACEMENT_FREE_BYTES_MIN: u64 = 64 << 20;
/// Differences of free space below this are noise: nodes on one disk, reports of different moments.
const FREE_BYTES_STEP: u64 = 256 << 20;
/// A node without any replica has so many points; each one that it holds takes one. Less than one step of free space.
const REPLICAS_COUNTED_MAX: u64 = 1 << 20;

/// This node among the others.
pub(crate) struct Place {
    pub(crate) datacenter: (DatacenterId, DatacenterName),
    pub(crate) node: NodeId,
    /// All member datacenters.
    pub(crate) members: BTreeSet<DatacenterId>,
    pub(crate) liveness: Liveness,
    /// Knows who lately did not answer.
    replicas: Replicas,
    suspects: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Place {
    pub(crate) fn new(
        datacenter: (DatacenterId, DatacenterName),
        node: NodeId,
        members: BTreeSet<DatacenterId>,
        liveness: Liveness,
        replicas: Replicas,
    ) -> Self {
        Self { datacenter, node, members, liveness, replicas, suspects: Mutex::default() }
    }

    /// A node that did not make a file.
    pub(crate) fn suspect(&self, node: NodeId) {
        if node != self.node {
            self.suspects.lock().insert(node, Instant::now());
        }
    }

    /// Whether new bytes may go there now.
    pub(crate) fn is_usable(&self, node: NodeId) -> bool {
        if node == self.node {
            return true;
        }
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, since| since.elapsed() < SUSPECT_FOR);
        !suspects.contains_key(&node) && !self.replicas.is_suspect(node) && self.liveness.is_live(node)
    }

    /// Whether a replica may be given to a node, by what it says is free there; one that has not said so is believed to have
    /// room.
    fn has_room(&self, node: NodeId) -> bool {
        self.liveness.free_bytes(node).is_none_or(|free| free >= PLACEMENT_FREE_BYTES_MIN)
    }

    /// Whether an append to the volume can be acknowledged, as far as is known. Costs nothing where it has one replica.
    pub(crate) fn can_append(&self, record: &VolumeRecord) -> bool {
        record.replicas().all(|node| self.is_usable(node))
    }

    /// The replicas of a new volume: around this node where the code allows it, else around another one.
    ///
    /// # Errors
    /// What is missing for the code.
    pub(crate) fn select(&self, registry: &Registry, code: ReplicaCode) -> Result<LocalSet, PlacementError> {
        let is_usable = |node| self.has_room(node) && self.is_usable(node);
        // A slow node is better than none.
        let with_quick = self.select_of(registry, code, |node| is_usable(node) && !self.replicas.is_slow(node));
        with_quick.or_else(|_| self.select_of(registry, code, is_usable))
    }

    fn select_of(
        &self,
        registry: &Registry,
        code: ReplicaCode,
        is_usable: impl Fn(NodeId) -> bool,
    ) -> Result<LocalSet, PlacementError> {
        let (tree, policy) = (self.tree(registry, is_usable)?, Policy::new(code, 0));
        let around_this = policy.select_local(&tree, self.datacenter.0, Some(self.node));
        around_this.or_else(|_| policy.select_local(&tree, self.datacenter.0, None))
    }

    /// Whether a volume of `code` could be placed now without `node` and without any slow one.
    pub(crate) fn can_do_without(&self, registry: &Registry, code: ReplicaCode, node: NodeId) -> bool {
        let is_usable =
            |other| other != node && self.has_room(other) && self.is_usable(other) && !self.replicas.is_slow(other);
        self.select_of(registry, code, is_usable).is_ok()
    }

    /// Whether the members and the registered nodes, all taken to be there, can meet a code (rule 24).
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn check(&self, registry: &Registry, code: ReplicaCode) -> Result<(), PlacementError> {
        let policy = Policy::new(code, 0);
        policy.select_mirrors(&self.members, self.datacenter.0, 0)?;
        let mut tree = Tree::default();
        tree.add_datacenter(self.datacenter.0, self.datacenter.1.clone());
        for node in &registry.nodes {
            tree.add_node(self.datacenter.0, &node.info.rack, node.id, Node { live: true, free_bytes: 0 })?;
        }
        policy.select_local(&tree, self.datacenter.0, None).map(drop)
    }

    /// Whether the code can be met once every node that does not drain is back.
    pub(crate) fn could_meet(&self, registry: &Registry, code: ReplicaCode) -> bool {
        let tree = self.tree(registry, |_| true);
        tree.and_then(|tree| Policy::new(code, 0).select_local(&tree, self.datacenter.0, None)).is_ok()
    }

    /// This datacenter as placement sees it: what is free on a node is shared by the volumes that grow there, so that volumes
    /// which are open beside each other lie on different nodes; of equals the one with fewer replicas counts as emptier.
    fn tree(&self, registry: &Registry, is_usable: impl Fn(NodeId) -> bool) -> Result<Tree, PlacementError> {
        let (mut held, mut growing) = (BTreeMap::<NodeId, u64>::new(), BTreeMap::<NodeId, u64>::new());
        for record in &registry.volumes {
            for node in record.replicas() {
                *held.entry(node).or_default() += 1;
                *growing.entry(node).or_default() += u64::from(record.state <= VolumeState::Open);
            }
        }
        let known = registry.nodes.iter().filter_map(|node| self.liveness.free_bytes(node.id));
        let free_max = known.max().unwrap_or(0);
        let mut tree = Tree::default();
        tree.add_datacenter(self.datacenter.0, self.datacenter.1.clone());
        for node in &registry.nodes {
            let count = |of: &BTreeMap<NodeId, u64>| of.get(&node.id).copied().unwrap_or(0);
            // Who has not said so yet is taken to have what others have.
            let free_steps = self.liveness.free_bytes(node.id).unwrap_or(free_max) / FREE_BYTES_STEP;
            let few = REPLICAS_COUNTED_MAX - count(&held).min(REPLICAS_COUNTED_MAX);
            let free_bytes = free_steps / (1 + count(&growing)) * (REPLICAS_COUNTED_MAX + 1) + few;
            let live = !node.draining && is_usable(node.id);
            tree.add_node(self.datacenter.0, &node.info.rack, node.id, Node { live, free_bytes })?;
        }
        Ok(tree)
    }
}
