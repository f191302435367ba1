//! Mistakes that the simulation's own shells can be told to make, so that the checkers are themselves checked.
//! Invariant: each is a plausible shortcut of a shell and touches nothing of the shipped crates.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A mutation is acknowledged when it is proposed.
    AcknowledgeBeforeSync,
    /// The cursor of a batch is durable before its rows are.
    CursorBeforeApply,
    /// Mutations are stamped with the wall clock, past the guard.
    WallClockStamp,
    /// Tombstones are dropped after a fixed time, not after stable time.
    TombstoneDroppedEarly,
    /// LIST goes on behind the greatest item that any partition returned.
    ListLosesRange,
    /// A remote batch is proposed without its stamps being observed (rules 9, 10).
    RemoteStampNotObserved,
    /// A mutation is stamped without its chunks' stamps being observed (rule 13).
    ChunkStampNotObserved,
    /// Volumes not known yet are left out of the watermark (rule 13).
    UnknownVolumeIgnored,
    /// A closed timestamp is told to peers without being committed (rule 9).
    UncommittedClosedTold,
    /// A proposal of unknown outcome is retried under a new request id (rule 11).
    FreshRequestOnRetry,
    /// A datacenter on restored disks goes on in its old incarnation and compares no cursor (rule 7).
    RestoredDiskUnnoticed,
    /// Mirrors report what they have written and not yet synced.
    MirrorCountsUnsynced,
}

impl PlantedBug {
    pub const ALL: [PlantedBug; 12] = [
        PlantedBug::AcknowledgeBeforeSync,
        PlantedBug::CursorBeforeApply,
        PlantedBug::WallClockStamp,
        PlantedBug::TombstoneDroppedEarly,
        PlantedBug::ListLosesRange,
        PlantedBug::RemoteStampNotObserved,
        PlantedBug::ChunkStampNotObserved,
        PlantedBug::UnknownVolumeIgnored,
        PlantedBug::UncommittedClosedTold,
        PlantedBug::FreshRequestOnRetry,
        PlantedBug::RestoredDiskUnnoticed,
        PlantedBug::MirrorCountsUnsynced,
    ];
}
