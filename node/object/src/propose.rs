//! One mutation through its partition: under one request id, with a bounded number of retries (rule 11).
//!
//! Invariants: a proposal of unknown outcome is retried only under its own request id; `certain` is said only when
//! no attempt can have committed or will yet commit something other than the outcome that is returned.

use std::time::Duration;

use meridian_env::entropy;
use meridian_index::{Operation, Outcome};
use meridian_meta::MetaError;
use meridian_types::{BucketName, PartitionId, Timestamp};
use tokio::time::Instant;

use crate::objects::Inner;
use crate::{ObjectError, seen};

/// How long one mutation is tried, elections included.
const PROPOSE_WAIT: Duration = Duration::from_secs(10);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);

/// What became of a mutation.
pub(crate) struct Proposed {
    pub(crate) outcome: Result<Outcome, ObjectError>,
    /// If `outcome` is not a success, nothing of it was or will be committed: its chunks are orphans (rule 11).
    pub(crate) certain: bool,
}

impl Inner {
    /// Proposes `operation`; `seen` is the greatest stamp among its chunks (rule 13).
    pub(crate) async fn propose(&self, partition: PartitionId, operation: Operation, seen: Timestamp) -> Proposed {
        if let Operation::Put { body, .. } = &operation {
            seen::note_chunks(&body.chunks);
        }
        let request = entropy::request_id();
        let deadline = Instant::now() + PROPOSE_WAIT;
        let mut delay = RETRY_DELAY_MIN;
        let mut certain = true;
        loop {
            let attempt = self.meta.propose(partition, request, operation.clone(), seen);
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(outcome)) => {
                    self.note_outcome(partition, &outcome).await;
                    return Proposed { outcome: Ok(outcome), certain };
                }
                Ok(Err(error)) => error,
                Err(_) => MetaError::Unknown { partition },
            };
            certain &= promises_nothing_happened(&error);
            let again = matches!(
                error,
                MetaError::Unknown { .. } | MetaError::NotLeader { .. } | MetaError::Unavailable { .. }
            );
            if !again || Instant::now() + delay >= deadline {
                // After an unknown attempt even a refusal to queue says nothing about the mutation itself.
                let unknown = MetaError::Unknown { partition };
                let error = if certain { error } else { unknown };
                return Proposed { outcome: Err(meta_error(error)), certain };
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }
}

impl Inner {
    /// Notes what the answer shows: its own stamp, or, where it has none, all that the partition has applied.
    async fn note_outcome(&self, partition: PartitionId, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { stamp, .. } | Outcome::Deleted { stamp, .. } | Outcome::Completed { stamp, .. } => {
                seen::note(*stamp);
            }
            Outcome::PartStored | Outcome::UploadCreated | Outcome::Aborted => {} // of this datacenter alone (rule 22)
            _ => {
                if let Ok(view) = self.read(partition).await {
                    seen::note_view(&view, self.config.datacenter);
                }
            }
        }
    }
}

/// Whether `meta` promises with this error that nothing was or will be committed by the attempt.
fn promises_nothing_happened(error: &MetaError) -> bool {
    match error {
        MetaError::NotLeader { .. }
        | MetaError::Unavailable { .. }
        | MetaError::Busy { .. }
        | MetaError::Skewed { .. }
        | MetaError::Clock { .. }
        | MetaError::TooLarge { .. }
        | MetaError::NotHere { .. }
        | MetaError::DiskFailed { .. }
        | MetaError::NoSuchPartition { .. } => true,
        MetaError::Unknown { .. } | MetaError::Damaged { .. } | MetaError::Stopped => false,
    }
}

/// What a client is told of a partition's failure.
pub(crate) fn meta_error(error: MetaError) -> ObjectError {
    match error {
        MetaError::Busy { .. } => ObjectError::Busy("too many mutations wait for their partition"),
        MetaError::TooLarge { .. } => ObjectError::MetadataTooLarge,
        MetaError::Damaged { .. } | MetaError::NoSuchPartition { .. } => ObjectError::Storage(error.to_string()),
        MetaError::NotLeader { .. }
        | MetaError::Unavailable { .. }
        | MetaError::Unknown { .. }
        | MetaError::Skewed { .. }
        | MetaError::Clock { .. }
        | MetaError::NotHere { .. }
        | MetaError::DiskFailed { .. }
        | MetaError::Stopped => ObjectError::unavailable(error.to_string()),
    }
}

/// What a client is told of an outcome that is a refusal; `None` for one that its caller must know better.
pub(crate) fn refusal(outcome: &Outcome, bucket: &BucketName) -> Option<ObjectError> {
    Some(match outcome {
        Outcome::PreconditionFailed => ObjectError::PreconditionFailed("the object is not in the required state"),
        Outcome::InvalidPart(number) => ObjectError::InvalidPart(*number),
        Outcome::InvalidPartOrder => ObjectError::InvalidPartOrder,
        Outcome::PartTooSmall(number) => ObjectError::EntityTooSmall(*number),
        Outcome::Fenced => ObjectError::BucketBeingDeleted(bucket.clone()),
        Outcome::BucketGone | Outcome::NoSuchBucket => ObjectError::NoSuchBucket(bucket.clone()),
        Outcome::Locked => ObjectError::Locked,
        Outcome::TooLarge => ObjectError::MetadataTooLarge,
        _ => return None,
    })
}

/// A bug of ours: an operation was answered with the outcome of another kind.
pub(crate) fn unexpected(operation: &'static str, outcome: &Outcome) -> ObjectError {
    ObjectError::Storage(format!("{operation} was answered with {outcome:?}"))
}
