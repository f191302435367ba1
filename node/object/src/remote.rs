//! What object operations ask of other datacenters. Implemented by the replication shell; a datacenter alone uses
//! `Unreachable` answers.
//!
//! Invariants: a fetch is never proxied again by the one who answers it; bytes arrive verified.

use std::collections::BTreeSet;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use meridian_index::FenceAttempt;
use meridian_types::{BucketId, DatacenterId, Fid, Incarnation, PartitionId, Seen, Sequence, Timestamp};

/// Reads bytes of needles from a datacenter that has them.
#[async_trait]
pub trait RemoteBytes: Send + Sync {
    /// `range` counts within the needle's data; the answer has exactly its length.
    ///
    /// # Errors
    /// `RemoteError`: no holder can be reached, or none has the needle.
    async fn fetch(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, RemoteError>;

    /// The first bytes of a needle's data, at most `size_max`, and the size of all of it.
    ///
    /// # Errors
    /// As `fetch`; `NotFound` only when everybody who may have it was asked.
    async fn fetch_prefix(&self, fid: Fid, size_max: u32) -> Result<(Bytes, u32), RemoteError> {
        Err(RemoteError::NotFound { reason: format!("{size_max} bytes of {fid:?} are asked of nobody") })
    }

    /// Deletes a needle on every replica in the datacenter that owns its volume, another one than this; durable on return.
    ///
    /// # Errors
    /// `NotFound`: the owner has no such needle. `Unreachable`: not all of its nodes could be asked.
    async fn delete_at_owner(&self, fid: Fid) -> Result<(), RemoteError> {
        Err(RemoteError::NotFound { reason: format!("nobody owns {fid:?}") })
    }

    /// Deletes a needle in every mirror of its volume, those on nodes of this datacenter included, and adds the datacenters
    /// that had it to `told`. Whether no mirror is left that was not reached, or that had nothing to delete yet.
    async fn delete_at_mirrors(&self, _fid: Fid, _told: &mut BTreeSet<DatacenterId>) -> bool {
        true
    }

    /// Waits, within a bound, before a chunk is appended, while another datacenter that can be reached does not keep up
    /// (`replication_backpressure`).
    async fn before_append(&self) {}

    /// Waits, within a bound, until this datacenter shows all of other datacenters that was seen elsewhere (rule 21).
    ///
    /// # Errors
    /// `RemoteError`: one of the datacenters is no member (`NotFound`), or its writes are not here in time.
    async fn await_seen(&self, _wanted: &Seen) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Waits, within a bound, until every datacenter of `holders`, and at least `needed` others in all, have everything of
    /// this one up to `through`: entries and, where they keep them, bytes (rule 25).
    ///
    /// # Errors
    /// `Unreachable` with the names of those that have it not, and why.
    async fn await_copies(
        &self,
        _through: Timestamp,
        _holders: &BTreeSet<DatacenterId>,
        _needed: usize,
    ) -> Result<(), RemoteError> {
        Ok(())
    }
}

/// Raises or lifts one attempt's fence of a bucket in every other member datacenter (rule 18).
#[async_trait]
pub trait RemoteBuckets: Send + Sync {
    /// One report for each other member, none left out.
    ///
    /// # Errors
    /// `RemoteError::Unreachable` naming the first member that can't be asked; others may have been fenced.
    async fn fence(
        &self,
        bucket: BucketId,
        attempt: FenceAttempt,
        raised: bool,
    ) -> Result<Vec<FenceReport>, RemoteError>;
}

/// What one datacenter says after it committed a fence in all its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceReport {
    pub datacenter: DatacenterId,
    /// No object of the bucket is visible there.
    pub empty: bool,
    /// Where its own log of each partition stood once the fence was committed.
    pub positions: Vec<FencePosition>,
}

/// The last entry of one partition's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FencePosition {
    pub partition: PartitionId,
    pub incarnation: Incarnation,
    pub sequence: Sequence,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// `datacenter` is the name of the one that does not answer (or all that were tried).
    #[error("datacenter {datacenter} can't be asked: {reason}")]
    Unreachable { datacenter: String, reason: String },
    /// Every holder was asked, none has it (yet).
    #[error("no datacenter has it: {reason}")]
    NotFound { reason: String },
}
