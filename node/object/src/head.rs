//! HEAD: what is known of an object without its bytes.
//!
//! Invariants: answers what a GET of the same request would, but for the bytes.

use std::ops::Range;

use meridian_index::{Attributes, Checksum, PartSize, VersionId};
use meridian_types::{ObjectKey, Stamp};

use crate::read_row::{ReadRow, requested_range};
use crate::{CustomerKey, GetRequest, ObjectError, Objects};

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
    /// Asks for no key, also of an encrypted object: for the store's own questions, such as whose it is.
    ///
    /// # Errors
    /// Those of `get` that don't concern bytes.
    pub async fn head(&self, request: GetRequest) -> Result<HeadOutcome, ObjectError> {
        let bucket = self.inner.bucket_row(&request.bucket).await?;
        outcome(self.inner.row_in(&bucket, &request.key, request.version).await?, &request)
    }

    /// For clients: what is encrypted with a customer's key is told to those who have it.
    ///
    /// # Errors
    /// Those of `get` that don't concern bytes.
    pub async fn head_with_key(
        &self,
        request: GetRequest,
        customer: Option<&CustomerKey>,
    ) -> Result<HeadOutcome, ObjectError> {
        let row = self.inner.opened_row(&request.bucket, &request.key, request.version, customer).await?.0;
        outcome(row, &request)
    }
}

fn outcome(row: ReadRow, request: &GetRequest) -> Result<HeadOutcome, ObjectError> {
    request.preconditions.check(&row.info.etag, row.info.last_modified_unix_ms)?;
    let range = requested_range(&row.info, request)?;
    Ok(HeadOutcome { info: row.info, range })
}
