//! DELETE of one object, and of many.
//!
//! Invariants: each key is a mutation by itself, with a request id of its own; a delete leaves a tombstone also where
//! nothing is (another datacenter's write may be under way).

use futures::{StreamExt, stream};
use meridian_index::{BucketRow, Condition, Operation, Outcome, VersionId};
use meridian_types::{BucketName, ObjectKey, Stamp, Timestamp};

use crate::objects::Inner;
use crate::propose::{refusal, unexpected};
use crate::version::shown_version;
use crate::{ObjectError, Objects};

/// Most keys of one DeleteObjects (S3).
pub const DELETES_IN_REQUEST_MAX: usize = 1000;
/// Deletes of one request that wait for their partitions at a time: they share raft entries.
const DELETES_IN_FLIGHT_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOutcome {
    pub stamp: Stamp,
    /// Something visible was there before; deleting nothing is a success too.
    pub existed: bool,
    /// The delete marker that was left, or the version that was removed; none in a bucket without versions.
    pub version: Option<VersionId>,
    /// `version` is a delete marker.
    pub marker: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteItem {
    pub key: ObjectKey,
    /// Removes this version for good. `None` deletes the current object, and leaves a marker in a bucket with versions.
    pub version: Option<VersionId>,
    pub condition: Condition,
    /// May remove what is retained under GOVERNANCE.
    pub bypass_governance: bool,
}

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `BucketBeingDeleted`, `PreconditionFailed`, `Locked`, `Busy`, `Unavailable`.
    pub async fn delete(&self, bucket: &BucketName, item: DeleteItem) -> Result<DeleteOutcome, ObjectError> {
        let row = self.inner.bucket_row(bucket).await?;
        self.inner.delete_object(&row, item).await
    }

    /// Deletes up to `DELETES_IN_REQUEST_MAX` keys, each by itself: one answer per item, in order.
    ///
    /// # Errors
    /// `NoSuchBucket`, or `InvalidArgument` for too many; failures of one key stand in its answer.
    pub async fn delete_many(
        &self,
        bucket: &BucketName,
        items: Vec<DeleteItem>,
    ) -> Result<Vec<Result<DeleteOutcome, ObjectError>>, ObjectError> {
        if items.len() > DELETES_IN_REQUEST_MAX {
            let reason = format!("{} keys are more than {DELETES_IN_REQUEST_MAX}", items.len());
            return Err(ObjectError::InvalidArgument { argument: "Delete", reason });
        }
        let row = self.inner.bucket_row(bucket).await?;
        let row = &row;
        let deletes = items.into_iter().map(|item| self.inner.delete_object(row, item));
        Ok(stream::iter(deletes).buffered(DELETES_IN_FLIGHT_MAX).collect().await)
    }
}

impl Inner {
    async fn delete_object(&self, bucket: &BucketRow, item: DeleteItem) -> Result<DeleteOutcome, ObjectError> {
        let DeleteItem { key, version, condition, bypass_governance } = item;
        let partition = self.partition(bucket.id, &key);
        let operation = match version {
            None => Operation::Delete { bucket: bucket.id, key, mode: bucket.settings.version_mode(), condition },
            Some(version) => Operation::DeleteVersion { bucket: bucket.id, key, version, condition, bypass_governance },
        };
        match self.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Deleted { stamp, existed, version, marker } => {
                let version = version.and_then(|version| shown_version(bucket, version));
                Ok(DeleteOutcome { stamp, existed, version, marker })
            }
            outcome => Err(refusal(&outcome, &bucket.name).unwrap_or_else(|| unexpected("a delete", &outcome))),
        }
    }
}
