//! What the catalog's rows hold: buckets and users. The catalog is a partition like any other, with rows of its own.
//!
//! Invariants: a bucket's id derives from its name and its count of completed deletions (rule 17), and a row that says
//! otherwise is refused; a secret never appears in a `Debug` output.

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

/// What a bucket's owner may set. One register: the greater stamp's settings stay, the others are recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSettings {
    pub versioning: Versioning,
    /// The code of volumes for its objects; `None` takes the cluster's default (rule 24).
    pub code: Option<ReplicaCode>,
    /// The region that its creation named, if any.
    pub region: Option<DatacenterName>,
    /// Versions may be locked. Once set it stays, and so does versioning (S3).
    pub object_lock: Option<ObjectLock>,
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
    /// Who created it first.
    pub owner: String,
    pub state: BucketState,
    pub settings: BucketSettings,
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

/// Key material. It prints as dots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    pub access_key: String,
    pub secret_key: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserState {
    Active,
    /// The row stays: absence is never read as deletion.
    Deleted,
}

/// A user: an account of its own that may create buckets. The greater `updated` wins, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    pub name: String,
    /// The canonical id that S3 shows as the owner.
    pub id: String,
    pub display_name: String,
    pub email: Option<String>,
    pub tenant: Option<String>,
    /// May use the admin API.
    pub admin: bool,
    pub access_keys: Vec<AccessKey>,
    pub state: UserState,
    /// Set by `apply` to the proposal's stamp.
    pub updated: Stamp,
}

row!(StoredBucket, BucketRow, 1);
row!(UserRow, UserRow, 1);
