//! Commands and responses: what a raft group's log carries and what `apply` answers.
//!
//! A command's bytes are the raft entry's payload and so are durable; both forms are records with a version. What
//! changes in the object index is a [`Mutation`], which the replication log carries to the other datacenters.
//!
//! Invariants: a proposal says all that `apply` needs (rule 12); equal bytes mean equal effects on equal state.

use bytes::Bytes;
use meridian_replicator::{Batch, Cursor, StableTimes};
use meridian_types::{
    BucketId, BucketName, Incarnation, ObjectKey, RecordError, RequestId, Stamp, Timestamp, UploadId,
};
use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, Change};
use crate::catalog_rows::{BucketRow, BucketSettings, SettingChange};
use crate::rows::{
    Checksum, FenceAttempt, ObjectBody, ObjectVersion, Part, Row, UploadChecksum, VersionId, VersionKind, VersionMode,
    row,
};
use crate::user_rows::{GroupChange, GroupRow, UserChange, UserRefusal, UserRow};

/// What a partition's (or the catalog's) raft group agrees on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Proposals in the order of their stamps. Answered by `Response::Local`, one outcome each.
    Local(Vec<Proposal>),
    /// A batch of another datacenter's log. Answered by `Response::Remote`.
    Remote(RemoteBatch),
    /// No later own entry will be stamped at or below this (rule 9). Answered by `Response::Closed`.
    Close(Timestamp),
    /// Raises or lifts one attempt's fence of a bucket (rule 18). Answered by `Response::Done`.
    Fence { bucket: BucketId, attempt: FenceAttempt, raised: bool },
    /// Starts a new incarnation of this datacenter's log (rule 7); a lower or equal one changes nothing. Answered by
    /// `Response::Done`.
    RaiseIncarnation { to: Incarnation },
    /// Every member has what was stamped at or below these times: releases what they have passed (rules 14, 16). Lower
    /// ones change nothing. Answered by `Response::Stable`.
    Stable(StableTimes),
}

/// A batch of another datacenter's log, as pulled.
pub type RemoteBatch = Batch;

/// One mutation that a leader has stamped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Names the proposal, so that a retry is applied once (rule 11).
    pub request: RequestId,
    pub stamp: Stamp,
    pub operation: Operation,
}

/// What a proposal asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    Put {
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        body: ObjectBody,
        condition: Condition,
    },
    /// Leaves a tombstone (null) or a delete marker (versioned, suspended), also where there is nothing: another
    /// datacenter's write with a lower stamp may be under way. With a condition nothing is done where nothing is.
    Delete {
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        condition: Condition,
    },
    CreateUpload {
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
        attributes: Attributes,
        initiated: Timestamp,
        checksum: Option<UploadChecksum>,
    },
    PutPart {
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
        number: u16,
        part: Part,
    },
    /// Order, ETags and sizes of the parts are checked in `apply`, where they can't change underneath (rule 22).
    CompleteUpload {
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
        parts: Vec<PartChoice>,
        mode: VersionMode,
        condition: Condition,
        /// Of the object that the chosen parts make: who proposes has their checksums, and their ETags fix the parts.
        checksums: Vec<Checksum>,
    },
    AbortUpload {
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
    },
    /// Catalog only (rule 17).
    CreateBucket {
        name: BucketName,
        settings: BucketSettings,
        owner: String,
    },
    /// Catalog only: the last step of a deletion, when every member is fenced and empty (rule 18).
    DeleteBucket {
        name: BucketName,
        bucket: BucketId,
    },
    /// Catalog only: all settings at once; those that differ count as changed.
    UpdateBucket {
        bucket: BucketId,
        settings: BucketSettings,
    },
    /// Catalog only.
    ChangeUser {
        name: String,
        change: UserChange,
    },
    /// Removes one version for good. Its own stamp is the clock that its locks are held against.
    DeleteVersion {
        bucket: BucketId,
        key: ObjectKey,
        version: VersionId,
        condition: Condition,
        bypass_governance: bool,
    },
    /// Changes what is said of a version (of the current one when none is named) and leaves its bytes.
    Annotate {
        bucket: BucketId,
        key: ObjectKey,
        version: Option<VersionId>,
        change: Change,
        bypass_governance: bool,
    },
    /// Catalog only: one setting, whatever the others have become meanwhile.
    ChangeBucket {
        bucket: BucketId,
        change: SettingChange,
    },
    /// Catalog only.
    ChangeGroup {
        name: String,
        change: GroupChange,
    },
}

/// A part that a client names in its Complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartChoice {
    pub number: u16,
    /// Without quotes.
    pub etag: String,
}

/// What must hold of the key's current object for the mutation to happen; checked in `apply`, and so atomic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Condition {
    #[default]
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`; without quotes. `*` is met by any object.
    Etag(String),
    /// A delete that names more than an ETag.
    Matches(Wanted),
}

/// What an object must be for a conditional delete; what is `None` may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Without quotes; `*` is met by any object.
    pub etag: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// To the second.
    pub last_modified_unix_s: Option<u64>,
    /// This very write; in a removal of a version also that of a delete marker.
    pub stamp: Option<Stamp>,
}

impl Wanted {
    /// This very write, and no other.
    pub fn stamped(stamp: Stamp) -> Self {
        Self { stamp: Some(stamp), ..Self::default() }
    }
}

/// What `apply` answers to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// One outcome a proposal, in their order.
    Local(Vec<Outcome>),
    Remote(RemoteOutcome),
    /// The partition's closed timestamp, at or above the one asked for.
    Closed(Timestamp),
    Done,
    /// `more`: further rows are due; send the command again.
    Stable {
        more: bool,
    },
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// `replaced`: an object was visible there before.
    Stored {
        stamp: Stamp,
        version: VersionId,
        replaced: bool,
    },
    /// `existed`: an object was visible there before. `version`: the delete marker that was left, or the version that
    /// was removed. `marker`: that version is a delete marker.
    Deleted {
        stamp: Stamp,
        existed: bool,
        version: Option<VersionId>,
        marker: bool,
    },
    PartStored,
    UploadCreated,
    Aborted,
    Completed {
        stamp: Stamp,
        etag: String,
        size: u64,
        version: VersionId,
        checksums: Vec<Checksum>,
    },
    /// `existed`: the name has an active bucket already, and nothing changed.
    BucketCreated {
        bucket: BucketId,
        existed: bool,
    },
    BucketDeleted,
    BucketUpdated,
    UserStored,
    /// The stamp is not above the greatest applied one: propose again with one above it (rule 9). Not remembered.
    Restamp {
        above: Timestamp,
    },
    PreconditionFailed,
    NoSuchUpload,
    /// No such part, another ETag, or a number outside 1..=10,000; 0 when no part was named.
    InvalidPart(u16),
    InvalidPartOrder,
    PartTooSmall(u16),
    /// The bucket's deletion is under way or done here.
    Fenced,
    /// The bucket has been deleted, or the name holds a later one.
    BucketGone,
    NoSuchBucket,
    /// More chunks or bytes than a row or a log entry takes.
    TooLarge,
    /// The proposal went to the wrong group: a catalog operation to a partition or the reverse, or a stamp or an
    /// upload of another datacenter.
    Misdirected,
    UserRefused(UserRefusal),
    /// The version that was changed.
    Annotated {
        version: VersionId,
    },
    /// No object is there to be changed.
    NoSuchVersion,
    /// A legal hold or a retention forbids it.
    Locked,
}

/// What became of a batch of another datacenter's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RemoteOutcome {
    Applied(Cursor),
    /// It does not follow the cursor: a duplicate or a gap (rule 12).
    Ignored(Cursor),
    /// It can't be applied; nothing of it was. The stream holds and shows the reason (rule 12).
    Rejected {
        cursor: Cursor,
        reason: String,
    },
}

/// What the replication log carries: a change that merges into any state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    Object {
        bucket: BucketId,
        key: ObjectKey,
        mode: VersionMode,
        kind: VersionKind,
    },
    Bucket(BucketRow),
    User(UserRow),
    /// The version with this stamp is gone for good; a removed null version is an `Object` that is a tombstone.
    Removed {
        bucket: BucketId,
        key: ObjectKey,
        version: Stamp,
    },
    /// The whole row of a version whose annotations changed: also where the write itself has not arrived yet, nothing
    /// has to wait for it.
    Annotated {
        bucket: BucketId,
        key: ObjectKey,
        row: Box<ObjectVersion>,
    },
    Group(GroupRow),
}

/// The newest known form of an encoded mutation.
const MUTATION_VERSION: u8 = 1;

/// Why a mutation in a log entry can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MutationError {
    #[error("mutation is empty")]
    Empty,
    #[error("mutation has version {found}, newest known {MUTATION_VERSION}")]
    Version { found: u8 },
    #[error("mutation does not decode: {0}")]
    Body(String),
}

impl Mutation {
    /// Version byte, then postcard. The log entry around it carries the checksum.
    pub fn encode(&self) -> Bytes {
        let bytes = postcard::to_extend(self, vec![MUTATION_VERSION]).expect("our types serialise into memory");
        Bytes::from(bytes)
    }

    /// # Errors
    /// `MutationError` when it is of a newer version or does not decode.
    pub fn decode(bytes: &[u8]) -> Result<Self, MutationError> {
        let (version, body) = bytes.split_first().ok_or(MutationError::Empty)?;
        if *version != MUTATION_VERSION {
            return Err(MutationError::Version { found: *version });
        }
        let (mutation, rest) =
            postcard::take_from_bytes(body).map_err(|error| MutationError::Body(error.to_string()))?;
        if rest.is_empty() { Ok(mutation) } else { Err(MutationError::Body(format!("{} bytes too many", rest.len()))) }
    }
}

row!(Command, Command, 1);
row!(Response, Response, 1);
row!(Outcome, RememberedRequest, 1);

impl Command {
    pub fn encode(&self) -> Bytes {
        self.to_record().into()
    }

    /// # Errors
    /// `RecordError` when the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_record(bytes)
    }
}

impl Response {
    pub fn encode(&self) -> Bytes {
        self.to_record().into()
    }

    /// # Errors
    /// `RecordError` when the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_record(bytes)
    }
}

#[cfg(test)]
mod tests;
