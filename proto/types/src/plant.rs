//! Switches for mistakes in the shipped pure code, so that the checkers of the simulation are themselves checked
//! (docs/adr/0015). Where a rule is enforced, the very line asks its [`Plant`] whether to make the mistake instead.
//!
//! The shipped answer is [`Sound`], a type without content that always says no: the compiler drops the other branch. The
//! one other implementation lives in `chaos`, which no binary depends on; a tidy test holds both.
//!
//! Invariants: a plant is chosen by its type when a value is made, and never from configuration, the environment or a
//! build flag; code outside of the pure crates and `chaos` names no mistake.

/// One mistake, at one line of the shipped code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// Of two writes the one of the later wall-clock millisecond wins, and on a tie the one that is there.
    WallClockWins,
    /// The clock guard gives the wall clock's reading, without bound and without belief (rule 10).
    WallClockStamped,
    /// Stamps of other datacenters are compared, but neither the clock nor the partition keeps them (rule 9).
    RemoteStampNotMerged,
    /// A local mutation is applied whatever has been applied before it (rule 9).
    StampOrderNotChecked,
    /// Tombstones are dropped as soon as this datacenter's own log is closed past them (rule 14).
    TombstoneDroppedEarly,
    /// A cursor moves over a batch whose last row is still to come.
    CursorBeforeRows,
    /// A LIST that goes on behind a key skips all that starts with that key.
    ListLosesRange,
    /// A pull's cursor is compared by number alone (rule 7).
    CursorNotCompared,
    /// A volume that was not known before its first report is left out of the minimum (rule 13).
    UnknownVolumeIgnored,
    /// Superseded bytes are released when all see the newer version, not when all have its bytes (rule 14).
    ReclaimedAtStableMeta,
    /// A member that has not reported yet is left out of the minimum instead of counted as zero (rule 15).
    SilentMemberIgnored,
    /// A replica without its file counts as one of length zero when a volume is sealed (rule 1).
    WipedReplicaBelieved,
    /// A replica that has recorded a seal's epoch goes on taking appends of the one before (rule 1).
    FencedReplicaAppends,
    /// A secondary answers for a batch before it is synced.
    AcknowledgedBeforeSync,
    /// What a request's token names is left out of its answer's, where the answer shows nothing of that datacenter (rule 21).
    SessionForgetsOrigin,
    /// A bucket whose deletion was agreed on takes mutations while its fence stands (rule 18).
    FenceIgnored,
}

impl Planted {
    pub const ALL: [Planted; 16] = [
        Planted::WallClockWins,
        Planted::WallClockStamped,
        Planted::RemoteStampNotMerged,
        Planted::StampOrderNotChecked,
        Planted::TombstoneDroppedEarly,
        Planted::CursorBeforeRows,
        Planted::ListLosesRange,
        Planted::CursorNotCompared,
        Planted::UnknownVolumeIgnored,
        Planted::ReclaimedAtStableMeta,
        Planted::SilentMemberIgnored,
        Planted::WipedReplicaBelieved,
        Planted::FencedReplicaAppends,
        Planted::AcknowledgedBeforeSync,
        Planted::SessionForgetsOrigin,
        Planted::FenceIgnored,
    ];
}

/// Says which mistakes to make.
pub trait Plant: Copy + std::fmt::Debug + Send + Sync + 'static {
    fn has(self, planted: Planted) -> bool;
}

/// No mistake: what every binary runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sound;

impl Plant for Sound {
    #[inline(always)]
    fn has(self, _: Planted) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_code_makes_no_mistake_and_carries_nothing() {
        assert!(Planted::ALL.into_iter().all(|planted| !Sound.has(planted)));
        assert_eq!(std::mem::size_of::<Sound>(), 0);
    }
}
