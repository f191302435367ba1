//! A partition over an ordered map, for the tests of this crate: it stamps proposals like a leader and hands out batches
//! like a source.

use meridian_replicator::{Batch, Cursor, CursorVector, LogHead, OriginCursor};
use meridian_types::{
    BucketId, Cookie, DatacenterId, Fid, Incarnation, NeedleKey, ObjectKey, PartitionId, RequestId, Sequence, Stamp,
    Timestamp, UploadId, VolumeId,
};

use crate::kv::{MemoryKv, Overlay};
use crate::{
    Attributes, Change, ChunkRef, Command, Condition, FenceAttempt, IndexMachine, Machine, ObjectBody, ObjectVersion,
    Operation, Outcome, Proposal, RemoteOutcome, Response, VersionId, VersionKind, VersionMode, queries,
};

pub(crate) const BUCKET: BucketId = BucketId([0xb7; 16]);

pub(crate) fn dc(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

pub(crate) fn time(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

pub(crate) fn stamp(raw: u64, datacenter: u8) -> Stamp {
    Stamp::new(time(raw), dc(datacenter))
}

pub(crate) fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

pub(crate) fn request(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    RequestId(id)
}

pub(crate) fn attempt(datacenter: u8, number: u64) -> FenceAttempt {
    FenceAttempt { datacenter: dc(datacenter), attempt: request(number) }
}

pub(crate) fn upload_id(datacenter: u8, number: u8) -> UploadId {
    UploadId::new(dc(datacenter), [number; 15])
}

pub(crate) fn place(sequence: u64) -> OriginCursor {
    OriginCursor { incarnation: Incarnation(0), sequence: Sequence(sequence) }
}

pub(crate) fn seen(cursors: &[(u8, u64)]) -> CursorVector {
    cursors.iter().map(|(id, sequence)| (dc(*id), place(*sequence))).collect()
}

/// An object of one chunk; `number` makes its ETag and its chunk.
pub(crate) fn body(number: u64) -> ObjectBody {
    ObjectBody {
        size: 1000 + number,
        etag: format!("{number:032x}"),
        chunks: vec![chunk(number, 1000 + number as u32)],
        ..ObjectBody::default()
    }
}

pub(crate) fn chunk(number: u64, length: u32) -> ChunkRef {
    let fid = Fid {
        volume: VolumeId::new(3, dc(1)).unwrap(),
        key: NeedleKey(0x0012_3456_7890_0000 + number),
        cookie: Cookie(0x8765_4321),
    };
    ChunkRef { fid, length, end_offset: (17 << 30) + number, stamp: Timestamp::from_unix_ms(1_790_000_000_000) }
}

pub(crate) fn version(stamp: Stamp, sequence: u64, cursors: &[(u8, u64)], kind: VersionKind) -> ObjectVersion {
    let (version, cursors) = (VersionMode::Null.version_id(stamp), seen(cursors));
    ObjectVersion { stamp, version, kind, origin: place(sequence), cursors }
}

pub(crate) fn put(key_text: &str, number: u64) -> Operation {
    put_if(key_text, number, Condition::None)
}

pub(crate) fn put_if(key_text: &str, number: u64, condition: Condition) -> Operation {
    Operation::Put { bucket: BUCKET, key: key(key_text), mode: VersionMode::Null, body: body(number), condition }
}

pub(crate) fn delete(key_text: &str) -> Operation {
    Operation::Delete { bucket: BUCKET, key: key(key_text), mode: VersionMode::Null, condition: Condition::None }
}

/// A put or a delete in another mode than `Null`.
pub(crate) fn put_in(mode: VersionMode, key_text: &str, number: u64) -> Operation {
    let (bucket, key, condition) = (BUCKET, key(key_text), Condition::None);
    Operation::Put { bucket, key, mode, body: body(number), condition }
}

pub(crate) fn delete_in(mode: VersionMode, key_text: &str) -> Operation {
    Operation::Delete { bucket: BUCKET, key: key(key_text), mode, condition: Condition::None }
}

pub(crate) fn remove(key_text: &str, version: VersionId) -> Operation {
    let (bucket, key, condition) = (BUCKET, key(key_text), Condition::None);
    Operation::DeleteVersion { bucket, key, version, condition, bypass_governance: false }
}

pub(crate) fn annotate(key_text: &str, version: Option<VersionId>, change: Change) -> Operation {
    Operation::Annotate { bucket: BUCKET, key: key(key_text), version, change, bypass_governance: false }
}

pub(crate) fn create_upload(key_text: &str, upload: UploadId) -> Operation {
    let attributes = Attributes { content_type: Some("text/x".to_owned()), ..Attributes::default() };
    Operation::CreateUpload {
        bucket: BUCKET,
        key: key(key_text),
        upload,
        attributes,
        initiated: time(5),
        checksum: None,
    }
}

/// A partition (or the catalog) of one datacenter.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) machine: IndexMachine,
    pub(crate) kv: MemoryKv,
    requests: u64,
}

impl Group {
    pub(crate) fn new(datacenter: u8) -> Self {
        Self::of(datacenter, PartitionId(0))
    }

    pub(crate) fn catalog(datacenter: u8) -> Self {
        Self::of(datacenter, PartitionId::CATALOG)
    }

    fn of(datacenter: u8, partition: PartitionId) -> Self {
        let machine = IndexMachine { datacenter: dc(datacenter), partition };
        Self { machine, kv: MemoryKv::new(), requests: 0 }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Response {
        let mut view = Overlay::new(&self.kv);
        let response = self.machine.apply(&mut view, &command.encode()).unwrap();
        let writes = view.into_writes();
        self.kv.apply(writes);
        Response::decode(&response).unwrap()
    }

    pub(crate) fn submit(&mut self, proposal: Proposal) -> Outcome {
        match self.apply(&Command::Local(vec![proposal])) {
            Response::Local(mut outcomes) if outcomes.len() == 1 => outcomes.remove(0),
            other => panic!("{other:?} to one proposal"),
        }
    }

    pub(crate) fn greatest(&self) -> Timestamp {
        queries::state(&self.kv).unwrap().greatest
    }

    /// A proposal with the next stamp and a request id of its own.
    pub(crate) fn proposal(&mut self, operation: Operation) -> Proposal {
        self.requests += 1;
        let stamp = Stamp::new(self.greatest().next(), self.machine.datacenter);
        Proposal { request: request(self.requests), stamp, operation }
    }

    pub(crate) fn propose(&mut self, operation: Operation) -> Outcome {
        let proposal = self.proposal(operation);
        self.submit(proposal)
    }

    pub(crate) fn head_of(&self, origin: DatacenterId) -> LogHead {
        if origin == self.machine.datacenter {
            return queries::log_head(&self.kv, origin).unwrap();
        }
        let cursor = queries::cursor(&self.kv, origin).unwrap();
        LogHead { position: cursor.position, closed: cursor.applied_through }
    }

    pub(crate) fn cursor(&self, origin: u8) -> Cursor {
        queries::cursor(&self.kv, dc(origin)).unwrap()
    }

    /// Up to `entries_max` entries of `origin`'s log behind `cursor`, as this group serves them.
    pub(crate) fn batch(&self, cursor: &Cursor, entries_max: usize) -> Batch {
        let after = cursor.position;
        let from = after.sequence.next();
        let entries =
            queries::log_entries(&self.kv, after.origin, after.incarnation, from, entries_max, usize::MAX).unwrap();
        Batch::new(self.machine.datacenter, after, entries, &self.head_of(after.origin)).unwrap()
    }

    pub(crate) fn deliver(&mut self, batch: Batch) -> RemoteOutcome {
        match self.apply(&Command::Remote(batch)) {
            Response::Remote(outcome) => outcome,
            other => panic!("{other:?} to a batch"),
        }
    }

    /// Pulls the whole own log of `source`.
    pub(crate) fn pull(&mut self, source: &Group) {
        let cursor = self.cursor(source.machine.datacenter.get());
        let outcome = self.deliver(source.batch(&cursor, usize::MAX));
        assert!(matches!(outcome, RemoteOutcome::Applied(_)), "{outcome:?}");
    }

    pub(crate) fn object(&self, key_text: &str) -> Option<ObjectVersion> {
        queries::object(&self.kv, BUCKET, &key(key_text)).unwrap()
    }

    pub(crate) fn row(&self, key_text: &str) -> Option<ObjectVersion> {
        queries::object_row(&self.kv, BUCKET, &key(key_text)).unwrap()
    }

    /// The rows whose keys start with a letter.
    pub(crate) fn rows_of(&self, letter: u8) -> Vec<(&Vec<u8>, &[u8])> {
        let rows = self.kv.rows().iter();
        rows.filter(|(key, _)| key[0] == letter).map(|(key, value)| (key, value.as_ref())).collect()
    }
}
