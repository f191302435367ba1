//! Which nodes of a datacenter vote in its raft groups: the control group's voters and each partition's replicas. Pure.
//!
//! It decides how groups are bootstrapped; the same nodes give the same groups on every node and in every datacenter that
//! knows them, so that a peer knows whom to ask without being told.
//!
//! Invariants: a group names no node twice; replicas are spread so that two nodes differ by at most one, leaders
//! likewise; consecutive members come from different racks as long as there are others.

use std::collections::BTreeMap;

use meridian_types::NodeId;

/// Most replicas of a partition.
pub const PARTITION_REPLICAS_MAX: usize = 3;

/// A node and the rack that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub rack: String,
}

/// The replicas of a partition, in the order in which they should lead it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub replicas: Vec<NodeId>,
    /// Bootstraps the group and leads it first.
    pub leader: NodeId,
}

/// How many nodes vote in the control group of so many: an odd number, so that no vote is wasted, and at most five.
/// Two nodes have one voter: a second one would only make the group fail more often.
#[must_use]
pub const fn control_voters_count(nodes: usize) -> usize {
    match nodes {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// The voters of the control group and of the catalog, spread over the racks; the first one leads first.
#[must_use]
pub fn control_voters(members: &[Member]) -> Vec<NodeId> {
    let mut voters = interleaved(members);
    voters.truncate(control_voters_count(voters.len()));
    voters
}

/// The replicas of `partitions` partitions, partition p at p: on three nodes, or on all of fewer.
#[must_use]
pub fn partition_groups(members: &[Member], partitions: u16) -> Vec<Group> {
    let nodes = interleaved(members);
    if nodes.is_empty() {
        return Vec::new();
    }
    let replicas = nodes.len().min(PARTITION_REPLICAS_MAX);
    let mut led: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (*node, 0)).collect();
    (0..usize::from(partitions))
        .map(|partition| {
            // Dealt out like cards, so that nobody is ever more than one ahead.
            let dealt: Vec<NodeId> =
                (0..replicas).map(|replica| nodes[(partition * replicas + replica) % nodes.len()]).collect();
            let leader = *dealt.iter().min_by_key(|node| led[node]).expect("at least one replica");
            *led.entry(leader).or_default() += 1;
            Group { replicas: dealt, leader }
        })
        .collect()
}

/// One node of each rack in turn, racks by name and nodes by id.
fn interleaved(members: &[Member]) -> Vec<NodeId> {
    let mut racks: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for member in members {
        racks.entry(&member.rack).or_default().push(member.node);
    }
    let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
    racks.values_mut().for_each(|nodes| nodes.sort());
    (0..deepest).flat_map(|row| racks.values().filter_map(move |nodes| nodes.get(row)).copied()).collect()
}

#[cfg(test)]
mod tests;
