//! DELETE of one object, and of many.
//!
//! Invariants: each key is a mutation by itself, with a request id of its own; a delete leaves a tombstone also where
//! nothing is (another datacenter's write may be under way).

use futures::{StreamExt, stream};
use meridian_index::{BucketRow, Condition, Operation, Outcome, VersionMode};
use meridian_types::{BucketName, ObjectKey, Stamp, Timestamp};

use crate::objects::Inner;
use crate::propose::{refusal, unexpected};
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteItem {
    pub key: ObjectKey,
    pub condition: Condition,
}

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `BucketBeingDeleted`, `PreconditionFailed`, `Busy`, `Unavailable`.
    pub async fn delete(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        condition: Condition,
    ) -> Result<DeleteOutcome, ObjectError> {
        let row = self.inner.bucket_row(bucket).await?;
        self.inner.delete_object(&row, key.clone(), condition).await
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
        let deletes = items.into_iter().map(|item| self.inner.delete_object(row, item.key, item.condition));
        Ok(stream::iter(deletes).buffered(DELETES_IN_FLIGHT_MAX).collect().await)
    }
}

impl Inner {
    async fn delete_object(
        &self,
        bucket: &BucketRow,
        key: ObjectKey,
        condition: Condition,
    ) -> Result<DeleteOutcome, ObjectError> {
        let partition = self.partition(bucket.id, &key);
        let operation = Operation::Delete { bucket: bucket.id, key, mode: VersionMode::Null, condition };
        match self.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Deleted { stamp, existed } => Ok(DeleteOutcome { stamp, existed }),
            outcome => Err(refusal(&outcome, &bucket.name).unwrap_or_else(|| unexpected("a delete", &outcome))),
        }
    }
}
