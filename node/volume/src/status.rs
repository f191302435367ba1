//! What the interface of this crate speaks of: headers, statuses, acknowledgements.

use meridian_types::limits::VOLUME_SIZE_MAX;
use meridian_types::{Epoch, FileGeneration, NeedleKey, ReplicaCode, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

/// What a volume is. Only its epoch changes in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeHeader {
    pub volume: VolumeId,
    pub generation: FileGeneration,
    pub epoch: Epoch,
    pub code: ReplicaCode,
}

/// What a file is to its volume. The numbers are those of the state file: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaRole {
    /// The only replica of its datacenter: what is durable here is committed.
    Sole,
    /// The copy of another datacenter's volume.
    Mirror,
    /// Orders the appends, and commits what all replicas of the datacenter have.
    Primary,
    /// Appends what the primary sends.
    Secondary,
}

impl ReplicaRole {
    /// Whether other replicas in this datacenter have a say in what is committed.
    pub fn is_replicated(self) -> bool {
        matches!(self, Self::Primary | Self::Secondary)
    }
}

/// What a fenced replica says of itself (rule 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceReport {
    pub epoch: Epoch,
    /// Bytes that are durable here, acknowledged or not.
    pub length: u64,
    /// The greatest length that this replica knows to have been committed.
    pub committed: u64,
}

/// An acknowledged append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where the needle ends in the volume file, in bytes: whoever holds so much of it holds the needle.
    pub end_offset: u64,
    /// Greater than that of every needle before it in the volume.
    pub stamp: Timestamp,
}

/// Bytes of a volume file that fail their checksum. They stay where they are until they are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedRange {
    pub offset: u64,
    pub length: u64,
    /// The needle it is, when that much is certain.
    pub key: Option<NeedleKey>,
}

/// A volume as it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    pub header: VolumeHeader,
    /// Bytes of the file, its header included, that are durable and acknowledged: readers and mirrors see so far (rule 2).
    pub committed: u64,
    /// Everything stamped up to this is before `committed` (rule 13). Of a mirror: the stamp of its last needle.
    pub closed: Timestamp,
    /// Ends at `committed` for ever.
    pub sealed: bool,
    /// Takes nothing more, and is not sealed yet.
    pub fenced: bool,
    pub mirror: bool,
    pub role: ReplicaRole,
    /// Bytes of the file that are durable here: beyond `committed` while other replicas lack them.
    pub durable: u64,
    /// A copy of a sealed volume in the making: incomplete, and no evidence of anything's absence.
    pub filling: bool,
    /// Live needles.
    pub needles: u64,
    /// Bytes of data in live needles.
    pub bytes: u64,
    /// Found at the start, by a scan or by a read.
    pub damaged: Vec<DamagedRange>,
    /// Damaged entries of the delete journal: needles that may have come back; their rows know better.
    pub deletes_damaged: u64,
    /// Why the volume only reads, if it failed.
    pub failed: Option<String>,
}

/// Settings of a set of volumes.
#[derive(Debug, Clone, Copy)]
pub struct VolumeOptions {
    /// A volume takes no append that would make its file longer than this, in bytes; at most `VOLUME_SIZE_MAX`.
    pub size_max: u64,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self { size_max: VOLUME_SIZE_MAX }
    }
}
