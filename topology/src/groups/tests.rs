//! Every shape of a datacenter that fits its ports, and some larger ones.

use std::collections::BTreeSet;

use super::*;

fn members(nodes: u32, racks: u32) -> Vec<Member> {
    (0..nodes).map(|node| Member { node: NodeId(node + 1), rack: format!("rack-{}", node % racks + 1) }).collect()
}

fn spread(counts: impl Iterator<Item = usize>) -> usize {
    let counts: Vec<usize> = counts.collect();
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

#[test]
fn replicas_and_leaders_are_spread_evenly() {
    for nodes in 1..=12 {
        for racks in 1..=nodes {
            for partitions in 1..=40 {
                let groups = partition_groups(&members(nodes, racks), partitions);
                assert_eq!(groups.len(), usize::from(partitions));
                for group in &groups {
                    let distinct: BTreeSet<_> = group.replicas.iter().collect();
                    assert_eq!(distinct.len(), (nodes as usize).min(PARTITION_REPLICAS_MAX));
                    assert!(group.replicas.contains(&group.leader));
                }
                let held = |node| groups.iter().filter(|group| group.replicas.contains(&NodeId(node))).count();
                let led = |node| groups.iter().filter(|group| group.leader == NodeId(node)).count();
                assert!(spread((1..=nodes).map(held)) <= 1, "{nodes} nodes, {partitions} partitions");
                assert!(spread((1..=nodes).map(led)) <= 1, "{nodes} nodes, {racks} racks, {partitions} partitions");
            }
        }
    }
}

#[test]
fn no_rack_holds_a_majority_of_a_partition_when_there_are_three_racks() {
    for nodes in [3, 6, 9] {
        for group in partition_groups(&members(nodes, 3), 32) {
            let racks: BTreeSet<_> = group.replicas.iter().map(|node| (node.0 - 1) % 3).collect();
            assert_eq!(racks.len(), 3, "{group:?}");
        }
    }
}

#[test]
fn two_racks_never_keep_all_replicas_in_one() {
    for nodes in 2..=10 {
        for group in partition_groups(&members(nodes, 2), 32) {
            let racks: BTreeSet<_> = group.replicas.iter().map(|node| (node.0 - 1) % 2).collect();
            assert_eq!(racks.len(), 2, "{nodes} nodes: {group:?}");
        }
    }
}

#[test]
fn the_control_group_has_an_odd_number_of_voters_in_different_racks() {
    let counts: Vec<_> = (1..=8).map(|nodes| control_voters(&members(nodes, 1)).len()).collect();
    assert_eq!(counts, [1, 1, 3, 3, 5, 5, 5, 5]);
    let racks: BTreeSet<_> = control_voters(&members(9, 3)).iter().map(|node| (node.0 - 1) % 3).collect();
    assert_eq!(racks.len(), 3);
}

#[test]
fn the_order_in_which_nodes_are_named_does_not_matter() {
    let forward = members(7, 3);
    let mut backward = forward.clone();
    backward.reverse();
    assert_eq!(partition_groups(&forward, 16), partition_groups(&backward, 16));
    assert_eq!(control_voters(&forward), control_voters(&backward));
}
