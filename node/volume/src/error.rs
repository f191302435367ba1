//! What can go wrong with a volume, and what the caller does next.

use meridian_env::{ClockError, DiskError};
use meridian_types::{Epoch, Fid, FileGeneration, NeedleKey, VolumeId};

/// Why an operation on a volume did not happen.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("no volume {0} here")]
    NoSuchVolume(VolumeId),
    #[error("volume {volume} is at generation {current}, not {asked}")]
    WrongGeneration { volume: VolumeId, current: FileGeneration, asked: FileGeneration },
    #[error("volume {0} exists with another header or role")]
    Exists(VolumeId),
    #[error("volume {0} is full")]
    Full(VolumeId),
    /// Sealed, or fenced on the way to it: no append comes after this one either.
    #[error("volume {0} is sealed")]
    Sealed(VolumeId),
    #[error("volume {0} is a mirror: only its source appends to it")]
    IsMirror(VolumeId),
    #[error("volume {0} is not a mirror")]
    NotMirror(VolumeId),
    /// A write or sync failed, or bytes that were acknowledged are gone: the volume only reads.
    #[error("volume {volume} has failed: {reason}")]
    Failed { volume: VolumeId, reason: String },
    /// Nothing was kept of the append; the volume takes others when there is space.
    #[error("volume {0}: its disk is full")]
    DiskFull(VolumeId),
    #[error("needle of {size} bytes is larger than {size_max}")]
    NeedleTooLarge { size: usize, size_max: usize },
    #[error("key {key} is used in volume {volume} already")]
    KeyUsed { volume: VolumeId, key: NeedleKey },
    /// Never written, deleted, or another cookie.
    #[error("no needle {0:?}")]
    NoSuchNeedle(Fid),
    /// Absence is not proven: ask another copy.
    #[error("needle {0:?} is not known, but its volume has damaged ranges that may hold it")]
    MaybeDamaged(Fid),
    #[error("range {start}..{end} is outside of a needle of {size} bytes")]
    RangeOutside { start: u32, end: u32, size: u32 },
    /// In a file: ask another copy. In bytes for a mirror: fetch them again, from another replica if need be.
    #[error("volume {volume}: the needle at offset {offset} fails its checksum")]
    CorruptNeedle { volume: VolumeId, offset: u64 },
    #[error("volume {volume}: offset {offset} is beyond {committed}, the end of what is here")]
    Gap { volume: VolumeId, offset: u64, committed: u64 },
    #[error("volume {volume} is at epoch {current}; {asked} is not above it")]
    StaleEpoch { volume: VolumeId, current: Epoch, asked: Epoch },
    #[error("volume {volume} holds {committed} bytes of the {sealed} that it was sealed at")]
    Incomplete { volume: VolumeId, committed: u64, sealed: u64 },
    /// Rule 1: nothing that was ever committed is cut.
    #[error("volume {volume} has {committed} committed bytes; it is never sealed at {sealed}")]
    BelowCommitted { volume: VolumeId, committed: u64, sealed: u64 },
    /// A copy in the making counts for nothing.
    #[error("volume {0} is being copied to this node")]
    Filling(VolumeId),
    /// Its appends go through its primary, which waits for the others.
    #[error("volume {0} has other replicas: its appends go through them all")]
    Replicated(VolumeId),
    #[error("stamp a needle of volume {volume}: {source}")]
    Clock { volume: VolumeId, source: ClockError },
    #[error("open volume file {file}: {reason}")]
    BadFile { file: String, reason: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the volumes are shutting down")]
    ShuttingDown,
}

impl VolumeError {
    /// Whether the same append may succeed at once in another volume of this node.
    pub fn take_another(&self) -> bool {
        matches!(
            self,
            Self::NoSuchVolume(_) | Self::Full(_) | Self::Sealed(_) | Self::IsMirror(_) | Self::Failed { .. }
        )
    }
}
