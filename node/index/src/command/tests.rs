//! The durable forms of commands, responses and mutations.

use bytes::Bytes;
use meridian_replicator::{Batch, Cursor, StableTimes};
use meridian_types::{Incarnation, LogPosition};
use proptest::prelude::{prop_assert_eq, proptest};

use super::{
    Command, Condition, Mutation, MutationError, Operation, Outcome, PartChoice, Proposal, RemoteOutcome, Response,
};
use crate::attributes::Change;
use crate::rows::{Checksum, ChecksumAlgorithm, VersionId, VersionKind, VersionMode};
use crate::testing::{
    BUCKET, annotate, attempt, body, create_upload, dc, delete, key, put, put_if, remove, request, stamp, time,
    upload_id, version,
};

fn proposals() -> Vec<Proposal> {
    let complete = Operation::CompleteUpload {
        bucket: BUCKET,
        key: key("k"),
        upload: upload_id(1, 2),
        parts: vec![PartChoice { number: 1, etag: "e".to_owned() }],
        mode: VersionMode::Versioned,
        condition: Condition::Absent,
        checksums: vec![Checksum { algorithm: ChecksumAlgorithm::Crc32, value: vec![1, 2, 3, 4], composite: false }],
    };
    let operations = [
        put("a", 1),
        put_if("b", 2, Condition::Etag("*".to_owned())),
        delete("c"),
        create_upload("d", upload_id(1, 1)),
        complete,
        remove("e", VersionId::Stamp(stamp(5, 2))),
        annotate("f", None, Change::Tags(vec![("k".to_owned(), "v".to_owned())])),
    ];
    let numbered = operations.into_iter().zip(1..);
    numbered.map(|(operation, n)| Proposal { request: request(n), stamp: stamp(n, 1), operation }).collect()
}

fn commands() -> Vec<Command> {
    let (after, entries) = (LogPosition::start(dc(2)), vec![Bytes::from_static(b"entry")]);
    vec![
        Command::Local(proposals()),
        Command::Remote(Batch { source: dc(2), after, entries, closed: time(8) }),
        Command::Close(time(300)),
        Command::Fence { bucket: BUCKET, attempt: attempt(1, 9), raised: true },
        Command::RaiseIncarnation { to: Incarnation(2) },
        Command::Stable(StableTimes { meta: time(300), data: time(200), settled: time(100) }),
    ]
}

#[test]
fn commands_come_back_and_flips_and_cuts_are_refused() {
    for command in commands() {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).unwrap(), command);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Command::decode(&flipped).is_err(), "bit {bit} flipped unseen");
        }
        for length in 0..bytes.len() {
            assert!(Command::decode(&bytes[..length]).is_err(), "cut at {length} unseen");
        }
    }
}

#[test]
fn responses_come_back() {
    let cursor = Cursor::start(dc(2));
    let responses = [
        Response::Local(vec![
            Outcome::Stored { stamp: stamp(1, 1), version: VersionId::Null, replaced: true },
            Outcome::Restamp { above: time(4) },
            Outcome::Completed {
                stamp: stamp(1, 1),
                etag: "x-1".to_owned(),
                size: 9,
                version: VersionId::Null,
                checksums: Vec::new(),
            },
        ]),
        Response::Remote(RemoteOutcome::Rejected { cursor, reason: "no".to_owned() }),
        Response::Closed(time(4)),
        Response::Done,
        Response::Stable { more: true },
    ];
    for response in responses {
        assert_eq!(Response::decode(&response.encode()).unwrap(), response);
    }
}

/// Raft logs and replication logs on disk hold these: a new form gets a new version.
#[test]
fn golden_bytes() {
    let found: Vec<String> = commands().iter().map(|command| hex::encode(command.encode())).collect();
    assert_eq!(found, GOLDEN_COMMANDS);
    let mode = VersionMode::Null;
    let stored = Mutation::Object { bucket: BUCKET, key: key("a"), mode, kind: VersionKind::Object(body(1)) };
    let deleted = Mutation::Object { bucket: BUCKET, key: key("a"), mode, kind: VersionKind::Tombstone };
    assert_eq!(hex::encode(stored.encode()), GOLDEN_PUT);
    assert_eq!(hex::encode(deleted.encode()), GOLDEN_DELETE);
    let removed = Mutation::Removed { bucket: BUCKET, key: key("a"), version: stamp(300, 1) };
    assert_eq!(hex::encode(removed.encode()), GOLDEN_REMOVED);
    let row = version(stamp(300, 1), 7, &[(2, 3)], VersionKind::Object(body(1)));
    let annotated = Mutation::Annotated { bucket: BUCKET, key: key("a"), row: Box::new(row) };
    assert_eq!(Mutation::decode(&annotated.encode()), Ok(annotated.clone()));
    assert_eq!(hex::encode(annotated.encode()), GOLDEN_ANNOTATED);
}

const GOLDEN_COMMANDS: [&str; 6] = [
    "0b01000700000000000000000000000000000001010100b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7016100e907010000000000\
     00000000000000000000010000000000000000000000000000000181068180c0c4e78a8d09a18695bb08e907818080804480\
     808080e0f39f80050000000000000000000000000000000000000002020100b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7016200\
     ea0701000000000000000000000000000000020000000000000000000000000000000181068280c0c4e78a8d09a18695bb08\
     ea07828080804480808080e0f39f800500000002012a00000000000000000000000000000003030101b7b7b7b7b7b7b7b7b7\
     b7b7b7b7b7b7b70163000000000000000000000000000000000004040102b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b701640101\
     01010101010101010101010101010106746578742f7800000000000000000000000000000500000000000000000000000000\
     00000005050104b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7016b01020202020202020202020202020202010101650101010004\
     01020304000000000000000000000000000000000606010ab7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b701650105020000000000\
     0000000000000000000000000707010bb7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b70166000001016b0176006042dca9",
    "0b010102020000000000000000000000000000000000000105656e747279088bf5e324",
    "0b0102ac028dfee1ec",
    "0b0103b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b70100000000000000000000000000000009015c5c4658",
    "0b0104024d22f1d6",
    "0b0105ac02c8016461e2330e",
];
const GOLDEN_PUT: &str = "0100b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b701610000e9070100000000000000000000000000000001000000000000000000\
    0000000000000181068180c0c4e78a8d09a18695bb08e907818080804480808080e0f39f8005000000";
const GOLDEN_REMOVED: &str = "0103b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b70161ac0201";
const GOLDEN_ANNOTATED: &str = "0104b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b70161ac02010000e9070100000000000000000000000000000001000000000000\
    0000000000000000000181068180c0c4e78a8d09a18695bb08e907818080804480808080e0f39f8005000000000701020003";
const GOLDEN_DELETE: &str = "0100b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b701610002";

#[test]
fn a_mutation_of_a_newer_version_is_refused_by_name() {
    let mutation =
        Mutation::Object { bucket: BUCKET, key: key("a"), mode: VersionMode::Null, kind: VersionKind::Tombstone };
    let mut bytes = mutation.encode().to_vec();
    assert_eq!(Mutation::decode(&bytes), Ok(mutation));
    bytes.push(0);
    assert!(matches!(Mutation::decode(&bytes), Err(MutationError::Body(_))));
    bytes[0] = 2;
    assert_eq!(Mutation::decode(&bytes), Err(MutationError::Version { found: 2 }));
    assert_eq!(Mutation::decode(&[]), Err(MutationError::Empty));
}

proptest! {
    #[test]
    fn any_bytes_are_a_mutation_or_refused(bytes: Vec<u8>) {
        if let Ok(mutation) = Mutation::decode(&bytes) {
            prop_assert_eq!(Mutation::decode(&mutation.encode()).unwrap(), mutation);
        }
        let _ = Command::decode(&bytes);
    }
}
