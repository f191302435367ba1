//! PUT of one object: body into chunks, then one proposal.
//!
//! Invariants: nothing is proposed before every byte is durable and every digest agrees; the condition is decided in
//! `apply`, and so atomic with the write.

use std::sync::Arc;

use meridian_index::{
    Attributes, BucketRow, Checksum, Condition, Encryption, ObjectBody, Operation, Outcome, VersionId, queries,
};
use meridian_types::limits::{PART_SIZE_MAX, USER_METADATA_SIZE_MAX};
use meridian_types::{BucketName, ObjectKey, Stamp};

use crate::bytes_in::{BodyCipher, greatest_stamp, store_body};
use crate::encryption::NewEncryption;
use crate::objects::Inner;
use crate::propose::{refusal, unexpected};
use crate::read_row::index_error;
use crate::version::{shown_version, with_default_lock};
use crate::{BodyFinish, ByteStream, EncryptionWish, ObjectError, Objects};

pub struct PutRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub attributes: Attributes,
    pub body: ByteStream,
    /// Bytes announced by the client; the body must have exactly as many.
    pub length: Option<u64>,
    pub content_md5: Option<[u8; 16]>,
    pub condition: Condition,
    /// Verified checksums, known at the end of the body.
    pub finish: Option<BodyFinish>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOutcome {
    /// Hex, without quotes.
    pub etag: String,
    pub stamp: Stamp,
    /// `None` in a bucket that never had versioning.
    pub version: Option<VersionId>,
    /// Bytes.
    pub size: u64,
    pub checksums: Vec<Checksum>,
    /// Something visible was there before.
    pub replaced: bool,
    /// How it is encrypted, if it is.
    pub encryption: Option<Box<Encryption>>,
}

impl Objects {
    /// Stores an object of at most 5 GiB (`PART_SIZE_MAX`).
    ///
    /// # Errors
    /// See `ObjectError`; nothing is committed unless it is `Unavailable`.
    pub async fn put(&self, request: PutRequest) -> Result<PutOutcome, ObjectError> {
        self.put_with_key(request, EncryptionWish::BucketDefault).await
    }

    /// PUT of an object whose encryption is asked for.
    ///
    /// # Errors
    /// Those of `put`; `Refused` for a key that is not there.
    pub async fn put_with_key(&self, request: PutRequest, wish: EncryptionWish) -> Result<PutOutcome, ObjectError> {
        let inner = &self.inner;
        check_attributes(&request.attributes)?;
        let bucket = inner.bucket_row(&request.bucket).await?;
        inner.check_condition_early(&bucket, &request.key, &request.condition).await?;
        let mut attributes = with_default_lock(&bucket, request.attributes, inner.clock.wall().unix_ms())?;
        let new = inner.new_encryption(&bucket, &request.key, &wish)?;
        let encryption = new.as_ref().map(|new| new.encryption.clone());
        attributes.encryption.clone_from(&encryption);
        let code = inner.code_of(&bucket);
        let cipher = new.as_ref().map(|new| BodyCipher { key: Arc::clone(&new.key), part: 0 });
        let stored = store_body(inner, code, request.body, request.length, PART_SIZE_MAX, cipher).await?;
        check_md5(request.content_md5, stored.md5)?;
        let checksums = request.finish.map_or(Ok(Vec::new()), |finish| finish())?;
        let (size, etag) = (stored.size, NewEncryption::etag(new.as_ref(), stored.md5));
        let body = ObjectBody {
            size,
            etag: etag.clone(),
            attributes,
            chunks: stored.chunks.release(),
            parts: Vec::new(),
            checksums: checksums.clone(),
            annotations: None,
        };
        let (stamp, version, replaced) = inner.commit_object(&bucket, request.key, body, request.condition).await?;
        let version = shown_version(&bucket, version);
        Ok(PutOutcome { etag, stamp, version, size, checksums, replaced, encryption })
    }
}

/// # Errors
/// `MetadataTooLarge` over 2 KiB of user metadata (S3).
pub(crate) fn check_attributes(attributes: &Attributes) -> Result<(), ObjectError> {
    let size: usize = attributes.user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > USER_METADATA_SIZE_MAX { Err(ObjectError::MetadataTooLarge) } else { Ok(()) }
}

pub(crate) fn check_md5(expected: Option<[u8; 16]>, computed: [u8; 16]) -> Result<(), ObjectError> {
    if expected.is_some_and(|expected| expected != computed) { Err(ObjectError::BadDigest) } else { Ok(()) }
}

impl Inner {
    /// Refuses a conditional write that can't succeed now, before its body is taken. `apply` decides again.
    pub(crate) async fn check_condition_early(
        &self,
        bucket: &BucketRow,
        key: &ObjectKey,
        condition: &Condition,
    ) -> Result<(), ObjectError> {
        let failed = match condition {
            Condition::None => false,
            Condition::Absent | Condition::Etag(_) | Condition::Matches(_) => {
                let view = self.read(self.partition(bucket.id, key)).await?;
                let existing = queries::object(&view, bucket.id, key).map_err(index_error)?;
                match (condition, existing.as_ref().and_then(|version| version.body())) {
                    (Condition::Absent, Some(_)) => return Err(ObjectError::PreconditionFailed("If-None-Match")),
                    // A missing object under If-Match is a 404 (S3).
                    (Condition::Etag(_), None) => {
                        return Err(ObjectError::NoSuchKey { bucket: bucket.name.clone(), key: key.clone() });
                    }
                    (Condition::Etag(etag), Some(body)) => etag != "*" && *etag != body.etag,
                    (Condition::None | Condition::Absent | Condition::Matches(_), _) => false,
                }
            }
        };
        if failed { Err(ObjectError::PreconditionFailed("If-Match")) } else { Ok(()) }
    }

    /// Proposes a body whose bytes are durable. Its chunks are discarded if it provably was not committed.
    async fn commit_object(
        self: &Arc<Self>,
        bucket: &BucketRow,
        key: ObjectKey,
        body: ObjectBody,
        condition: Condition,
    ) -> Result<(Stamp, VersionId, bool), ObjectError> {
        let chunks = body.chunks.clone();
        let partition = self.partition(bucket.id, &key);
        let operation =
            Operation::Put { bucket: bucket.id, key, mode: bucket.settings.version_mode(), body, condition };
        let proposed = self.propose(partition, operation, greatest_stamp(&chunks)).await;
        let error = match proposed.outcome {
            Ok(Outcome::Stored { stamp, version, replaced }) => return Ok((stamp, version, replaced)),
            Ok(outcome) => match refusal(&outcome, &bucket.name) {
                Some(error) => error,
                None => return Err(unexpected("a put", &outcome)),
            },
            Err(error) => error,
        };
        if proposed.certain {
            self.discard(chunks);
        }
        Err(error)
    }
}
