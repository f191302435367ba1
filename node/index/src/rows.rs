//! What a partition's rows hold: object versions, parts and uploads, recorded losers, superseded rows, fences, and
//! the state of the partition itself. The catalog's rows stand in `catalog_rows`, the keys in `keys`.
//!
//! These are plain values with their durable form; who wins is decided in `merge`, what changes in `apply`.
//! The layouts are drawn in docs/formats/object-rows.md.
//!
//! Invariants: each row is one record of `meridian_types::encode_record` with a version of its own; a chunk stands in
//! exactly one row (rule 14); a one-chunk object without headers takes at most 150 bytes beside its key.

use std::fmt;
use std::str::FromStr;

use meridian_replicator::{CursorVector, OriginCursor, StableTimes};
use meridian_types::{
    BucketId, BucketName, DatacenterId, EntryHash, Fid, Incarnation, ObjectKey, RecordError, RecordKind, RequestId,
    Sequence, Stamp, Timestamp, UploadId, decode_record, encode_record,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attributes::{Annotations, Attributes};
use crate::catalog_rows::{BucketRow, SettingName};

/// A piece of an object: one needle, and where it ends in its volume (so that a mirror can tell whether it has it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    pub fid: Fid,
    /// Bytes of data, without the needle's header.
    pub length: u32,
    /// The byte after the needle in its volume file.
    pub end_offset: u64,
    /// What the volume's primary stamped the needle with (rule 13).
    pub stamp: Timestamp,
}

/// A part of a completed multipart object, so that `partNumber` reads find their range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSize {
    pub number: u16,
    pub size: u64,
    /// The part's own checksum, of the algorithm of the object's; raw.
    pub checksum: Option<Vec<u8>>,
}

/// Which checksum a client asked to be kept. Discriminants are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// A checksum kept beside the ETag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    pub algorithm: ChecksumAlgorithm,
    /// The raw value, big-endian, as the algorithm gives it.
    pub value: Vec<u8>,
    /// A checksum of the parts' checksums rather than of the whole object.
    pub composite: bool,
}

/// An object's bytes and what is told about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectBody {
    /// Bytes; the sum of the chunks' lengths.
    pub size: u64,
    /// Hex MD5, or `md5-n` of a multipart object; no quotes.
    #[serde(with = "crate::etag")]
    pub etag: String,
    pub attributes: Attributes,
    pub chunks: Vec<ChunkRef>,
    /// Empty unless the object came from a multipart upload.
    pub parts: Vec<PartSize>,
    pub checksums: Vec<Checksum>,
    /// What was changed since the write.
    pub annotations: Option<Box<Annotations>>,
}

impl ObjectBody {
    /// The attributes that hold now: those of the write, and what was changed since.
    pub fn attributes_now(&self) -> Attributes {
        self.attributes.clone().annotated(self.annotations.as_deref())
    }
}

/// A part of an upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Bytes.
    pub size: u64,
    /// Hex MD5 of the part; no quotes.
    #[serde(with = "crate::etag")]
    pub etag: String,
    pub chunks: Vec<ChunkRef>,
    /// When it was stored: its `LastModified`.
    pub stored: Timestamp,
    pub checksums: Vec<Checksum>,
}

/// Whether a mutation replaces the null version or adds a version of its own. Entries carry it, so that `apply` never
/// asks the catalog (rule 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionMode {
    Null,
    Versioned,
    /// Like `Null`, but a delete leaves a marker in the null version's place (a bucket whose versioning is suspended).
    Suspended,
}

impl VersionMode {
    /// The id that a version stamped `stamp` has in this mode.
    pub fn version_id(self, stamp: Stamp) -> VersionId {
        match self {
            VersionMode::Null | VersionMode::Suspended => VersionId::Null,
            VersionMode::Versioned => VersionId::Stamp(stamp),
        }
    }
}

/// A version's id; a versioned one derives from its stamp, so that concurrent writes both stay and have one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VersionId {
    Null,
    Stamp(Stamp),
}

impl VersionId {
    /// Of the null version: none that does not change.
    pub fn stamp(self) -> Option<Stamp> {
        match self {
            VersionId::Null => None,
            VersionId::Stamp(stamp) => Some(stamp),
        }
    }
}

/// A version id that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no version id")]
pub struct VersionIdError;

/// `null`, or 18 hex digits that clients take for opaque.
impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionId::Null => f.write_str("null"),
            VersionId::Stamp(stamp) => f.write_str(&hex::encode(stamp.to_bytes())),
        }
    }
}

impl FromStr for VersionId {
    type Err = VersionIdError;

    fn from_str(text: &str) -> Result<Self, VersionIdError> {
        if text == "null" {
            return Ok(VersionId::Null);
        }
        let mut bytes = [0; Stamp::LENGTH];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| VersionIdError)?;
        let version = VersionId::Stamp(Stamp::from_bytes(bytes).map_err(|_| VersionIdError)?);
        if version.to_string() == text { Ok(version) } else { Err(VersionIdError) }
    }
}

/// What a version is.
#[expect(
    clippy::large_enum_variant,
    reason = "most versions are objects, and a box would cost each read an allocation"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionKind {
    Object(ObjectBody),
    /// A delete in a versioned bucket: a version of its own.
    DeleteMarker,
    /// A delete of the null version, or the removal of a version for good; it lives until stable time has passed it.
    Tombstone,
}

impl VersionKind {
    /// Whether a client sees an object.
    pub fn is_visible(&self) -> bool {
        matches!(self, VersionKind::Object(_))
    }

    pub fn body(&self) -> Option<&ObjectBody> {
        match self {
            VersionKind::Object(body) => Some(body),
            VersionKind::DeleteMarker | VersionKind::Tombstone => None,
        }
    }
}

/// One version of one key: a row of the object index. `stamp` is that of the write or of the removal; `version` names the
/// row's place, which a removal keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectVersion {
    pub stamp: Stamp,
    pub version: VersionId,
    pub kind: VersionKind,
    /// Where its entry stands in the log of `stamp.datacenter`.
    pub origin: OriginCursor,
    /// What its origin's partition had applied from the other datacenters; decides concurrency (rule 16).
    pub cursors: CursorVector,
}

impl ObjectVersion {
    /// The object's body, when this version is one.
    pub fn body(&self) -> Option<&ObjectBody> {
        self.kind.body()
    }

    pub fn encode(&self) -> Vec<u8> {
        self.to_record()
    }

    /// # Errors
    /// `RecordError` when the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_record(bytes)
    }
}

/// A multipart upload under way. It lives in the datacenter that its id names and in no log (rule 22).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    pub key: ObjectKey,
    pub upload: UploadId,
    pub attributes: Attributes,
    pub initiated: Timestamp,
    /// The checksum that the object shall have.
    pub checksum: Option<UploadChecksum>,
}

/// What CreateMultipartUpload said of checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadChecksum {
    pub algorithm: ChecksumAlgorithm,
    /// Of the parts' checksums rather than of the whole object.
    pub composite: bool,
}

/// A row that lost its place, whole, until stable-data has passed the stamp that superseded it (rule 14).
#[expect(clippy::large_enum_variant, reason = "most rows of the queue are versions")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimRow {
    Version(ObjectVersion),
    /// A part that was replaced, left out of the completed object, or aborted.
    Part {
        upload: UploadId,
        number: u16,
        part: Part,
    },
}

/// A concurrent write that lost, so that nobody wonders where it went (rule 16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictRow {
    Object {
        bucket: BucketId,
        key: ObjectKey,
        winner: Stamp,
        loser: Stamp,
        lost: LostWrite,
    },
    /// The owner of a concurrent creation that did not stay (rule 17).
    Bucket {
        name: BucketName,
        winner: Stamp,
        loser: Stamp,
        lost: Box<BucketRow>,
    },
    /// A concurrent change of one setting of a bucket.
    Setting {
        name: BucketName,
        setting: SettingName,
        winner: Stamp,
        loser: Stamp,
    },
}

impl ConflictRow {
    /// The stamp of the write that lost, which orders the records.
    pub fn loser(&self) -> Stamp {
        match self {
            ConflictRow::Object { loser, .. }
            | ConflictRow::Bucket { loser, .. }
            | ConflictRow::Setting { loser, .. } => *loser,
        }
    }
}

/// What a recorded loser was. Its row stays whole in the reclaim queue meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostWrite {
    Object {
        size: u64,
        #[serde(with = "crate::etag")]
        etag: String,
    },
    Delete,
}

/// One try to delete a bucket, by the datacenter that leads it. A later try of the same datacenter takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceAttempt {
    pub datacenter: DatacenterId,
    pub attempt: RequestId,
}

/// A bucket whose deletion is under way or done: `apply` refuses its mutations and uploads while any attempt holds the fence
/// (rule 18). Each datacenter has one attempt at most, and lifts its own only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRow {
    /// By datacenter.
    pub attempts: Vec<FenceAttempt>,
}

/// What every member has, as committed here, and how far the rows of each log are released by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StableRow {
    pub times: StableTimes,
    /// The last entry of each datacenter's log, the own one too, whose row needs no further look.
    pub released: CursorVector,
}

/// A partition's own state: one row, rewritten by each apply that changes anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The greatest applied stamp, own, merged or closed: a local mutation must be above it (rule 9).
    pub greatest: Timestamp,
    /// No later entry of this datacenter will be stamped at or below it.
    pub closed: Timestamp,
    /// The incarnation of this datacenter's log (rule 7).
    pub incarnation: Incarnation,
    /// The sequence that the next own entry gets.
    pub next: Sequence,
    /// The incarnation and hash of the last own entry, whose sequence is the one before `next`.
    pub head_incarnation: Incarnation,
    pub head: EntryHash,
    /// How far the other datacenters' logs are applied here; what a mutation carries (rule 16).
    pub cursors: CursorVector,
    /// Requests remembered so far: the next slot of their ring (rule 11).
    pub requests: u64,
    /// Completed uploads remembered so far: the next slot of their ring (rule 22).
    pub completions: u64,
    /// Conflict rows kept.
    pub conflicts: u64,
    /// Fences raised, so that an apply need not look for one when there is none.
    pub fences: u32,
    /// Buckets that hold versions here, so that an apply need not look for any when there are none.
    pub versioned_buckets: u32,
    /// Tombstones that rows hold.
    pub tombstones: u64,
}

impl Default for PartitionState {
    /// Of a partition that has applied nothing.
    fn default() -> Self {
        Self {
            greatest: Timestamp::ZERO,
            closed: Timestamp::ZERO,
            incarnation: Incarnation(0),
            next: Sequence(1),
            head_incarnation: Incarnation(0),
            head: EntryHash::START,
            cursors: CursorVector::default(),
            requests: 0,
            completions: 0,
            conflicts: 0,
            fences: 0,
            versioned_buckets: 0,
            tombstones: 0,
        }
    }
}

/// A value with a record kind and a version of its own.
pub(crate) trait Row: Serialize + DeserializeOwned {
    const KIND: RecordKind;
    const VERSION: u8;

    fn to_record(&self) -> Vec<u8> {
        encode_record(Self::KIND, Self::VERSION, self)
    }

    fn from_record(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(Self::KIND, Self::VERSION, bytes)
    }
}

macro_rules! row {
    ($type:ty, $kind:ident, $version:literal) => {
        impl crate::rows::Row for $type {
            const KIND: meridian_types::RecordKind = meridian_types::RecordKind::$kind;
            const VERSION: u8 = $version;
        }
    };
}
pub(crate) use row;

row!(ObjectVersion, ObjectRow, 1);
row!(UploadRow, UploadRow, 1);
row!(Part, PartRow, 1);
row!(ReclaimRow, ReclaimRow, 1);
row!(ConflictRow, ConflictRow, 1);
row!(FenceRow, FenceRow, 1);
row!(StableRow, StableRow, 1);
row!(PartitionState, PartitionState, 1);

#[cfg(test)]
mod tests;
