//! The object index of a partition and the catalog as state machines over a small ordered key-value trait.
//!
//! A raft group hands each committed command to [`IndexMachine`], which answers and writes through an overlay that
//! the shell commits as one atomic batch. Gateways and the replication driver read through the functions of
//! [`queries`]. Pure: no I/O, no clock, no randomness; the same code runs in a node and in simulation.
//!
//! Invariants: `apply` depends on nothing but the view and the command; the replication-log entry, the superseded row
//! and the cursor stand in the same write set as the change they belong to; every datacenter that applied the same
//! entries, in whatever interleaving of origins, shows the same objects.

mod apply;
mod attributes;
mod catalog_rows;
mod command;
#[cfg(test)]
mod convergence_tests;
mod encryption;
mod error;
mod etag;
mod keys;
pub mod kv;
mod list;
mod listed;
mod machine;
mod merge;
pub mod queries;
mod rows;
#[cfg(test)]
mod testing;
mod user_rows;
#[cfg(test)]
mod version_convergence_tests;
mod version_list;

pub use apply::RELEASES_IN_COMMAND_MAX;
pub use attributes::{Annotations, Attributes, Change, Retention, RetentionMode, Stamped};
pub use catalog_rows::{
    BucketRow, BucketSettings, BucketState, DefaultRetention, DocumentKind, ObjectLock, SettingChange, SettingName,
    SettingStamp, StoredBucket, Versioning,
};
pub use command::{
    Command, Condition, Mutation, MutationError, Operation, Outcome, PartChoice, Proposal, RemoteBatch, RemoteOutcome,
    Response, Wanted,
};
pub use encryption::{Encryption, EncryptionMethod};
pub use error::IndexError;
pub use list::{ListPage, ListQuery, list, list_planted};
pub use listed::{ListedChecksum, ListedObject};
pub use machine::{
    CONFLICTS_KEPT_MAX, IndexMachine, Machine, MachineError, PlantedMachine, REQUESTS_REMEMBERED_MAX,
    UPLOADS_REMEMBERED_MAX,
};
pub use merge::{BucketMerge, LostSetting, Merge, merge, merge_bucket, merge_group, merge_user};
pub use rows::{
    Checksum, ChecksumAlgorithm, ChunkRef, ConflictRow, FenceAttempt, FenceRow, LostWrite, ObjectBody, ObjectVersion,
    Part, PartSize, PartitionState, ReclaimRow, StableRow, UploadChecksum, UploadRow, VersionId, VersionIdError,
    VersionKind, VersionMode,
};
pub use user_rows::{
    AccessKey, GroupChange, GroupRow, MemberKind, Profile, REGISTERS_MAX, Register, Registers, Secret, UserChange,
    UserRefusal, UserRow, UserState, present,
};
pub use version_list::{ListedVersion, VersionListPage, VersionListQuery, list_versions};
