//! CopyObject: a read streamed into a put. Bytes are copied, because a chunk belongs to exactly one row (rule 14).
//!
//! Invariants: a copy is of one version of its source; onto itself it must change something.

use std::sync::Arc;

use meridian_cipher::DataKey;
use meridian_index::{Attributes, Condition, VersionId};
use meridian_types::limits::PART_SIZE_MAX;
use meridian_types::{BucketName, ObjectKey};

use crate::bytes_out::open_stream;
use crate::objects::Inner;
use crate::read_row::ReadRow;
use crate::{
    BodyFinish, ByteStream, CustomerKey, EncryptionWish, ObjectError, ObjectInfo, Objects, Preconditions, PutOutcome,
    PutRequest,
};

#[derive(Debug, Clone)]
pub struct CopySource {
    pub bucket: BucketName,
    pub key: ObjectKey,
    /// `None` is the current one.
    pub version: Option<VersionId>,
    /// A failing one is `PreconditionFailed`, also where a GET would say `NotModified`.
    pub preconditions: Preconditions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    Copy,
    Replace,
}

/// Follows the copied bytes, and hands over the checksums of the copy at their end.
pub type CopyDigest = Box<dyn FnOnce(ByteStream) -> (ByteStream, BodyFinish) + Send>;

pub struct CopyRequest {
    pub source: CopySource,
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub metadata: Directive,
    pub tags: Directive,
    /// Headers and metadata for `metadata: Replace`, tags for `tags: Replace`.
    pub attributes: Attributes,
    pub condition: Condition,
    /// The copy is something else than its source in ways that this crate does not see: onto itself it is allowed.
    pub changes: bool,
    /// `None` keeps the checksums of the source that are true of the copy.
    pub digest: Option<CopyDigest>,
}

impl Objects {
    /// Copies an object of at most 5 GiB. Returns the new object and what was copied.
    ///
    /// # Errors
    /// Those of `get` and `put`, and `CopyOntoItself`.
    pub async fn copy(&self, request: CopyRequest) -> Result<(PutOutcome, ObjectInfo), ObjectError> {
        self.copy_with_keys(request, None, EncryptionWish::BucketDefault).await
    }

    /// COPY with the customer's key of the source, and with what is wished for the copy: how the source is encrypted does
    /// not pass on to it (S3).
    ///
    /// # Errors
    /// Those of `copy`; `Refused` for keys that do not fit.
    pub async fn copy_with_keys(
        &self,
        request: CopyRequest,
        source_key: Option<CustomerKey>,
        wish: EncryptionWish,
    ) -> Result<(PutOutcome, ObjectInfo), ObjectError> {
        let (source, data_key) = self.inner.copy_source(&request.source, source_key.as_ref()).await?;
        let source_id = (&request.source.bucket, &request.source.key);
        // A named version is brought back by a copy onto its key (S3).
        let itself = source_id == (&request.bucket, &request.key) && request.source.version.is_none();
        if itself && request.metadata == Directive::Copy && !request.changes {
            return Err(ObjectError::CopyOntoItself);
        }
        let size = source.info.size;
        if size > PART_SIZE_MAX {
            return Err(ObjectError::CopySourceTooLarge { size, size_max: PART_SIZE_MAX });
        }
        let attributes = copied_attributes(&request, &source.info.attributes);
        let body = open_stream(&self.inner, &source.source(data_key), 0..size).await?;
        // A checksum of the whole object stays true of its copy; one of its parts does not, since the copy has none.
        let mut checksums = source.info.checksums.clone();
        checksums.retain(|checksum| !checksum.composite);
        let (body, finish): (_, BodyFinish) = match request.digest {
            Some(digest) => digest(body),
            None => (body, Box::new(move || Ok(checksums))),
        };
        let put = PutRequest {
            bucket: request.bucket,
            key: request.key,
            attributes,
            body,
            length: Some(size),
            content_md5: None,
            condition: request.condition,
            finish: Some(finish),
        };
        Ok((self.put_with_key(put, wish).await?, source.info))
    }
}

/// What is said of the copy: metadata and tags as the directives say; class, locks, owner and access are never copied (S3).
fn copied_attributes(request: &CopyRequest, source: &Attributes) -> Attributes {
    let new = &request.attributes;
    let said = match request.metadata {
        Directive::Copy => source,
        Directive::Replace => new,
    };
    let tags = match request.tags {
        Directive::Copy => &source.tags,
        Directive::Replace => &new.tags,
    };
    Attributes {
        content_type: said.content_type.clone(),
        cache_control: said.cache_control.clone(),
        content_disposition: said.content_disposition.clone(),
        content_encoding: said.content_encoding.clone(),
        content_language: said.content_language.clone(),
        expires: said.expires.clone(),
        user_metadata: said.user_metadata.clone(),
        tags: tags.clone(),
        ..new.clone()
    }
}

impl Inner {
    /// The source's row and its key, once its preconditions hold.
    pub(crate) async fn copy_source(
        &self,
        source: &CopySource,
        customer: Option<&CustomerKey>,
    ) -> Result<(ReadRow, Option<Arc<DataKey>>), ObjectError> {
        let (row, key) = self.opened_row(&source.bucket, &source.key, source.version, customer).await?;
        source.preconditions.check_source(&row.info.etag, row.info.last_modified_unix_ms)?;
        Ok((row, key))
    }
}
