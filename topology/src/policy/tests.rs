//! The policy against written-out cases, and against trying every set there is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ROOM: u64 = 100;

fn datacenter(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

fn policy(code: &str) -> Policy {
    Policy::new(code.parse().unwrap(), ROOM)
}

/// Racks r0, r1, .. with nodes numbered from 1; each node is (live, free bytes).
fn tree(racks: &[Vec<(bool, u64)>]) -> Tree {
    let mut tree = Tree::default();
    tree.add_datacenter(datacenter(1), "dc-a".parse().unwrap());
    let mut id = 0;
    for (number, nodes) in racks.iter().enumerate() {
        for (live, free_bytes) in nodes {
            id += 1;
            let node = Node { live: *live, free_bytes: *free_bytes };
            tree.add_node(datacenter(1), &format!("r{number}"), NodeId(id), node).unwrap();
        }
    }
    tree
}

fn refusal(code: &str, racks: &[Vec<(bool, u64)>], primary: Option<u32>) -> String {
    policy(code).select_local(&tree(racks), datacenter(1), primary.map(NodeId)).unwrap_err().to_string()
}

#[test]
fn an_impossible_code_says_what_is_missing() {
    let (up, down, full) = ((true, ROOM), (false, ROOM), (true, ROOM - 1));
    assert_eq!(refusal("110", &[vec![up]], None), "110 needs a second rack in dc-a; it has one");
    assert_eq!(
        refusal("020", &[vec![up], vec![up], vec![down]], None),
        "020 needs a third rack in dc-a; it has two live with room, of three"
    );
    assert_eq!(
        refusal("001", &[vec![up], vec![up]], None),
        "001 needs a second node in any one rack of dc-a; it has one"
    );
    assert_eq!(
        refusal("002", &[vec![up, full, up], vec![up, up, up]], Some(1)),
        "002 needs a third node in rack r0 of dc-a; it has two live with room, of three"
    );
    assert_eq!(
        refusal("000", &[vec![full]], Some(1)),
        "node 1 of dc-a can't hold a copy: it has too little free space"
    );
    assert_eq!(refusal("000", &[vec![up]], Some(7)), "node 7 of dc-a can't hold a copy: it is not registered there");
    let members = BTreeSet::from([datacenter(1), datacenter(2)]);
    assert_eq!(
        policy("200").select_mirrors(&members, datacenter(1), 0).unwrap_err().to_string(),
        "200 needs two copies in other datacenters; the cluster has one besides 1"
    );
}

#[test]
fn the_emptiest_nodes_are_taken_and_ties_fall_to_the_smaller_id() {
    let tree = tree(&[vec![(true, 300), (true, 500)], vec![(true, 200), (true, 400)], vec![(true, 400)]]);
    let set = policy("011").select_local(&tree, datacenter(1), None).unwrap();
    assert_eq!(set, LocalSet { primary: NodeId(2), secondaries: vec![NodeId(1), NodeId(4)] });
    let set = policy("020").select_local(&tree, datacenter(1), Some(NodeId(3))).unwrap();
    assert_eq!(set, LocalSet { primary: NodeId(3), secondaries: vec![NodeId(2), NodeId(5)] });
}

#[test]
fn mirrors_rotate_so_that_each_member_gets_its_share() {
    let members: BTreeSet<_> = (1..=5).map(datacenter).collect();
    let mut shares = BTreeMap::new();
    for counter in 0..4 {
        let mirrors = policy("200").select_mirrors(&members, datacenter(3), counter).unwrap();
        policy("200").validate_mirrors(&members, datacenter(3), &mirrors).unwrap();
        mirrors.into_iter().for_each(|mirror| *shares.entry(mirror.get()).or_insert(0) += 1);
    }
    assert_eq!(shares, BTreeMap::from([(1, 2), (2, 2), (4, 2), (5, 2)]));
    assert_eq!(policy("000").select_mirrors(&BTreeSet::new(), datacenter(3), 9).unwrap(), vec![]);
}

#[test]
fn a_node_stands_once_in_its_datacenter() {
    let mut tree = tree(&[vec![(true, ROOM)]]);
    let node = Node { live: true, free_bytes: 0 };
    assert!(matches!(tree.add_node(datacenter(1), "other", NodeId(1), node), Err(PlacementError::NodeKnown { .. })));
    assert!(matches!(tree.add_node(datacenter(2), "r", NodeId(1), node), Err(PlacementError::UnknownDatacenter(_))));
}

/// Every ordered choice of `count` different nodes is too many; every subset behind every primary is enough.
fn every_set(nodes: &[NodeId]) -> Vec<LocalSet> {
    let mut sets = Vec::new();
    for primary in nodes {
        let rest: Vec<_> = nodes.iter().filter(|node| *node != primary).copied().collect();
        for mask in 0u32..1 << rest.len() {
            let secondaries = (0..rest.len()).filter(|bit| mask & (1 << bit) != 0).map(|bit| rest[bit]).collect();
            sets.push(LocalSet { primary: *primary, secondaries });
        }
    }
    sets
}

fn code() -> impl Strategy<Value = String> {
    (0..4u8, 0..4u8, 0..4u8).prop_map(|(x, y, z)| format!("{x}{y}{z}"))
}

proptest! {
    #[test]
    fn selects_exactly_when_some_set_of_usable_nodes_is_valid(
        racks in prop::collection::vec(prop::collection::vec((prop::bool::weighted(0.8), 90u64..110), 0..4), 0..4),
        code in code(),
        wanted in prop::option::of(1u32..6),
    ) {
        let (tree, policy) = (tree(&racks), policy(&code));
        let nodes: Vec<_> = racks.iter().flatten().zip(1..).collect();
        let usable: Vec<_> = nodes.iter().filter(|((live, free), _)| *live && *free >= ROOM).map(|(_, id)| NodeId(*id)).collect();
        let wanted = wanted.map(NodeId);
        let valid = |set: &LocalSet| policy.validate_local(&tree, datacenter(1), set).is_ok();
        let fits = |set: &LocalSet| wanted.is_none_or(|wanted| wanted == set.primary) && valid(set);
        match policy.select_local(&tree, datacenter(1), wanted) {
            Ok(set) => {
                prop_assert!(fits(&set), "{set:?}");
                prop_assert!(set.secondaries.iter().all(|node| usable.contains(node)));
            }
            Err(error) => {
                let found = every_set(&usable).into_iter().find(fits);
                prop_assert!(found.is_none(), "{error}, but {found:?}");
            }
        }
    }

    #[test]
    fn mirrors_are_selected_exactly_when_enough_members_are_there(count in 1u8..6, owner in 1u8..6, x in 0u8..6, counter: u32) {
        let members: BTreeSet<_> = (1..=count).map(datacenter).collect();
        let policy = policy(&format!("{x}00"));
        let others = members.iter().filter(|member| member.get() != owner).count();
        match policy.select_mirrors(&members, datacenter(owner), counter) {
            Ok(mirrors) => policy.validate_mirrors(&members, datacenter(owner), &mirrors).unwrap(),
            Err(_) => prop_assert!(others < usize::from(x)),
        }
    }
}
