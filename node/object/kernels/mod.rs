//! The kernels of the hot paths, one by one and without any I/O. `examples/kernels.rs` runs them.
//!
//! Invariants: after `prepare` each run of a kernel does the same work, so that the difference between 2 N runs and N is
//! the cost of N; each checks its result, so that nothing is optimised away.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use meridian_env::disk::SimulatedDisk;
use meridian_env::{ClockConfig, HybridClock, ManualClock};
use meridian_index::kv::{MemoryKv, Overlay};
use meridian_index::{
    ChunkRef, Command, Condition, IndexMachine, ListQuery, Machine, Merge, ObjectBody, ObjectVersion, Operation,
    Proposal, VersionId, VersionKind, VersionMode, merge, queries,
};
use meridian_replicator::{LogEntry, OriginCursor};
use meridian_sigv4::{Claim, Credentials, PayloadHash, Scope, SecretKey, Verifier, sign};
use meridian_types::{
    BucketId, Cookie, DatacenterId, EntryHash, Epoch, Fid, FileGeneration, Incarnation, NeedleKey, ObjectKey,
    PartitionId, RequestId, Sequence, Sound, Stamp, Timestamp, VolumeId,
};
use meridian_volume::{NewNeedle, VolumeHeader, VolumeSet};

const BUCKET: BucketId = BucketId([0xb7; 16]);
/// Objects in the index that is looked up in and listed.
const OBJECTS: u64 = 2000;
/// Objects or needles that are written before all begins anew, so that a long run stays in memory.
const WRITES_MAX: u64 = 20_000;
const PAGE_KEYS: usize = 1000;
const OBJECT_BYTES: usize = 1024;
const NOW_UNIX_MS: u64 = 1_790_000_000_000;

/// One run of a kernel.
pub type Run = Box<dyn FnMut()>;

/// A kernel's name, and what prepares its runs.
pub type Kernel = (&'static str, fn() -> Run);

pub const KERNELS: [Kernel; 9] = [
    ("index-insert", insert),
    ("index-list-page", list_page),
    ("index-lookup", lookup),
    ("log-append", log_append),
    ("needle-append", append),
    ("needle-read", read),
    ("row-merge", row_merge),
    ("sigv4-sign", sigv4_sign),
    ("sigv4-verify", sigv4_verify),
];

fn here() -> DatacenterId {
    DatacenterId::new(1).expect("1 is one")
}

fn stamp(number: u64) -> Stamp {
    Stamp::new(Timestamp::from_raw(Timestamp::from_unix_ms(NOW_UNIX_MS).raw() + number), here())
}

fn volume_id() -> VolumeId {
    VolumeId::new(3, here()).expect("3 is one")
}

fn key(number: u64) -> ObjectKey {
    format!("object-{number:012}").parse().expect("a key")
}

fn body(number: u64) -> ObjectBody {
    let fid = Fid { volume: volume_id(), key: NeedleKey(number), cookie: Cookie(0x8765_4321) };
    let end_offset = (17 << 30) + number * 1064;
    let chunk = ChunkRef { fid, length: OBJECT_BYTES as u32, end_offset, stamp: stamp(number).timestamp };
    ObjectBody {
        size: OBJECT_BYTES as u64,
        etag: format!("{number:032x}"),
        chunks: vec![chunk],
        ..ObjectBody::default()
    }
}

fn put_command(number: u64) -> Bytes {
    let mut request = [0; 16];
    request[8..].copy_from_slice(&number.to_be_bytes());
    let (mode, condition) = (VersionMode::Null, Condition::None);
    let operation = Operation::Put { bucket: BUCKET, key: key(number), mode, body: body(number), condition };
    Command::Local(vec![Proposal { request: RequestId(request), stamp: stamp(number), operation }]).encode()
}

fn apply_put(kv: &mut MemoryKv, number: u64) {
    let machine = IndexMachine { datacenter: here(), partition: PartitionId(0) };
    let mut view = Overlay::new(kv);
    machine.apply(&mut view, &put_command(number)).expect("applied");
    let writes = view.into_writes();
    kv.apply(writes);
}

/// An index with `OBJECTS` objects, numbered from 1.
fn index() -> MemoryKv {
    let mut kv = MemoryKv::new();
    (1..=OBJECTS).for_each(|number| apply_put(&mut kv, number));
    kv
}

/// Encoding, decoding, applying and answering one PUT of a new key.
fn insert() -> Run {
    let (mut kv, mut number) = (index(), OBJECTS);
    Box::new(move || {
        if number == WRITES_MAX {
            (kv, number) = (index(), OBJECTS);
        }
        number += 1;
        apply_put(&mut kv, number);
        assert_eq!(queries::state(&kv).expect("a whole index").next, Sequence(number + 1));
    })
}

/// The current version of a key, decoded.
fn lookup() -> Run {
    let (kv, mut turn) = (index(), 0);
    Box::new(move || {
        turn += 1;
        let found = queries::object_row(&kv, BUCKET, &key(1 + turn % OBJECTS)).expect("a whole index");
        assert!(found.is_some());
    })
}

fn list_page() -> Run {
    let kv = index();
    let query = ListQuery { after: Some(key(500).as_str().to_owned()), limit: PAGE_KEYS, ..ListQuery::default() };
    Box::new(move || {
        let page = queries::list(&kv, BUCKET, &query).expect("a whole index");
        assert_eq!((page.entries.len(), page.truncated), (PAGE_KEYS, true));
    })
}

fn version(number: u64) -> ObjectVersion {
    ObjectVersion {
        stamp: stamp(number),
        version: VersionId::Null,
        kind: VersionKind::Object(body(number)),
        origin: OriginCursor { incarnation: Incarnation(0), sequence: Sequence(number) },
        cursors: [].into_iter().collect(),
    }
}

fn row_merge() -> Run {
    let (older, newer) = (version(1), version(2));
    Box::new(move || {
        assert!(matches!(merge(Sound, Some(&older), &newer), Merge::Incoming { .. }));
        assert!(matches!(merge(Sound, Some(&newer), &older), Merge::Existing { .. }));
    })
}

/// An entry of the replication log: encoded, its hash chained, decoded.
fn log_append() -> Run {
    let (mut hash, mut number, mutation) = (EntryHash([0; 16]), 0, put_command(7));
    Box::new(move || {
        number += 1;
        let (incarnation, sequence) = (Incarnation(0), Sequence(1 << 20 | number));
        let cursors = [].into_iter().collect();
        let entry = LogEntry { stamp: stamp(number), incarnation, sequence, cursors, mutation: mutation.clone() };
        let encoded = entry.encode();
        hash = entry.position_after(hash, &encoded).hash;
        assert_eq!(LogEntry::decode(&encoded).expect("what was encoded").sequence, sequence);
    })
}

fn request() -> http::request::Parts {
    let uri = "http://127.0.0.1:9000/bucket/object-000000000001?versionId=null";
    http::Request::get(uri).header("range", "bytes=0-1023").body(()).expect("a request").into_parts().0
}

fn credentials() -> Credentials {
    let secret_key = SecretKey::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    Credentials { access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret_key }
}

fn sigv4_sign() -> Run {
    let (hash, credentials, scope) = (PayloadHash::of(b""), credentials(), Scope::new("us-east-1", "s3"));
    Box::new(move || {
        let mut parts = request();
        sign(&mut parts, &hash, &credentials, &scope, NOW_UNIX_MS).expect("signed");
        assert!(parts.headers.contains_key("authorization"));
    })
}

fn sigv4_verify() -> Run {
    let (credentials, verifier) = (credentials(), Verifier::new("s3"));
    let mut parts = request();
    sign(&mut parts, &PayloadHash::of(b""), &credentials, &Scope::new("us-east-1", "s3"), NOW_UNIX_MS).expect("signed");
    Box::new(move || {
        let claim = Claim::parse(&parts).expect("a claim");
        verifier.verify(&parts, &claim, &credentials.secret_key, None, NOW_UNIX_MS).expect("a right signature");
    })
}

/// A needle of 1 KiB, a group commit of its own: encoding, checksum, index and journal.
fn append() -> Run {
    let (mut set, mut number) = (volume(), 0);
    Box::new(move || {
        if number == WRITES_MAX {
            (set, number) = (volume(), 0);
        }
        number += 1;
        append_needle(&set, number);
    })
}

/// A needle read back whole: index, checksum.
fn read() -> Run {
    let (set, mut turn) = (volume(), 0);
    (1..=OBJECTS).for_each(|number| append_needle(&set, number));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    Box::new(move || {
        turn += 1;
        let fid = Fid { volume: volume_id(), key: NeedleKey(1 + turn % OBJECTS), cookie: Cookie(7) };
        let data = runtime.block_on(set.read(fid, 0..OBJECT_BYTES as u32)).expect("it was written");
        assert_eq!(data.len(), OBJECT_BYTES);
    })
}

/// A volume on a disk in memory.
fn volume() -> Arc<VolumeSet> {
    let disk = SimulatedDisk::new();
    let config = ClockConfig { skew_ms_max: 500 };
    // Not the machine's: valgrind has no page for system calls to be read from.
    let time = Arc::new(ManualClock::new(NOW_UNIX_MS));
    let clock = HybridClock::open_on(&*disk, Path::new("/clock.bound"), time, config);
    let set = VolumeSet::open(Path::new("/volumes"), disk, clock.expect("a clock")).expect("open the volumes");
    let code = "001".parse().expect("a code"); // a primary: the caller says what is one batch
    set.create(VolumeHeader { volume: volume_id(), generation: FileGeneration(0), epoch: Epoch(1), code })
        .expect("create a volume");
    set
}

fn append_needle(set: &VolumeSet, number: u64) {
    let file = set.replica(volume_id()).expect("it is a primary");
    let data = Bytes::from_static(&[7; OBJECT_BYTES]);
    let needle = NewNeedle::new(NeedleKey(number), Cookie(7), data).expect("it is small");
    let batch = file.place(&[needle]).batch.expect("there is room");
    let end = file.write(&batch).expect("write a batch");
    file.commit(end).expect("commit a batch");
}
