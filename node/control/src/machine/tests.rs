//! Each command against a map in memory.

use meridian_index::kv::MemoryKv;
use meridian_types::{Incarnation, PartitionId, RequestId};

use super::*;
use crate::registry::Registry;
use crate::{NodeInfo, NodeReport, WatermarkReport};

struct Group {
    machine: ControlMachine,
    kv: MemoryKv,
}

fn datacenter(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

fn at(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

fn register(node: u32, boot_counter: u64, session: u8) -> Command {
    let address = "127.0.0.1:9000".to_owned();
    let info = NodeInfo {
        name: "a-1".parse().unwrap(),
        rack: "r1".to_owned(),
        s3: address.clone(),
        rest: address.clone(),
        grpc: address.clone(),
        bulk: address,
    };
    Command::RegisterNode { node: NodeId(node), info, boot_counter, session: RequestId([session; 16]) }
}

fn create(code: &str, secondaries: &[u32], mirrors: &[u8], created: u64) -> Command {
    Command::CreateVolume {
        code: code.parse().unwrap(),
        primary: NodeId(1),
        secondaries: secondaries.iter().copied().map(NodeId).collect(),
        mirrors: mirrors.iter().copied().map(datacenter).collect(),
        created: at(created),
    }
}

fn report(source: u8, meta: u64, data: u64, reported_at: u64, held: Option<&str>) -> WatermarkReport {
    let (meta, data, reported_at) = (at(meta), at(data), at(reported_at));
    let held = held.map(str::to_owned);
    WatermarkReport { source: datacenter(source), meta, data, reported_at, parked: reported_at.raw(), held }
}

impl Group {
    /// Datacenter 3 with node 1 registered.
    fn new() -> Self {
        let mut group = Self { machine: ControlMachine { datacenter: datacenter(3) }, kv: MemoryKv::new() };
        assert_eq!(group.apply(register(1, 7, 1)), Response::NodeRegistered { boot_counter: 1 });
        group
    }

    fn apply(&mut self, command: Command) -> Response {
        let mut view = Overlay::new(&self.kv);
        let answer = self.machine.apply(&mut view, &command.encode()).unwrap();
        let writes = view.into_writes();
        let response = Response::decode(&answer).unwrap();
        assert!(writes.is_empty() || !matches!(response, Response::Refused(_)), "a refused command writes nothing");
        self.kv.apply(writes);
        response
    }

    fn volume(&mut self, command: Command) -> VolumeRecord {
        match self.apply(command) {
            Response::Volume(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, command: Command) -> Refusal {
        match self.apply(command) {
            Response::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn registry(&self) -> Registry {
        Registry::load(&self.kv).unwrap()
    }
}

#[test]
fn a_boot_counter_that_did_not_rise_is_refused() {
    let mut group = Group::new();
    assert_eq!(group.refused(register(1, 7, 2)), Refusal::BootCounterWentBack { registered: 7 });
    assert_eq!(group.refused(register(1, 6, 1)), Refusal::BootCounterWentBack { registered: 7 });
    assert_eq!(group.apply(register(1, 7, 1)), Response::NodeRegistered { boot_counter: 1 }, "a retry of the same");
    assert_eq!(group.apply(register(1, 8, 3)), Response::NodeRegistered { boot_counter: 2 });
    assert_eq!(group.apply(register(2, 1, 4)), Response::NodeRegistered { boot_counter: 3 }, "another node");
}

#[test]
fn a_peer_that_went_back_is_refused_until_it_has_a_new_incarnation() {
    let mut group = Group::new();
    let start = |boot_counter, incarnation, session| {
        let (datacenter, node, session) = (datacenter(1), NodeId(1), RequestId([session; 16]));
        let incarnation = Incarnation(incarnation);
        Command::RegisterPeer(PeerRecord { datacenter, node, boot_counter, session, incarnation })
    };
    let peer = |boot_counter, incarnation| start(boot_counter, incarnation, 1);
    group.apply(peer(5, 0));
    assert!(matches!(group.apply(peer(5, 0)), Response::PeerRegistered(_)), "it says hello on every connection");
    assert_eq!(group.refused(peer(4, 0)), Refusal::PeerWentBack { registered: 5 });
    assert_eq!(
        group.refused(start(5, 0, 2)),
        Refusal::PeerWentBack { registered: 5 },
        "another start under its number"
    );
    assert!(matches!(group.apply(peer(4, 1)), Response::PeerRegistered(_)));
    assert_eq!(group.refused(peer(9, 0)), Refusal::PeerWentBack { registered: 4 });
}

#[test]
fn key_leases_never_overlap_and_end_before_the_keys_do() {
    let mut group = Group::new();
    let lease = |count| Command::LeaseKeys { node: NodeId(1), count };
    assert_eq!(group.apply(lease(10)), Response::Keys { first: NeedleKey(1), count: 10 });
    assert_eq!(group.apply(lease(5)), Response::Keys { first: NeedleKey(11), count: 5 });
    assert_eq!(group.refused(lease(0)), Refusal::LeaseSize);
    assert_eq!(group.refused(lease(KEYS_IN_LEASE_MAX + 1)), Refusal::LeaseSize);
    assert_eq!(group.refused(Command::LeaseKeys { node: NodeId(9), count: 1 }), Refusal::NoSuchNode(NodeId(9)));
    let state = ControlState { next_key: u64::MAX - 2, ..group.registry().state };
    group.kv.apply([(STATE_KEY.to_vec(), Some(Row::State(state).encode().into()))].into());
    assert_eq!(group.refused(lease(3)), Refusal::IdsExhausted);
}

#[test]
fn volume_ids_carry_the_datacenter_and_are_never_issued_twice() {
    let mut group = Group::new();
    let first = group.volume(create("200", &[], &[1, 2], 50));
    let second = group.volume(create("000", &[], &[], 50));
    assert_eq!((first.id.get(), second.id.get()), (256 + 3, 2 * 256 + 3));
    assert_eq!((first.state, first.epoch, first.created), (VolumeState::Creating, Epoch(1), at(50)));
    let state = ControlState { next_volume: VolumeId::COUNTER_MAX + 1, ..group.registry().state };
    group.kv.apply([(STATE_KEY.to_vec(), Some(Row::State(state).encode().into()))].into());
    assert_eq!(group.refused(create("000", &[], &[], 51)), Refusal::IdsExhausted);
    assert_eq!(group.registry().volumes.len(), 2);
}

#[test]
fn copies_must_be_as_many_as_the_code_says_and_all_different() {
    let mut group = Group::new();
    group.apply(register(2, 1, 2));
    assert_eq!(group.refused(create("200", &[], &[1], 5)), Refusal::WrongCopies);
    assert_eq!(group.refused(create("200", &[], &[1, 1], 5)), Refusal::WrongCopies);
    assert_eq!(group.refused(create("100", &[], &[3], 5)), Refusal::WrongCopies, "the owner is no mirror");
    assert_eq!(group.refused(create("001", &[1], &[], 5)), Refusal::WrongCopies);
    assert_eq!(group.refused(create("000", &[2], &[], 5)), Refusal::WrongCopies);
    assert_eq!(group.refused(create("001", &[4], &[], 5)), Refusal::NoSuchNode(NodeId(4)));
    assert_eq!(group.volume(create("001", &[2], &[], 5)).secondaries, [NodeId(2)]);
}

#[test]
fn no_volume_is_created_at_or_below_a_closed_timestamp() {
    let mut group = Group::new();
    assert_eq!(group.apply(Command::CloseRegistry { at: at(100) }), Response::Closed(at(100)));
    assert_eq!(group.apply(Command::CloseRegistry { at: at(90) }), Response::Closed(at(100)), "never back");
    assert_eq!(group.refused(create("000", &[], &[], 100)), Refusal::Restamp { above: at(100) });
    group.volume(create("000", &[], &[], 101));
    group.apply(Command::Report { node: NodeId(1), partitions: 1, reports: vec![], close: Some(at(200)) });
    assert_eq!(group.refused(create("000", &[], &[], 150)), Refusal::Restamp { above: at(200) });
}

#[test]
fn a_volume_is_fenced_by_its_epoch_and_sealed_once() {
    let mut group = Group::new();
    let volume = group.volume(create("000", &[], &[], 5)).id;
    let epoch = Epoch(1);
    assert_eq!(group.volume(Command::OpenVolume { volume }).state, VolumeState::Open);
    assert_eq!(group.volume(Command::OpenVolume { volume }).state, VolumeState::Open, "a retry");
    let finish = |epoch, length| Command::FinishSeal { volume, epoch: Epoch(epoch), length };
    assert_eq!(group.refused(finish(1, 8)), Refusal::WrongState(VolumeState::Open));
    for _ in 0..2 {
        let sealing = group.volume(Command::BeginSeal { volume, epoch });
        assert_eq!((sealing.state, sealing.epoch), (VolumeState::Sealing, Epoch(2)), "also when repeated");
    }
    assert_eq!(group.refused(Command::OpenVolume { volume }), Refusal::WrongState(VolumeState::Sealing));
    assert_eq!(group.refused(finish(1, 8)), Refusal::StaleEpoch { current: Epoch(2) });
    assert_eq!(group.volume(finish(2, 8)).sealed_length, Some(8));
    assert_eq!(group.volume(finish(2, 8)).sealed_length, Some(8), "a retry");
    assert_eq!(group.refused(finish(2, 16)), Refusal::WrongState(VolumeState::Sealed));
    assert_eq!(
        group.refused(Command::BeginSeal { volume, epoch: Epoch(2) }),
        Refusal::StaleEpoch { current: Epoch(2) }
    );
    assert_eq!(group.volume(Command::BeginSeal { volume, epoch }).state, VolumeState::Sealed, "a late retry");
    let unknown = VolumeId::new(9, datacenter(3)).unwrap();
    assert_eq!(group.refused(Command::OpenVolume { volume: unknown }), Refusal::NoSuchVolume);
}

/// Of a node that leads the only partition and the catalog.
fn node_report(source: u8, meta: u64, data: u64, reported_at: u64, held: Option<&str>) -> NodeReport {
    let WatermarkReport { source, data, reported_at, parked, held, .. } = report(source, meta, data, reported_at, held);
    let applied = vec![(PartitionId(0), at(meta)), (PartitionId::CATALOG, at(meta))];
    NodeReport { source, applied, data, reported_at, parked, held, moves: 0 }
}

fn reports(node: u32, reports: Vec<NodeReport>) -> Command {
    Command::Report { node: NodeId(node), partitions: 1, reports, close: None }
}

#[test]
fn watermarks_only_move_forward() {
    let mut group = Group::new();
    group.apply(reports(1, vec![node_report(1, 10, 8, 100, None), node_report(2, 5, 5, 100, Some("gap"))]));
    group.apply(reports(1, vec![node_report(1, 11, 7, 99, None), node_report(1, 9, 9, 101, Some("skewed"))]));
    let expected = report(1, 11, 9, 101, Some("skewed"));
    assert_eq!(group.registry().watermarks, [expected, report(2, 5, 5, 100, Some("gap"))]);
    assert_eq!(
        group.refused(reports(1, vec![node_report(1, 99, 99, 102, None), node_report(3, 1, 1, 1, None)])),
        Refusal::OwnWatermark
    );
}

#[test]
fn a_partition_without_a_report_holds_the_watermark_at_zero() {
    let mut group = Group::new();
    let of =
        |partition, through| NodeReport { applied: vec![(partition, at(through))], ..node_report(1, 0, 50, 1, None) };
    let told = |group: &mut Group, node, report| {
        group.apply(Command::Report { node: NodeId(node), partitions: 2, reports: vec![report], close: None });
        let watermark = &group.registry().watermarks[0];
        (watermark.meta.raw(), watermark.data.raw())
    };
    assert_eq!(told(&mut group, 1, of(PartitionId(0), 30)), (0, 0));
    assert_eq!(told(&mut group, 2, of(PartitionId::CATALOG, 20)), (0, 0));
    // A partition keeps what its last leader told, whichever node that was.
    assert_eq!(told(&mut group, 1, of(PartitionId(1), 10)), (10, 10));
    assert_eq!(told(&mut group, 2, of(PartitionId(1), 40)), (20, 20));
}

#[test]
fn a_node_that_was_given_mirrors_counts_from_zero_and_one_without_any_holds_up_nobody() {
    let mut group = Group::new();
    group.apply(register(2, 1, 2));
    group.apply(register(4, 1, 4));
    let mirror = |counter| VolumeId::new(counter, datacenter(1)).unwrap();
    let data = |group: &mut Group, node, data| {
        group.apply(reports(node, vec![node_report(1, 100, data, 1, None)]));
        group.registry().watermarks[0].data.raw()
    };
    // Node 4 reports once, holds nothing, and is never heard again.
    assert_eq!(data(&mut group, 4, 10), 10);
    assert_eq!(data(&mut group, 1, 20), 20);
    let given = Command::AssignMirrors { volumes: vec![mirror(1), mirror(2)], node: NodeId(2) };
    assert_eq!(group.apply(given), Response::MirrorsAssigned);
    assert_eq!(data(&mut group, 1, 60), 20, "node 2 has not reported its mirrors");
    assert_eq!(data(&mut group, 2, 40), 40);
    assert_eq!(data(&mut group, 1, 70), 40);

    // Who was first keeps a mirror; the other volume of the same command is given.
    let late = Command::AssignMirrors { volumes: vec![mirror(2), mirror(3)], node: NodeId(1) };
    assert_eq!(group.apply(late), Response::MirrorsAssigned);
    let mirrors = group.registry().mirrors;
    assert_eq!((mirrors[&mirror(2)], mirrors[&mirror(3)]), (NodeId(2), NodeId(1)));
}

#[test]
fn a_moved_mirror_counts_from_the_first_report_that_knows_of_it() {
    let mut group = Group::new();
    for node in [2, 4] {
        group.apply(register(node, 1, node as u8));
    }
    let mirror = |counter| VolumeId::new(counter, datacenter(1)).unwrap();
    let report = |group: &mut Group, node, data, moves| {
        let report = NodeReport { moves, ..node_report(1, 100, data, 1, None) };
        group.apply(reports(node, vec![report]));
        group.registry().watermarks[0].data.raw()
    };
    for (node, volumes) in [(2, vec![mirror(1), mirror(2)]), (4, vec![mirror(3)])] {
        group.apply(Command::AssignMirrors { volumes, node: NodeId(node) });
    }
    report(&mut group, 4, 60, 0);
    assert_eq!(report(&mut group, 2, 20, 0), 20);

    // Node 2 is gone; node 4 has reported 60 without its mirrors, and one such report is still on its way.
    let moved = |volumes| Command::MoveMirrors { volumes, from: NodeId(2), to: NodeId(4) };
    assert_eq!(group.apply(moved(vec![mirror(1)])), Response::MirrorsAssigned);
    assert_eq!(report(&mut group, 4, 70, 0), 20, "computed before the move");
    assert_eq!(report(&mut group, 4, 80, 1), 20, "node 2 still has one");
    assert_eq!(group.apply(moved(vec![mirror(1), mirror(2), mirror(3)])), Response::MirrorsAssigned);
    let registry = group.registry();
    assert_eq!([1, 2, 3].map(|counter| registry.mirrors[&mirror(counter)]), [NodeId(4); 3]);
    assert_eq!(registry.moves, [((datacenter(1), NodeId(4)), 2)].into(), "node 2 counts no more");
    assert_eq!(report(&mut group, 4, 90, 1), 20, "it knows of one move of two");
    assert_eq!(report(&mut group, 4, 30, 2), 30);
    assert_eq!(report(&mut group, 1, 95, 0), 30);

    // Repeated it moves nothing, and starts nothing anew.
    group.apply(moved(vec![mirror(1)]));
    assert_eq!(report(&mut group, 4, 50, 2), 50);
    let unknown = Command::MoveMirrors { volumes: vec![mirror(1)], from: NodeId(4), to: NodeId(9) };
    assert_eq!(group.refused(unknown), Refusal::NoSuchNode(NodeId(9)));
}

#[test]
fn mirrors_go_to_registered_nodes_and_are_of_other_datacenters() {
    let mut group = Group::new();
    let assign = |datacenter_id, node, count| Command::AssignMirrors {
        volumes: (1..=count).map(|counter| VolumeId::new(counter, datacenter(datacenter_id)).unwrap()).collect(),
        node: NodeId(node),
    };
    assert_eq!(group.refused(assign(1, 9, 1)), Refusal::NoSuchNode(NodeId(9)));
    assert_eq!(group.refused(assign(3, 1, 1)), Refusal::OwnWatermark);
    assert_eq!(group.refused(assign(1, 1, MIRRORS_IN_COMMAND_MAX as u32 + 1)), Refusal::TooManyMirrors);
}

#[test]
fn a_drain_outlives_the_next_registration() {
    let mut group = Group::new();
    let drain = |draining| Command::DrainNode { node: NodeId(1), draining };
    assert!(matches!(group.apply(drain(true)), Response::Node(node) if node.draining));
    group.apply(register(1, 8, 2));
    assert!(group.registry().nodes[0].draining);
    group.apply(drain(false));
    assert!(!group.registry().nodes[0].draining);
    let unknown = Command::DrainNode { node: NodeId(9), draining: true };
    assert_eq!(group.refused(unknown), Refusal::NoSuchNode(NodeId(9)));
}

#[test]
fn the_registry_version_moves_with_volumes_and_closes_alone() {
    let mut group = Group::new();
    let mut versions = vec![group.registry().state.registry_version];
    let volume = VolumeId::new(1, datacenter(3)).unwrap();
    for command in [
        create("000", &[], &[], 5),
        Command::OpenVolume { volume },
        Command::OpenVolume { volume },
        reports(1, vec![node_report(1, 1, 1, 1, None)]),
        Command::CloseRegistry { at: at(9) },
        Command::CloseRegistry { at: at(9) },
        register(2, 1, 2),
    ] {
        group.apply(command);
        versions.push(group.registry().state.registry_version);
    }
    assert_eq!(versions, [0, 1, 2, 2, 2, 3, 3, 3]);
}

#[test]
fn a_damaged_row_stops_the_group() {
    let mut group = Group::new();
    group.kv.apply([(STATE_KEY.to_vec(), Some(Bytes::from_static(b"not a record")))].into());
    let mut view = Overlay::new(&group.kv);
    let result = group.machine.apply(&mut view, &Command::CloseRegistry { at: at(1) }.encode());
    assert!(matches!(result, Err(MachineError::Invariant(_))));
    assert!(matches!(group.machine.apply(&mut view, b"not a command"), Err(MachineError::Command(_))));
}

#[test]
fn a_renewal_gives_up_open_volumes_and_skips_what_may_have_been_issued() {
    let mut group = Group::new();
    let open = group.volume(create("000", &[], &[], 5)).id;
    group.apply(Command::OpenVolume { volume: open });
    let sealed = group.volume(create("000", &[], &[], 6)).id;
    group.apply(Command::BeginSeal { volume: sealed, epoch: Epoch(1) });
    group.apply(Command::FinishSeal { volume: sealed, epoch: Epoch(2), length: 64 });
    let renew = |incarnation| Command::Renew { node: NodeId(1), incarnation: Incarnation(incarnation) };
    let before = group.registry().state;
    assert_eq!(group.apply(renew(1)), Response::Renewed);
    let registry = group.registry();
    let given_up = registry.volume(open).unwrap();
    assert_eq!((given_up.state, given_up.epoch), (VolumeState::Sealing, Epoch(2)));
    assert_eq!(registry.volume(sealed).unwrap().state, VolumeState::Sealed);
    assert!(
        registry.state.next_volume > before.next_volume + 1000 && registry.state.next_key > before.next_key + (1 << 40)
    );
    assert_eq!(group.apply(renew(1)), Response::Renewed, "the same again");
    assert_eq!(group.registry().state, registry.state);
    assert_eq!(group.apply(renew(2)), Response::Renewed);
    assert!(group.registry().state.next_volume > registry.state.next_volume);
    let state = ControlState { next_key: u64::MAX - 2, ..group.registry().state };
    group.kv.apply([(STATE_KEY.to_vec(), Some(Row::State(state).encode().into()))].into());
    assert_eq!(group.refused(renew(3)), Refusal::IdsExhausted);
}
