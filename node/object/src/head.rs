//! HEAD: what is known of an object without its bytes.
//!
//! Invariants: answers what a GET of the same request would, but for the bytes.

use std::ops::Range;

use meridian_index::{Attributes, Checksum, PartSize, VersionId};
use meridian_types::{ObjectKey, Stamp};

use crate::read_row::requested_range;
use crate::{GetRequest, ObjectError, Objects};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// Hex, without quotes; `md5-n` for a multipart object.
    pub etag: String,
    /// As they are now, with what was changed since the write.
    pub attributes: Attributes,
    pub stamp: Stamp,
    pub version: VersionId,
    /// The id that clients are told: none in a bucket that never had versioning, nor in listings.
    pub shown_version: Option<VersionId>,
    pub last_modified_unix_ms: u64,
    /// Empty unless the object was a multipart upload.
    pub parts: Vec<PartSize>,
    pub checksums: Vec<Checksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadOutcome {
    pub info: ObjectInfo,
    /// What a GET of the same request would send.
    pub range: Range<u64>,
}

impl Objects {
    /// # Errors
    /// Those of `get` that don't concern bytes.
    pub async fn head(&self, request: GetRequest) -> Result<HeadOutcome, ObjectError> {
        let row = self.inner.object_row(&request.bucket, &request.key, request.version).await?;
        request.preconditions.check(&row.info.etag, row.info.last_modified_unix_ms)?;
        let range = requested_range(&row.info, &request)?;
        Ok(HeadOutcome { info: row.info, range })
    }
}
