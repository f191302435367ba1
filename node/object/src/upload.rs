//! Multipart uploads: create, parts, complete, abort. An upload lives in the datacenter that its id names (rule 22).
//!
//! Invariants: no byte of a part is taken before its upload is known to be here; parts, Complete and Abort serialise
//! in `apply` on the upload's row, in its key's partition.

use std::sync::Arc;

use meridian_env::entropy;
use meridian_index::{
    Attributes, BucketRow, Checksum, Condition, Operation, Outcome, Part, PartChoice, UploadRow, VersionId,
    VersionMode, queries,
};
use meridian_store::GroupView;
use meridian_types::limits::PART_SIZE_MAX;
use meridian_types::{BucketId, BucketName, ObjectKey, Stamp, Timestamp, UploadId};

use crate::bytes_in::{greatest_stamp, store_body};
use crate::bytes_out::open_stream;
use crate::objects::Inner;
use crate::propose::{refusal, unexpected};
use crate::put::{check_attributes, check_md5};
use crate::read_row::{check_part_number, index_error};
use crate::{BodyFinish, ByteStream, CopySource, ObjectError, ObjectInfo, Objects, RangeSpec};

#[derive(Debug, Clone)]
pub struct CreateUploadRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUploadOutcome {
    pub upload: UploadId,
    pub initiated: Timestamp,
}

pub struct PutPartRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    /// 1..=10000.
    pub number: u16,
    pub body: ByteStream,
    pub length: Option<u64>,
    pub content_md5: Option<[u8; 16]>,
    pub finish: Option<BodyFinish>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartOutcome {
    pub etag: String,
    /// Bytes.
    pub size: u64,
    pub stored: Timestamp,
    /// What the `finish` hook handed over; rows of parts don't keep them.
    pub checksums: Vec<Checksum>,
}

#[derive(Debug, Clone)]
pub struct CopyPartRequest {
    pub source: CopySource,
    /// `None` copies the whole source; a range past its end is `InvalidRange`.
    pub range: Option<RangeSpec>,
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub number: u16,
}

#[derive(Debug, Clone)]
pub struct CompleteRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub parts: Vec<PartChoice>,
    pub condition: Condition,
    /// The whole object's checksums as the client says. Rows of parts keep none to hold them against, so these are
    /// neither checked nor kept.
    pub checksums: Vec<Checksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteOutcome {
    /// `md5(md5s)-n`.
    pub etag: String,
    pub stamp: Stamp,
    pub version: VersionId,
    /// Bytes.
    pub size: u64,
    /// The checksums that the object's row keeps.
    pub checksums: Vec<Checksum>,
}

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `BucketBeingDeleted`, `Busy`, `Unavailable`.
    pub async fn create_upload(&self, request: CreateUploadRequest) -> Result<CreateUploadOutcome, ObjectError> {
        let inner = &self.inner;
        let CreateUploadRequest { bucket, key, attributes } = request;
        check_attributes(&attributes)?;
        let bucket = inner.bucket_row(&bucket).await?;
        let mut random = [0; 15];
        entropy::fill(&mut random);
        let upload = UploadId::new(inner.config.datacenter, random);
        let initiated = inner.clock.wall();
        let partition = inner.partition(bucket.id, &key);
        let operation = Operation::CreateUpload { bucket: bucket.id, key, upload, attributes, initiated };
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::UploadCreated => Ok(CreateUploadOutcome { upload, initiated }),
            outcome => Err(refusal(&outcome, &bucket.name).unwrap_or_else(|| unexpected("a create", &outcome))),
        }
    }

    /// Stores one part; a later one of the same number replaces it.
    ///
    /// # Errors
    /// `NoSuchUpload` before any byte is taken, and those of `put`.
    pub async fn put_part(&self, request: PutPartRequest) -> Result<PartOutcome, ObjectError> {
        let inner = &self.inner;
        let PutPartRequest { bucket, key, upload, number, body, length, content_md5, finish } = request;
        check_part_number(number)?;
        let bucket = inner.bucket_row(&bucket).await?;
        inner.upload_row(bucket.id, &key, upload).await?;
        let stored = store_body(inner, inner.code_of(&bucket), body, length, PART_SIZE_MAX).await?;
        check_md5(content_md5, stored.md5)?;
        let checksums = finish.map_or(Ok(Vec::new()), |finish| finish())?;
        let (size, etag, stored_at) = (stored.size, hex::encode(stored.md5), inner.clock.wall());
        let part = Part { size, etag: etag.clone(), chunks: stored.chunks.release(), stored: stored_at };
        inner.commit_part(&bucket, key, upload, number, part).await?;
        Ok(PartOutcome { etag, size, stored: stored_at, checksums })
    }

    /// Copies an object or a range of it, at most 5 GiB, into a part.
    ///
    /// # Errors
    /// Those of `copy` and `put_part`.
    pub async fn copy_part(&self, request: CopyPartRequest) -> Result<(PartOutcome, ObjectInfo), ObjectError> {
        let CopyPartRequest { source, range, bucket, key, upload, number } = request;
        let source = self.inner.copy_source(&source).await?;
        let size = source.info.size;
        let range = match range {
            None => 0..size,
            // Unlike a GET, a copy is not cut back: less than was asked for would be a silent loss (S3).
            Some(RangeSpec::FromTo(_, Some(last))) if last >= size => return Err(ObjectError::InvalidRange { size }),
            Some(range) => range.resolve(size)?,
        };
        let length = range.end - range.start;
        if length > PART_SIZE_MAX {
            return Err(ObjectError::EntityTooLarge { size: length, size_max: PART_SIZE_MAX });
        }
        let body = open_stream(&self.inner, &source.chunks, range).await?;
        let outcome = self
            .put_part(PutPartRequest {
                bucket,
                key,
                upload,
                number,
                body,
                length: Some(length),
                content_md5: None,
                finish: None,
            })
            .await?;
        Ok((outcome, source.info))
    }

    /// Makes the object of its parts; a repeated call gets the remembered answer.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `PreconditionFailed`, and those of `put`.
    pub async fn complete_upload(&self, request: CompleteRequest) -> Result<CompleteOutcome, ObjectError> {
        let inner = &self.inner;
        let CompleteRequest { bucket, key, upload, parts, condition, checksums: _ } = request;
        let bucket = inner.bucket_row(&bucket).await?;
        inner.check_upload_here(upload)?;
        let partition = inner.partition(bucket.id, &key);
        // The upload itself is not looked up: a repeated Complete finds none and still has its answer (rule 22).
        let operation = Operation::CompleteUpload {
            bucket: bucket.id,
            key: key.clone(),
            upload,
            parts,
            mode: VersionMode::Null,
            condition,
        };
        // Its chunks' stamps were observed with their parts, in this very partition (rule 13).
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Completed { stamp, etag, size } => {
                let version = VersionMode::Null.version_id(stamp);
                Ok(CompleteOutcome { etag, stamp, version, size, checksums: Vec::new() })
            }
            outcome => Err(upload_refusal(&outcome, &bucket, key, upload, "a complete")),
        }
    }

    /// Ends an upload; its parts are reclaimed.
    ///
    /// # Errors
    /// `NoSuchUpload`, `UploadElsewhere`.
    pub async fn abort_upload(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<(), ObjectError> {
        let inner = &self.inner;
        let bucket = inner.bucket_row(bucket).await?;
        inner.check_upload_here(upload)?;
        let partition = inner.partition(bucket.id, key);
        let operation = Operation::AbortUpload { bucket: bucket.id, key: key.clone(), upload };
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Aborted => Ok(()),
            outcome => Err(upload_refusal(&outcome, &bucket, key.clone(), upload, "an abort")),
        }
    }
}

fn upload_refusal(
    outcome: &Outcome,
    bucket: &BucketRow,
    key: ObjectKey,
    upload: UploadId,
    operation: &'static str,
) -> ObjectError {
    match outcome {
        Outcome::NoSuchUpload => ObjectError::NoSuchUpload { key, upload },
        outcome => refusal(outcome, &bucket.name).unwrap_or_else(|| unexpected(operation, outcome)),
    }
}

impl Inner {
    /// An upload lives in the datacenter that its id names (rule 22).
    fn check_upload_here(&self, upload: UploadId) -> Result<(), ObjectError> {
        let datacenter = upload.datacenter();
        let here = datacenter == self.config.datacenter;
        if here { Ok(()) } else { Err(ObjectError::UploadElsewhere { upload, datacenter }) }
    }

    /// The upload's row and the view it was read from.
    pub(crate) async fn upload_row(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<(UploadRow, GroupView), ObjectError> {
        self.check_upload_here(upload)?;
        let view = self.read(self.partition(bucket, key)).await?;
        let row = queries::upload(&view, bucket, key, upload).map_err(index_error)?;
        row.map(|row| (row, view)).ok_or_else(|| ObjectError::NoSuchUpload { key: key.clone(), upload })
    }

    /// Proposes a part whose bytes are durable. Its chunks are discarded if it provably was not committed.
    async fn commit_part(
        self: &Arc<Self>,
        bucket: &BucketRow,
        key: ObjectKey,
        upload: UploadId,
        number: u16,
        part: Part,
    ) -> Result<(), ObjectError> {
        let chunks = part.chunks.clone();
        let partition = self.partition(bucket.id, &key);
        let operation = Operation::PutPart { bucket: bucket.id, key: key.clone(), upload, number, part };
        let proposed = self.propose(partition, operation, greatest_stamp(&chunks)).await;
        let error = match proposed.outcome {
            Ok(Outcome::PartStored) => return Ok(()),
            Ok(outcome) => upload_refusal(&outcome, bucket, key, upload, "a part"),
            Err(error) => error,
        };
        if proposed.certain && !matches!(error, ObjectError::Storage(_)) {
            self.discard(chunks);
        }
        Err(error)
    }
}
