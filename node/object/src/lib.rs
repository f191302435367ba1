//! Object operations: what the gateways see of the store, one file per operation. Streaming both ways: bytes are cut
//! into chunks, each chunk is durable in a volume before its reference is proposed to the key's partition.
//!
//! This crate parses no protocol, authenticates nobody and owns no durable format: bytes belong to `meridian-volume`,
//! rows to `meridian-index`, raft to `meridian-meta`. It asks other datacenters only through `RemoteBytes` and
//! `RemoteBuckets`.
//!
//! Invariants: an operation that answers `Ok` is durable; one that answers an error other than `Unavailable` has
//! changed nothing visible. A body that fails in any way commits nothing. Bytes are verified before they leave.

mod ack;
mod blob;
mod body;
mod bucket;
mod bucket_delete;
mod bytes_in;
mod bytes_out;
mod change;
mod checksum;
mod copy;
mod default_encryption;
mod delete;
mod encryption;
mod error;
mod get;
mod head;
mod identity;
mod kms;
mod known_buckets;
mod lifecycle;
mod list;
mod managed_policies;
mod member;
mod merge;
mod objects;
mod precondition;
mod propose;
mod put;
mod read_row;
mod remote;
mod seen;
mod session;
mod upload;
mod upload_list;
mod user;
mod version;

pub use ack::{ACK_HEADER, Ack};
pub use blob::{
    BLOB_SIZE_MAX, BLOB_WORD_LENGTH_MAX, BlobAddress, BlobBody, BlobError, BlobGrant, BlobInfo, BlobNode, BlobOutcome,
    COUNT_MAX, OpenBlob, PutBlob, TOKEN_LIFETIME_MS, VolumePlaces,
};
pub use body::{BodyFinish, ByteStream, StreamError};
pub use bucket::CreateBucketOutcome;
pub use bucket_delete::fence_bucket;
pub use change::ChangeRequest;
pub use checksum::{Hasher, computed_checksum};
pub use copy::{CopyDigest, CopyRequest, CopySource, Directive};
pub use default_encryption::{DefaultEncryption, DefaultMethod};
pub use delete::{DELETES_IN_REQUEST_MAX, DeleteItem, DeleteOutcome};
pub use encryption::{CustomerKey, EncryptionWish, MANAGED_KEY_ID};
pub use error::ObjectError;
pub use get::{GetOutcome, GetRequest};
pub use head::{HeadOutcome, ObjectInfo};
pub use identity::{Identity, KeyHolder, policy_arn};
pub use kms::{EveryKey, KmsKeys, KmsRefusal};
pub use lifecycle::{
    DAY_MS, Expiry, LifecycleConfig, LifecycleCounts, LifecycleFilter, LifecycleRule, NoncurrentExpiry, expiry_of,
};
pub use list::{ListPage, ListRequest};
pub use managed_policies::{MANAGED_ARN, MANAGED_POLICIES, ManagedPolicy, managed_policy};
pub use member::NewMember;
pub use objects::{Objects, ObjectsConfig};
pub use precondition::{EtagMatch, Preconditions, RangeSpec};
pub use put::{PutOutcome, PutRequest};
pub use remote::{FencePosition, FenceReport, RemoteBuckets, RemoteBytes, RemoteError};
pub use seen::{AFTER_HEADER, Shown, recording};
pub use session::{Session, SessionClaims, SessionError, SessionHolder, SessionOf, is_session_key};
pub use upload::{
    ChosenPart, CompleteOutcome, CompleteRequest, CopyPartRequest, CreateUploadOutcome, CreateUploadRequest,
    PartOutcome, PutPartRequest,
};
pub use upload_list::{ListPartsRequest, ListUploadsRequest, PartInfo, PartsPage, UploadInfo, UploadsPage};
pub use user::{ADMINISTRATOR, NewKey, NewUser, PlainKey};
pub use version::{ListVersionsRequest, VersionInfo, VersionsPage};

// The words of rows that requests and answers carry: gateways see this crate and nothing below it.
pub use meridian_index::{
    AccessKey, Attributes, BucketRow, BucketSettings, BucketState, Change, Checksum, ChecksumAlgorithm, Condition,
    DefaultRetention, DocumentKind, Encryption, EncryptionMethod, GroupChange, GroupRow, ListedChecksum, ListedObject,
    MemberKind, ObjectLock, PartSize, Profile, Retention, RetentionMode, SettingChange, SettingName, UploadChecksum,
    UserChange, UserRefusal, UserRow, VersionId, VersionIdError, Versioning, Wanted, present,
};
