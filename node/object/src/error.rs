//! Everything an object operation can answer besides success, in the words of S3 where S3 has one.
//!
//! Invariants: a variant says what the client can do next; texts hold no cookie, no secret and no path of this node.

use meridian_index::{UserRefusal, VersionId};
use meridian_types::{BucketName, DatacenterId, ObjectKey, UploadId};

use crate::StreamError;

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("there is no bucket {0}")]
    NoSuchBucket(BucketName),
    #[error("bucket {0} is being deleted")]
    BucketBeingDeleted(BucketName),
    /// Someone else's bucket has the name.
    #[error("bucket {0} exists and has another owner")]
    BucketAlreadyExists(BucketName),
    #[error("bucket {0} is yours already")]
    BucketAlreadyOwnedByYou(BucketName),
    #[error("bucket {0} is not empty")]
    BucketNotEmpty(BucketName),
    #[error("there is no object {key} in bucket {bucket}")]
    NoSuchKey { bucket: BucketName, key: ObjectKey },
    #[error("there is no such version of {key}")]
    NoSuchVersion { key: ObjectKey },
    /// A delete marker stands where an object was asked for. `named`: the request named this very version.
    #[error("{version} of {key} is a delete marker")]
    DeleteMarker { key: ObjectKey, version: VersionId, named: bool, last_modified_unix_ms: u64 },
    /// A legal hold or a retention forbids it.
    #[error("the object is locked")]
    Locked,
    #[error("the bucket has no object lock configuration")]
    NoObjectLock,
    #[error("there is no upload {upload} of {key}")]
    NoSuchUpload { key: ObjectKey, upload: UploadId },
    /// The upload lives in another datacenter (rule 22).
    #[error("upload {upload} lives in datacenter {datacenter}")]
    UploadElsewhere { upload: UploadId, datacenter: DatacenterId },
    #[error("part {0} is missing or its ETag differs")]
    InvalidPart(u16),
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {0} is smaller than 5 MiB and not the last")]
    EntityTooSmall(u16),
    #[error("{size} bytes are more than the {size_max} that one request may store")]
    EntityTooLarge { size: u64, size_max: u64 },
    /// The row would be larger than a mutation may be: too many chunks or parts.
    #[error("the object's metadata is too large")]
    MetadataTooLarge,
    /// The argument's name and what is wrong with it.
    #[error("{argument}: {reason}")]
    InvalidArgument { argument: &'static str, reason: String },
    /// More than 5 GiB in one copy.
    #[error("a copy source of {size} bytes is larger than the {size_max} that one copy takes")]
    CopySourceTooLarge { size: u64, size_max: u64 },
    /// A copy of an object onto itself that changes nothing.
    #[error("a copy onto itself must change metadata or tags")]
    CopyOntoItself,
    #[error("Content-MD5 does not match the body")]
    BadDigest,
    /// A checksum that the gateway verified while the body went by; made by a `BodyFinish` hook.
    #[error("the {algorithm} checksum does not match the body")]
    ChecksumMismatch { algorithm: String },
    /// An error of the gateway's own that a `BodyFinish` hook lets through unchanged: (S3 code, message).
    #[error("{code}: {message}")]
    Refused { code: &'static str, message: String },
    #[error("the body has {received} bytes of {expected}")]
    IncompleteBody { expected: u64, received: u64 },
    /// The body had more bytes than announced.
    #[error("the body has more than the announced {expected} bytes")]
    BodyTooLong { expected: u64 },
    #[error("the body broke off")]
    Body(#[source] StreamError),
    #[error("the range lies outside of the object's {size} bytes")]
    InvalidRange { size: u64 },
    #[error("part {number} does not exist; the object has {parts} parts")]
    InvalidPartNumber { number: u16, parts: usize },
    #[error("a precondition failed: {0}")]
    PreconditionFailed(&'static str),
    /// 304: carries what the answer's headers need.
    #[error("not modified")]
    NotModified { etag: String, last_modified_unix_ms: u64 },
    /// A change of a user or group that was not made.
    #[error("user or group {name:?}: {}", refusal_text(*.refusal))]
    UserRefused { name: String, refusal: UserRefusal },
    /// Over a limit of this node: slow down and come again (503).
    #[error("over a limit: {0}")]
    Busy(&'static str),
    /// Can't be answered now (503 with Retry-After); a mutation may have happened or not.
    #[error("unavailable: {reason}")]
    Unavailable { reason: String, retry_after_s: u32 },
    /// Written and durable in `region`, where it stands; `datacenters` did not say in time that they have it (rule 25): 503.
    #[error(
        "the write is durable in {region} and stands, but it is not acknowledged by {datacenters} yet ({reason}): do not take it \
         for undone; wait for the others with `meridian replication wait --until` and this answer's x-meridian-token"
    )]
    NotAcknowledged { region: String, datacenters: String, reason: String },
    /// Damage or a bug: stored bytes or rows that can't be trusted (500).
    #[error("storage: {0}")]
    Storage(String),
}

impl ObjectError {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after_s: RETRY_AFTER_S }
    }
}

fn refusal_text(refusal: UserRefusal) -> &'static str {
    match refusal {
        UserRefusal::Exists => "it exists already; choose another name",
        UserRefusal::NotFound => "there is no such user",
        UserRefusal::AccessKeyTaken => "another user has that access key; choose another",
        UserRefusal::NoSuchAccessKey => "it has no such access key",
        UserRefusal::IdTaken => "another user has that id; choose another",
        UserRefusal::EmailTaken => "another user has that e-mail address; choose another",
        UserRefusal::NoSuchPolicy => "it has no such policy",
        UserRefusal::NoSuchGroup => "there is no such group",
        UserRefusal::TooMany => "it has too many keys, policies or groups, removed ones included; make a new one",
        UserRefusal::Malformed => "a name, id or access key is empty or holds a NUL",
    }
}

/// What `Retry-After` says when nothing better is known: an election or a restart takes about that long.
pub(crate) const RETRY_AFTER_S: u32 = 2;
