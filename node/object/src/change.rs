//! Changes of what is said of a stored version: tags, locks, access. Its bytes, its ETag and its time stay.
//!
//! Invariants: a change is one mutation of the key's partition; who may make it is the gateway's business, whether a lock
//! allows it is decided in `apply`.

use meridian_index::{BucketRow, Change, Operation, Outcome, VersionId};
use meridian_types::{BucketName, ObjectKey, Timestamp};

use crate::propose::{refusal, unexpected};
use crate::version::shown_version;
use crate::{ObjectError, Objects};

#[derive(Debug, Clone)]
pub struct ChangeRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    /// `None` is the current one.
    pub version: Option<VersionId>,
    pub change: Change,
    /// May weaken a retention under GOVERNANCE.
    pub bypass_governance: bool,
}

impl Objects {
    /// Answers the version that was changed, where the bucket has versions.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `DeleteMarker`, `Locked`, `Busy`, `Unavailable`.
    pub async fn change(&self, request: ChangeRequest) -> Result<Option<VersionId>, ObjectError> {
        let inner = &self.inner;
        let ChangeRequest { bucket, key, version, change, bypass_governance } = request;
        let bucket: BucketRow = inner.bucket_row(&bucket).await?;
        inner.row_in(&bucket, &key, version).await?; // says exactly what is missing
        let partition = inner.partition(bucket.id, &key);
        let operation = Operation::Annotate { bucket: bucket.id, key: key.clone(), version, change, bypass_governance };
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Annotated { version } => Ok(shown_version(&bucket, version)),
            Outcome::NoSuchVersion => Err(ObjectError::NoSuchKey { bucket: bucket.name, key }),
            outcome => Err(refusal(&outcome, &bucket.name).unwrap_or_else(|| unexpected("a change", &outcome))),
        }
    }
}
