//! Buckets: lookup, create, settings, list. Their deletion stands in `bucket_delete`.
//!
//! Invariants: a bucket that is absent from the local view is looked up linearizably before anyone is told so; an
//! object mutation names its bucket by id, and the fence in its partition, not this lookup, guards it (rule 18).

use meridian_control::ControlError;
use meridian_index::kv::KvRead;
use meridian_index::{BucketRow, BucketSettings, Operation, Outcome, SettingChange, queries};
use meridian_types::{BucketName, PartitionId, ReplicaCode, Timestamp};

use crate::objects::Inner;
use crate::propose::{meta_error, refusal, unexpected};
use crate::read_row::index_error;
use crate::{ObjectError, Objects, seen};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBucketOutcome {
    pub bucket: BucketRow,
    /// It was there before, with the same owner; its settings are unchanged.
    pub existed: bool,
}

impl Objects {
    /// # Errors
    /// `BucketAlreadyExists` when another owner has it; `Busy`, `Unavailable`.
    pub async fn create_bucket(
        &self,
        name: &BucketName,
        settings: BucketSettings,
        owner: &str,
    ) -> Result<CreateBucketOutcome, ObjectError> {
        let operation = Operation::CreateBucket { name: name.clone(), settings, owner: owner.to_owned() };
        let proposed = self.inner.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await;
        let existed = match proposed.outcome? {
            Outcome::BucketCreated { existed, .. } => existed,
            outcome => return Err(refusal(&outcome, name).unwrap_or_else(|| unexpected("a creation", &outcome))),
        };
        let bucket = self.inner.bucket_row_linearizable(name).await?;
        if existed && bucket.owner != owner {
            return Err(ObjectError::BucketAlreadyExists(name.clone()));
        }
        Ok(CreateBucketOutcome { bucket, existed })
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Busy`, `Unavailable`.
    pub async fn update_bucket(&self, name: &BucketName, settings: BucketSettings) -> Result<BucketRow, ObjectError> {
        let bucket = self.inner.bucket_row(name).await?.id;
        let operation = Operation::UpdateBucket { bucket, settings };
        match self.inner.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await.outcome? {
            Outcome::BucketUpdated => self.inner.bucket_row_linearizable(name).await,
            outcome => Err(refusal(&outcome, name).unwrap_or_else(|| unexpected("an update", &outcome))),
        }
    }

    /// Changes one setting, whatever the others have become meanwhile.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Busy`, `Unavailable`.
    pub async fn change_bucket(&self, name: &BucketName, change: SettingChange) -> Result<(), ObjectError> {
        let bucket = self.inner.bucket_row(name).await?.id;
        let operation = Operation::ChangeBucket { bucket, change };
        match self.inner.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await.outcome? {
            Outcome::BucketUpdated => Ok(()),
            outcome => Err(refusal(&outcome, name).unwrap_or_else(|| unexpected("a change", &outcome))),
        }
    }

    /// Whether new volumes can have this code: x against the cluster's members, y and z against the nodes of this
    /// datacenter (rule 24).
    ///
    /// # Errors
    /// `InvalidArgument` that says what is missing.
    pub fn check_code(&self, code: ReplicaCode) -> Result<(), ObjectError> {
        let missing =
            |error: ControlError| ObjectError::InvalidArgument { argument: "replication", reason: error.to_string() };
        self.inner.control.check_code(code).map_err(missing)
    }

    /// All buckets, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_buckets(&self) -> Result<Vec<BucketRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        seen::note_view(&view, self.inner.config.datacenter);
        let mut buckets = queries::buckets(&view).map_err(index_error)?;
        buckets.retain(BucketRow::is_active);
        Ok(buckets)
    }

    /// # Errors
    /// `NoSuchBucket`, `Unavailable`.
    pub async fn head_bucket(&self, name: &BucketName) -> Result<BucketRow, ObjectError> {
        self.inner.bucket_row(name).await
    }
}

impl Inner {
    /// The active bucket of a name: from what this node has applied, and only if it is not there from the leader.
    pub(crate) async fn bucket_row(&self, name: &BucketName) -> Result<BucketRow, ObjectError> {
        // Taken before the view: what is remembered under this number is at least as recent.
        let applied = self.meta.applied(PartitionId::CATALOG).map_err(meta_error)?;
        if let Some(row) = self.known_buckets.get(applied, name) {
            seen::note_copies(self.code_of(&row).other_datacenters());
            return Ok(row);
        }
        let view = self.meta.local_view(PartitionId::CATALOG).map_err(meta_error)?;
        match active_bucket(&view, name)? {
            Some(row) => {
                seen::note_copies(self.code_of(&row).other_datacenters());
                self.known_buckets.remember(applied, &row);
                Ok(row)
            }
            None => self.bucket_row_linearizable(name).await,
        }
    }

    pub(crate) async fn bucket_row_linearizable(&self, name: &BucketName) -> Result<BucketRow, ObjectError> {
        let view = self.read(PartitionId::CATALOG).await?;
        let row = active_bucket(&view, name)?.ok_or_else(|| ObjectError::NoSuchBucket(name.clone()))?;
        seen::note_copies(self.code_of(&row).other_datacenters());
        Ok(row)
    }

    /// The code of volumes for new bytes of a bucket (rule 24).
    pub(crate) fn code_of(&self, bucket: &BucketRow) -> ReplicaCode {
        bucket.settings.code.unwrap_or(self.config.default_code)
    }
}

fn active_bucket(view: &dyn KvRead, name: &BucketName) -> Result<Option<BucketRow>, ObjectError> {
    let row = queries::bucket(view, name).map_err(index_error)?;
    row.iter().for_each(|row| seen::note(row.updated));
    Ok(row.filter(BucketRow::is_active))
}
