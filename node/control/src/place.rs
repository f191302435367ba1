//! Where this node would put a volume: the datacenter as placement sees it at this moment.
//!
//! What it is for: the tree that `topology` selects from, and whether all nodes of a volume can be written to. What it does
//! not do: decide by itself who is dead for good; it only keeps new bytes away from nodes that do not answer.
//!
//! Invariants: a node that gossip does not hear of, that drains, or that lately failed an append gets no new volume; this
//! node always counts as live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meridian_replica::Replicas;
use meridian_topology::{LocalSet, Node, PlacementError, Policy, Tree};
use meridian_types::{DatacenterId, DatacenterName, NodeId, ReplicaCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::registry::Registry;
use crate::{Liveness, VolumeRecord};

/// How long a node that failed an append or a creation is passed over. Gossip knows more by then.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// What a replica weighs in the choice of nodes, in bytes: the node with the fewest replicas comes first.
const REPLICA_WEIGHT: u64 = 1 << 30;
/// A node without any replica.
const FREE_BYTES_MAX: u64 = u64::MAX / 2;

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

    /// Whether an append to the volume can be acknowledged, as far as is known. Costs nothing where it has one replica.
    pub(crate) fn can_append(&self, record: &VolumeRecord) -> bool {
        record.replicas().all(|node| self.is_usable(node))
    }

    /// The replicas of a new volume: around this node where the code allows it, else around another one.
    ///
    /// # Errors
    /// What is missing for the code.
    pub(crate) fn select(&self, registry: &Registry, code: ReplicaCode) -> Result<LocalSet, PlacementError> {
        let (tree, policy) = (self.tree(registry, |node| self.is_usable(node))?, Policy::new(code, 0));
        let around_this = policy.select_local(&tree, self.datacenter.0, Some(self.node));
        around_this.or_else(|_| policy.select_local(&tree, self.datacenter.0, None))
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

    /// This datacenter as placement sees it. Nodes with fewer replicas count as emptier.
    fn tree(&self, registry: &Registry, is_usable: impl Fn(NodeId) -> bool) -> Result<Tree, PlacementError> {
        let mut held: BTreeMap<NodeId, u64> = BTreeMap::new();
        for node in registry.volumes.iter().flat_map(VolumeRecord::replicas) {
            *held.entry(node).or_default() += 1;
        }
        let mut tree = Tree::default();
        tree.add_datacenter(self.datacenter.0, self.datacenter.1.clone());
        for node in &registry.nodes {
            let free_bytes = FREE_BYTES_MAX - REPLICA_WEIGHT * held.get(&node.id).copied().unwrap_or(0);
            let live = !node.draining && is_usable(node.id);
            tree.add_node(self.datacenter.0, &node.info.rack, node.id, Node { live, free_bytes })?;
        }
        Ok(tree)
    }
}
