//! The placement policy of a replica code: it selects sets of replicas, and says of a given set whether it meets the code.
//!
//! `x` counts mirrors in other datacenters, validated against the members; `y` copies in other racks, each in a rack of
//! its own, and `z` copies on other nodes of the primary's rack, both validated against live nodes (rule 24).
//!
//! Invariants: whatever `select_*` returns passes `validate_*`; a refusal means that no set exists.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use meridian_types::{DatacenterId, NodeId, ReplicaCode};

use crate::{Datacenter, Node, PlacementError, Tree};

/// Where the copies of volumes of one code go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    code: ReplicaCode,
    /// What a node must have free to be selected.
    free_bytes_min: u64,
}

/// The replicas of a volume in its own datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSet {
    /// Orders the appends.
    pub primary: NodeId,
    /// First the z nodes of the primary's rack, then the y nodes of other racks.
    pub secondaries: Vec<NodeId>,
}

/// A rack with its usable nodes, the preferred first.
struct Candidates<'a> {
    rack: &'a str,
    nodes: Vec<(NodeId, Node)>,
}

impl Policy {
    pub const fn new(code: ReplicaCode, free_bytes_min: u64) -> Self {
        Self { code, free_bytes_min }
    }

    /// Selects the replicas in `datacenter`: nodes with most free space first, ties to the smaller id. With `primary`
    /// given, the set is built around that node.
    ///
    /// # Errors
    /// What is missing for the code's y and z.
    pub fn select_local(
        &self,
        tree: &Tree,
        datacenter: DatacenterId,
        primary: Option<NodeId>,
    ) -> Result<LocalSet, PlacementError> {
        let place = tree.datacenter(datacenter)?;
        let (same_rack, other_racks) = (usize::from(self.code.same_rack()), usize::from(self.code.other_racks()));
        let racks = self.candidates(place);
        let home = self.select_rack(place, &racks, primary)?;
        let primary = primary.unwrap_or(home.nodes[0].0);
        let neighbours = home.nodes.iter().map(|(id, _)| *id).filter(|id| *id != primary).take(same_rack);

        // One node of each other rack: the preferred node stands for its rack.
        let mut others: Vec<_> =
            racks.iter().filter(|other| other.rack != home.rack).map(|other| other.nodes[0]).collect();
        if others.len() < other_racks {
            let (needed, has, of) = (other_racks + 1, others.len() + 1, place.racks().count());
            return Err(PlacementError::Racks { code: self.code, datacenter: place.name.clone(), needed, has, of });
        }
        others.sort_by_key(preference);
        let secondaries = neighbours.chain(others.into_iter().take(other_racks).map(|(id, _)| id)).collect();
        Ok(LocalSet { primary, secondaries })
    }

    /// Whether `set` meets y and z exactly, on live nodes of `datacenter`. Space does not count: the copies are there.
    ///
    /// # Errors
    /// The first thing that is wrong with the set.
    pub fn validate_local(&self, tree: &Tree, datacenter: DatacenterId, set: &LocalSet) -> Result<(), PlacementError> {
        let place = tree.datacenter(datacenter)?;
        let home = live_rack(place, set.primary)?;
        let mut seen = BTreeSet::from([set.primary]);
        let (mut same_rack, mut other_racks) = (0, BTreeSet::new());
        for node in &set.secondaries {
            if !seen.insert(*node) {
                return Err(PlacementError::NodeTwice(*node));
            }
            let rack = live_rack(place, *node)?;
            if rack == home {
                same_rack += 1;
            } else if !other_racks.insert(rack) {
                return Err(PlacementError::RackTwice { code: self.code, rack: rack.to_owned() });
            }
        }
        let (wanted_same, wanted_other) = (usize::from(self.code.same_rack()), usize::from(self.code.other_racks()));
        if (same_rack, other_racks.len()) != (wanted_same, wanted_other) {
            return Err(PlacementError::Letters { code: self.code, same_rack, other_racks: other_racks.len() });
        }
        Ok(())
    }

    /// Selects the datacenters that mirror the `counter`-th volume of `owner`, by id. Consecutive counters rotate over
    /// the other members, so that each holds its share.
    ///
    /// # Errors
    /// `Datacenters` when the cluster has too few other members for x.
    pub fn select_mirrors(
        &self,
        members: &BTreeSet<DatacenterId>,
        owner: DatacenterId,
        counter: u32,
    ) -> Result<Vec<DatacenterId>, PlacementError> {
        let others: Vec<_> = members.iter().copied().filter(|member| *member != owner).collect();
        let needed = usize::from(self.code.other_datacenters());
        if others.len() < needed {
            return Err(PlacementError::Datacenters { code: self.code, owner, needed, has: others.len() });
        }
        let first = if others.is_empty() { 0 } else { counter as usize % others.len() };
        let mut mirrors: Vec<_> = others.iter().cycle().skip(first).take(needed).copied().collect();
        mirrors.sort();
        Ok(mirrors)
    }

    /// Whether `mirrors` are x different members other than `owner`.
    ///
    /// # Errors
    /// `Mirror` for a datacenter that can't be one, `Datacenters` when their number is not x.
    pub fn validate_mirrors(
        &self,
        members: &BTreeSet<DatacenterId>,
        owner: DatacenterId,
        mirrors: &[DatacenterId],
    ) -> Result<(), PlacementError> {
        let mut seen = BTreeSet::new();
        for mirror in mirrors {
            if *mirror == owner || !members.contains(mirror) || !seen.insert(*mirror) {
                return Err(PlacementError::Mirror(*mirror));
            }
        }
        let needed = usize::from(self.code.other_datacenters());
        if mirrors.len() != needed {
            return Err(PlacementError::Datacenters { code: self.code, owner, needed, has: mirrors.len() });
        }
        Ok(())
    }

    /// The racks that have a usable node.
    fn candidates<'a>(&self, place: &'a Datacenter) -> Vec<Candidates<'a>> {
        let usable = |rack: &crate::Rack| {
            let mut nodes: Vec<_> = rack.nodes().filter(|(_, node)| self.refusal(node).is_none()).collect();
            nodes.sort_by_key(preference);
            nodes
        };
        let racks = place.racks().map(|(rack, content)| Candidates { rack, nodes: usable(content) });
        racks.filter(|candidates| !candidates.nodes.is_empty()).collect()
    }

    /// The rack of the primary and its z neighbours: the one of `primary`, else the one with the most preferred node.
    fn select_rack<'r, 'a>(
        &self,
        place: &Datacenter,
        racks: &'r [Candidates<'a>],
        primary: Option<NodeId>,
    ) -> Result<&'r Candidates<'a>, PlacementError> {
        let needed = usize::from(self.code.same_rack()) + 1;
        let rack = match primary {
            Some(primary) => Some(self.usable_rack(place, primary)?),
            None => None,
        };
        let allowed = || racks.iter().filter(|candidates| rack.is_none_or(|rack| rack == candidates.rack));
        let chosen = allowed().filter(|candidates| candidates.nodes.len() >= needed);
        chosen.min_by_key(|candidates| preference(&candidates.nodes[0])).ok_or_else(|| {
            let size =
                |name: &str| place.racks().find(|(rack, _)| *rack == name).map_or(0, |(_, rack)| rack.nodes().count());
            let largest = allowed().max_by_key(|candidates| candidates.nodes.len());
            PlacementError::Nodes {
                code: self.code,
                datacenter: place.name.clone(),
                rack: rack.map(str::to_owned),
                needed,
                has: largest.map_or(0, |candidates| candidates.nodes.len()),
                of: largest.map_or(0, |candidates| size(candidates.rack)),
            }
        })
    }

    fn usable_rack<'a>(&self, place: &'a Datacenter, id: NodeId) -> Result<&'a str, PlacementError> {
        let unusable = |reason| PlacementError::NodeUnusable { datacenter: place.name.clone(), node: id, reason };
        let (rack, node) = place.find(id).ok_or_else(|| unusable(UNKNOWN))?;
        self.refusal(&node).map_or(Ok(rack), |reason| Err(unusable(reason)))
    }

    fn refusal(&self, node: &Node) -> Option<&'static str> {
        if !node.live {
            Some(NOT_LIVE)
        } else if node.free_bytes < self.free_bytes_min {
            Some("has too little free space")
        } else {
            None
        }
    }
}

const UNKNOWN: &str = "is not registered there";
const NOT_LIVE: &str = "is not live";

/// Sorts the node with most free space first, then the smaller id.
fn preference((id, node): &(NodeId, Node)) -> (Reverse<u64>, NodeId) {
    (Reverse(node.free_bytes), *id)
}

fn live_rack(place: &Datacenter, id: NodeId) -> Result<&str, PlacementError> {
    let unusable = |reason| PlacementError::NodeUnusable { datacenter: place.name.clone(), node: id, reason };
    match place.find(id) {
        Some((rack, node)) if node.live => Ok(rack),
        Some(_) => Err(unusable(NOT_LIVE)),
        None => Err(unusable(UNKNOWN)),
    }
}

#[cfg(test)]
mod tests;
