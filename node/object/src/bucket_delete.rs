//! Deletion of a bucket: a two-phase agreement of all members (rule 18).
//!
//! Every datacenter commits a fence in each of its partitions, and says whether the bucket is empty there and where its
//! logs stand. When their logs are applied here, and all are empty (a member that lags behind with deletes that were
//! answered here is asked again), the deletion commits in the catalog; else the fences are lifted. A deletion goes to its end even when the client that asked for it has left.
//!
//! A fence names its attempt, so that of two datacenters that delete one bucket at once none lifts the other's.
//!
//! Invariants: nothing is deleted while one member was not asked; fences are lifted only when the deletion provably
//! was not committed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use meridian_env::entropy;
use meridian_index::{FenceAttempt, Operation, Outcome, queries};
use meridian_meta::Meta;
use meridian_replicator::OriginCursor;
use meridian_types::{BucketId, BucketName, DatacenterId, PartitionId, Timestamp};
use tokio::time::Instant;

use crate::objects::Inner;
use crate::propose::{meta_error, refusal, unexpected};
use crate::read_row::index_error;
use crate::{FencePosition, FenceReport, ObjectError, Objects};

/// How long the other datacenters may take to raise or lift a fence.
const FENCE_WAIT: Duration = Duration::from_secs(15);
/// How long a deletion waits for the logs of the others, up to their fences, to be applied here, and for the deletes
/// that emptied the bucket here to be applied there.
const LOGS_WAIT: Duration = Duration::from_secs(5);
/// Between two questions to members that lag behind.
const LAGGING_RETRY_DELAY: Duration = Duration::from_millis(50);

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`; `BucketBeingDeleted` when a deletion of it is under way;
    /// `Unavailable` naming a datacenter that can't be asked.
    pub async fn delete_bucket(&self, name: &BucketName) -> Result<(), ObjectError> {
        let bucket = self.inner.bucket_row_linearizable(name).await?.id;
        if !is_empty(&self.inner.meta, bucket).await? {
            return Err(ObjectError::BucketNotEmpty(name.clone())); // without a fence: the usual mistake costs nothing
        }
        let Some(deleting) = Deleting::start(&self.inner, bucket) else {
            return Err(ObjectError::BucketBeingDeleted(name.clone()));
        };
        // On a task of its own: a client that hangs up must not leave fences behind.
        let name = name.clone();
        let task = tokio::spawn(async move { deleting.run(&name).await });
        task.await.unwrap_or_else(|error| Err(ObjectError::Storage(format!("a deletion ended early: {error}"))))
    }
}

/// Commits the fence of `bucket` for `attempt` in all local partitions, or lifts that one, and says whether the bucket is empty here.
/// Answers a peer's `FenceBucket` and serves the local half of `delete_bucket` (rule 18).
///
/// # Errors
/// `Busy`, `Unavailable`: partitions fenced before the failure stay fenced until lifted.
pub async fn fence_bucket(
    meta: &Meta,
    datacenter: DatacenterId,
    bucket: BucketId,
    attempt: FenceAttempt,
    raised: bool,
) -> Result<FenceReport, ObjectError> {
    let partitions = || meta.partitions().filter(|partition| !partition.is_catalog());
    let fences = try_join_all(partitions().map(|partition| meta.fence(partition, bucket, attempt, raised)));
    within(FENCE_WAIT, "the partitions here take too long to fence the bucket", fences).await?.map_err(meta_error)?;
    let empty = is_empty(meta, bucket).await?;
    let mut positions = Vec::new();
    for partition in partitions() {
        let view = meta.read(partition).await.map_err(meta_error)?;
        let head = queries::log_head(&view, datacenter).map_err(index_error)?.position;
        positions.push(FencePosition { partition, incarnation: head.incarnation, sequence: head.sequence });
    }
    Ok(FenceReport { datacenter, empty, positions })
}

async fn is_empty(meta: &Meta, bucket: BucketId) -> Result<bool, ObjectError> {
    let partitions = meta.partitions().filter(|partition| !partition.is_catalog());
    for view in try_join_all(partitions.map(|partition| meta.read(partition))).await.map_err(meta_error)? {
        if !queries::bucket_is_empty(&view, bucket).map_err(index_error)? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn within<T>(wait: Duration, slow: &str, work: impl Future<Output = T>) -> Result<T, ObjectError> {
    tokio::time::timeout(wait, work).await.map_err(|_| ObjectError::unavailable(slow))
}

/// A deletion under way on this node; there is one at most for a bucket.
struct Deleting {
    inner: Arc<Inner>,
    bucket: BucketId,
    attempt: FenceAttempt,
}

impl Drop for Deleting {
    fn drop(&mut self) {
        self.inner.deleting.lock().remove(&self.bucket);
    }
}

impl Deleting {
    fn start(inner: &Arc<Inner>, bucket: BucketId) -> Option<Self> {
        let attempt = FenceAttempt { datacenter: inner.config.datacenter, attempt: entropy::request_id() };
        inner.deleting.lock().insert(bucket).then(|| Self { inner: Arc::clone(inner), bucket, attempt })
    }

    async fn run(&self, name: &BucketName) -> Result<(), ObjectError> {
        match self.agree(name).await {
            Ok(()) => {}
            Err(error) => {
                self.lift().await;
                return Err(error);
            }
        }
        let operation = Operation::DeleteBucket { name: name.clone(), bucket: self.bucket };
        let proposed = self.inner.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await;
        let error = match proposed.outcome {
            Ok(Outcome::BucketDeleted) => return Ok(()),
            Ok(outcome) => refusal(&outcome, name).unwrap_or_else(|| unexpected("a deletion", &outcome)),
            Err(error) => error,
        };
        // A bucket that is gone keeps its fences: they guard against late mutations under its id.
        if proposed.certain && !matches!(error, ObjectError::NoSuchBucket(_)) {
            self.lift().await;
        }
        Err(error)
    }

    /// The first phase: `Ok` when every member is fenced and empty, and what their logs held is applied here.
    async fn agree(&self, name: &BucketName) -> Result<(), ObjectError> {
        let inner = &self.inner;
        let here = fence_bucket(&inner.meta, inner.config.datacenter, self.bucket, self.attempt, true).await?;
        if !here.empty {
            return Err(ObjectError::BucketNotEmpty(name.clone()));
        }
        let mut others = self.fence_others().await?;
        let deadline = Instant::now() + LOGS_WAIT;
        for report in &others {
            self.await_positions(report, deadline).await?;
        }
        // What arrived meanwhile was written before its origin's fence, and may be here to stay.
        if !is_empty(&inner.meta, self.bucket).await? {
            return Err(ObjectError::BucketNotEmpty(name.clone()));
        }
        // Every mutation before the fences is applied here, and leaves nothing: who still has objects will apply their
        // deletes. A client that empties a bucket and then deletes it must not depend on how fast that is.
        while let Some(lagging) = others.iter().find(|report| !report.empty) {
            if Instant::now() >= deadline {
                let datacenter = lagging.datacenter;
                let reason = format!("datacenter {datacenter} has not applied the deletes of the bucket's objects yet");
                return Err(ObjectError::unavailable(reason));
            }
            tokio::time::sleep(LAGGING_RETRY_DELAY).await;
            others = self.fence_others().await?;
        }
        Ok(())
    }

    async fn fence_others(&self) -> Result<Vec<FenceReport>, ObjectError> {
        let others = self.inner.buckets.fence(self.bucket, self.attempt, true);
        let others = within(FENCE_WAIT, "the other datacenters take too long to fence the bucket", others).await?;
        others.map_err(|error| ObjectError::unavailable(error.to_string()))
    }

    async fn await_positions(&self, report: &FenceReport, deadline: Instant) -> Result<(), ObjectError> {
        let mut advanced = self.inner.meta.advanced();
        for FencePosition { partition, incarnation, sequence } in report.positions.iter().copied() {
            let wanted = OriginCursor { incarnation, sequence };
            loop {
                advanced.mark_unchanged();
                let view = self.inner.read(partition).await?;
                let applied = queries::cursor(&view, report.datacenter).map_err(index_error)?.position;
                if (OriginCursor { incarnation: applied.incarnation, sequence: applied.sequence }) >= wanted {
                    break;
                }
                if !matches!(tokio::time::timeout_at(deadline, advanced.changed()).await, Ok(Ok(()))) {
                    let datacenter = report.datacenter;
                    let reason = format!("the log of datacenter {datacenter} up to its fence has not arrived here yet");
                    return Err(ObjectError::unavailable(reason));
                }
            }
        }
        Ok(())
    }

    /// Lifts the fences everywhere. A member that can't be asked keeps its fence until the deletion is tried again.
    async fn lift(&self) {
        let inner = &self.inner;
        let bucket = self.bucket;
        if let Err(error) = fence_bucket(&inner.meta, inner.config.datacenter, bucket, self.attempt, false).await {
            tracing::warn!(%bucket, %error, "a fence stays raised here");
        }
        let lifted =
            within(FENCE_WAIT, "the others take too long", inner.buckets.fence(bucket, self.attempt, false)).await;
        match lifted {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%bucket, %error, "a fence stays raised in another datacenter"),
            Err(error) => tracing::warn!(%bucket, %error, "a fence may stay raised in another datacenter"),
        }
    }
}
