//! The bytes of rows and commands: golden, round trip, damaged.

use meridian_index::kv::MemoryKv;
use proptest::prelude::*;

use super::*;
use crate::Command;

fn datacenter(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

fn rows() -> Vec<Row> {
    let info = NodeInfo {
        name: "a-1".parse().unwrap(),
        rack: "r1".to_owned(),
        s3: "h:9000".to_owned(),
        rest: "h:9001".to_owned(),
        grpc: "h:9002".to_owned(),
        bulk: "h:9003".to_owned(),
    };
    vec![
        Row::State(ControlState {
            next_volume: 3,
            next_key: 1 << 20,
            registry_closed: Timestamp::from_raw(300),
            boot_counter: 4,
            registry_version: 5,
            renewed: Incarnation(1),
        }),
        Row::Node(NodeRecord { id: NodeId(1), info, boot_counter: 9, session: RequestId([7; 16]), draining: true }),
        Row::Volume(VolumeRecord {
            id: VolumeId::new(2, datacenter(3)).unwrap(),
            code: "200".parse().unwrap(),
            state: VolumeState::Sealed,
            epoch: Epoch(2),
            generation: FileGeneration(1),
            primary: NodeId(1),
            secondaries: vec![NodeId(4)],
            mirrors: vec![datacenter(1), datacenter(2)],
            sealed_length: Some(4096),
            created: Timestamp::from_raw(200),
        }),
        Row::Watermark(WatermarkReport {
            source: datacenter(1),
            meta: Timestamp::from_raw(12),
            data: Timestamp::from_raw(11),
            reported_at: Timestamp::from_raw(13),
            parked: 2,
            held: Some("gap".to_owned()),
        }),
        Row::Peer(PeerRecord {
            datacenter: datacenter(2),
            node: NodeId(1),
            boot_counter: 6,
            session: RequestId([7; 16]),
            incarnation: Incarnation(1),
        }),
        Row::Applied(Applied {
            source: datacenter(1),
            partitions: [(PartitionId(0), Timestamp::from_raw(12)), (PartitionId::CATALOG, Timestamp::from_raw(15))]
                .into(),
        }),
        Row::Progress(NodeProgress {
            source: datacenter(1),
            node: NodeId(2),
            data: Timestamp::from_raw(11),
            parked: 2,
            held: Some("gap".to_owned()),
            moves: 3,
        }),
        Row::Mirror(MirrorRecord { volume: VolumeId::new(2, datacenter(1)).unwrap(), node: NodeId(2) }),
    ]
}

fn commands() -> Vec<Command> {
    let rows = rows();
    let (Row::Node(node), Row::Volume(volume)) = (rows[1].clone(), rows[2].clone()) else { unreachable!() };
    let (Row::Mirror(mirror), Row::Peer(peer)) = (rows[7].clone(), rows[4].clone()) else { unreachable!() };
    let NodeRecord { id, info, boot_counter, session, .. } = node;
    let (close, epoch, volume_id) = (Some(Timestamp::from_raw(14)), Epoch(1), volume.id);
    vec![
        Command::RegisterNode { node: id, info, boot_counter, session },
        Command::RegisterPeer(peer),
        Command::LeaseKeys { node: id, count: 1 << 20 },
        Command::CreateVolume {
            code: volume.code,
            primary: id,
            secondaries: volume.secondaries,
            mirrors: volume.mirrors,
            created: volume.created,
        },
        Command::OpenVolume { volume: volume_id },
        Command::BeginSeal { volume: volume_id, epoch },
        Command::FinishSeal { volume: volume_id, epoch, length: 4096 },
        Command::CloseRegistry { at: volume.created },
        Command::Report {
            node: id,
            partitions: 16,
            reports: vec![NodeReport {
                source: datacenter(1),
                applied: vec![(PartitionId(3), Timestamp::from_raw(12))],
                data: Timestamp::from_raw(11),
                reported_at: Timestamp::from_raw(13),
                parked: 2,
                held: Some("gap".to_owned()),
                moves: 3,
            }],
            close,
        },
        Command::AssignMirrors { volumes: vec![mirror.volume], node: mirror.node },
        Command::DrainNode { node: id, draining: true },
        Command::Renew { node: id, incarnation: Incarnation(1) },
        Command::MoveMirrors { volumes: vec![mirror.volume], from: mirror.node, to: NodeId(3) },
    ]
}

/// On disk for ever: a change of one of these needs a new version and a reader for the old one.
#[test]
fn golden_bytes() {
    let hexed: Vec<_> = rows().iter().map(|row| hex(&row.encode())).collect();
    assert_eq!(hexed, GOLDEN_ROWS);
    let hexed: Vec<_> = commands().iter().map(|command| hex(&command.encode())).collect();
    assert_eq!(hexed, GOLDEN_COMMANDS);
    let keys: Vec<_> = rows().iter().map(|row| row.key().escape_ascii().to_string()).collect();
    assert_eq!(
        keys,
        [
            "s",
            "n\\x00\\x00\\x00\\x01",
            "v\\x00\\x00\\x02\\x03",
            "w\\x01",
            "p\\x02\\x00\\x00\\x00\\x01",
            "a\\x01",
            "r\\x01\\x00\\x00\\x00\\x02",
            "m\\x00\\x00\\x02\\x01"
        ]
    );
}

const GOLDEN_ROWS: [&str; 8] = [
    "0e010003808040ac02040501068a419d",
    "0e01010103612d3102723106683a3930303006683a3930303106683a3930303206683a393030330907070707070707070707070707070707015999522b",
    "0e0102830403323030030201010104020102018020c8018edbe517",
    "0e0103010c0b0d02010367617097575696",
    "0e010402010607070707070707070707070707070707016cfc2ce9",
    "0e01050102000cffff030fbed1b2f5",
    "0e010601020b02010367617003aa63fc53",
    "0e010781040251d093fe",
];
const GOLDEN_COMMANDS: [&str; 13] = [
    "0d01000103612d3102723106683a3930303006683a3930303106683a3930303206683a393030330907070707070707070707070707070707a9142335",
    "0d010102010607070707070707070707070707070707017d667b4e",
    "0d010201808040d8f0384b",
    "0d010303323030010104020102c80109620e10",
    "0d0104830465676413",
    "0d0105830401f3997729",
    "0d010683040180206440c484",
    "0d0107c8012f1e5f9a",
    "0d01080110010101030c0b0d02010367617003010ef9188a30",
    "0d010901810402ad2f2476",
    "0d010a0101bc71f313",
    "0d010b0101c2e3b2b6",
    "0d010c01810402039121fd01",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn rows_and_commands_round_trip() {
    for row in rows() {
        assert_eq!(Row::decode(&row.key(), &row.encode()).unwrap(), row);
    }
    for command in commands() {
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }
}

#[test]
fn a_row_under_the_key_of_another_is_refused() {
    let mut kv = MemoryKv::new();
    let (peer, watermark) = (rows()[4].clone(), rows()[3].clone());
    kv.apply([(watermark.key(), Some(peer.encode().into()))].into());
    assert!(matches!(Row::read(&kv, &watermark.key()), Err(RowError::Misplaced { .. })));
    assert!(matches!(Row::read_all(&kv, WATERMARKS), Err(RowError::Misplaced { .. })));
}

proptest! {
    #[test]
    fn damaged_rows_and_commands_are_refused(which: prop::sample::Index, flip: prop::sample::Index) {
        let rows = rows();
        let row = which.get(&rows);
        let commands = commands();
        let command = which.get(&commands).encode();
        for bytes in [row.encode(), command.to_vec()] {
            let bit = flip.index(bytes.len() * 8);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            for damaged in [&flipped[..], &bytes[..bit / 8]] {
                prop_assert!(Row::decode(&row.key(), damaged).is_err());
                prop_assert!(Command::decode(damaged).is_err());
            }
        }
    }
}
