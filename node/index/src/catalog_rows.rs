//! What the catalog's rows of buckets hold. The catalog is a partition like any other, with rows of its own; those of
//! users and groups stand in `user_rows`.
//!
//! Invariants: a bucket's id derives from its name and its count of completed deletions (rule 17), and a row that says
//! otherwise is refused; each setting that was ever set carries the stamp and the place of its last change, so that
//! settings of two datacenters merge one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use meridian_replicator::{CursorVector, OriginCursor};
use meridian_types::{BucketId, BucketName, DatacenterName, ReplicaCode, Stamp};
use serde::{Deserialize, Serialize};

use crate::attributes::RetentionMode;
use crate::rows::{VersionMode, row};

/// Whether a bucket keeps versions (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Versioning {
    #[default]
    Off,
    Enabled,
    Suspended,
}

/// A part of a bucket's configuration that is kept as a text of the gateway's. Discriminants are on disk: never reuse
/// one, add new ones at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DocumentKind {
    Policy,
    Acl,
    Cors,
    Tagging,
    Lifecycle,
    Encryption,
    OwnershipControls,
    PublicAccessBlock,
    Notification,
    Logging,
    Website,
    Accelerate,
    RequestPayment,
    Replication,
}

/// Names one setting of a bucket. Discriminants are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SettingName {
    Versioning,
    Code,
    Region,
    Document(DocumentKind),
    ObjectLock,
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SettingName::Versioning => "versioning",
            SettingName::Code => "replication-code",
            SettingName::Region => "region",
            SettingName::ObjectLock => "object-lock",
            SettingName::Document(kind) => match kind {
                DocumentKind::Policy => "policy",
                DocumentKind::Acl => "acl",
                DocumentKind::Cors => "cors",
                DocumentKind::Tagging => "tagging",
                DocumentKind::Lifecycle => "lifecycle",
                DocumentKind::Encryption => "encryption",
                DocumentKind::OwnershipControls => "ownership-controls",
                DocumentKind::PublicAccessBlock => "public-access-block",
                DocumentKind::Notification => "notification",
                DocumentKind::Logging => "logging",
                DocumentKind::Website => "website",
                DocumentKind::Accelerate => "accelerate",
                DocumentKind::RequestPayment => "request-payment",
                DocumentKind::Replication => "replication",
            },
        })
    }
}

/// One setting's new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingChange {
    Versioning(Versioning),
    Code(Option<ReplicaCode>),
    /// `None` removes the document.
    Document(DocumentKind, Option<String>),
}

impl SettingChange {
    pub fn name(&self) -> SettingName {
        match self {
            SettingChange::Versioning(_) => SettingName::Versioning,
            SettingChange::Code(_) => SettingName::Code,
            SettingChange::Document(kind, _) => SettingName::Document(*kind),
        }
    }
}

/// What a bucket's owner may set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSettings {
    pub versioning: Versioning,
    /// The code of volumes for its objects; `None` takes the cluster's default (rule 24).
    pub code: Option<ReplicaCode>,
    /// The region that its creation named, if any.
    pub region: Option<DatacenterName>,
    /// Versions may be locked. Once set it stays, and so does versioning (S3).
    pub object_lock: Option<ObjectLock>,
    /// Policy, ACL and the other documents of its configuration, in the gateway's form.
    pub documents: BTreeMap<DocumentKind, String>,
}

/// A bucket's Object Lock configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLock {
    /// What versions get that are written without a retention of their own.
    pub default: Option<DefaultRetention>,
}

/// A retention that counts from the write; exactly one of days and years is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRetention {
    pub mode: RetentionMode,
    pub days: u32,
    pub years: u32,
}

impl BucketSettings {
    /// How a write of this bucket finds its version.
    pub fn version_mode(&self) -> VersionMode {
        match self.versioning {
            Versioning::Off => VersionMode::Null,
            Versioning::Enabled => VersionMode::Versioned,
            Versioning::Suspended => VersionMode::Suspended,
        }
    }

    pub fn document(&self, kind: DocumentKind) -> Option<&str> {
        self.documents.get(&kind).map(String::as_str)
    }

    pub(crate) fn change(&mut self, change: SettingChange) {
        match change {
            SettingChange::Versioning(versioning) => self.versioning = versioning,
            SettingChange::Code(code) => self.code = code,
            SettingChange::Document(kind, Some(text)) => {
                self.documents.insert(kind, text);
            }
            SettingChange::Document(kind, None) => {
                self.documents.remove(&kind);
            }
        }
    }

    /// Whether one setting is the same in both.
    pub(crate) fn agrees(&self, other: &Self, name: SettingName) -> bool {
        match name {
            SettingName::Versioning => self.versioning == other.versioning,
            SettingName::Code => self.code == other.code,
            SettingName::Region => self.region == other.region,
            SettingName::ObjectLock => self.object_lock == other.object_lock,
            SettingName::Document(kind) => self.documents.get(&kind) == other.documents.get(&kind),
        }
    }

    /// Takes one setting over from `other`.
    pub(crate) fn take(&mut self, other: &Self, name: SettingName) {
        match name {
            SettingName::Versioning => self.versioning = other.versioning,
            SettingName::Code => self.code = other.code,
            SettingName::Region => self.region.clone_from(&other.region),
            SettingName::ObjectLock => self.object_lock = other.object_lock,
            SettingName::Document(kind) => match other.documents.get(&kind) {
                Some(text) => {
                    self.documents.insert(kind, text.clone());
                }
                None => {
                    self.documents.remove(&kind);
                }
            },
        }
    }

    /// The settings in which two differ.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<SettingName> {
        let documents = self.documents.keys().chain(other.documents.keys()).map(|kind| SettingName::Document(*kind));
        let plain = [SettingName::Versioning, SettingName::Code, SettingName::Region, SettingName::ObjectLock];
        let names = plain.into_iter().chain(documents);
        names.filter(|name| !self.agrees(other, *name)).collect()
    }
}

/// When and where a setting was changed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingStamp {
    pub stamp: Stamp,
    /// The change's place in the log of `stamp.datacenter`.
    pub origin: OriginCursor,
    /// What its origin had applied from the others; decides concurrency (rule 16).
    pub cursors: CursorVector,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BucketState {
    /// Deleted `deletions` times, and not created since. The row stays, so that the next creation gets a new id.
    Deleted,
    Active,
}

/// A bucket name's row. It outlives the bucket (rule 17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    pub name: BucketName,
    /// Of the bucket that is, or of the last one that was.
    pub id: BucketId,
    /// Completed deletions of this name.
    pub deletions: u32,
    /// The first creation of this incarnation.
    pub created: Stamp,
    /// The last change of the row.
    pub updated: Stamp,
    /// Who created it first: the canonical id of a user.
    pub owner: String,
    pub state: BucketState,
    pub settings: BucketSettings,
    /// The last change of each setting that was ever set in this incarnation.
    pub changes: BTreeMap<SettingName, SettingStamp>,
}

impl BucketRow {
    /// The id that name, deletions and state demand; `None` for a deleted row that claims no deletion.
    pub fn derived_id(&self) -> Option<BucketId> {
        let incarnation = match self.state {
            BucketState::Active => self.deletions,
            BucketState::Deleted => self.deletions.checked_sub(1)?,
        };
        Some(BucketId::derive(&self.name, incarnation))
    }

    pub fn is_active(&self) -> bool {
        self.state == BucketState::Active
    }
}

/// A bucket row with the log position of its last change, which decides concurrency (rule 16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBucket {
    pub row: BucketRow,
    pub origin: OriginCursor,
    pub cursors: CursorVector,
}

row!(StoredBucket, BucketRow, 1);
