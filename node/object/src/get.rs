//! GET of an object or a range of it.
//!
//! Invariants: description, range and bytes are of one version (C10); the body has exactly `range` or ends in an error.

use std::ops::Range;

use meridian_index::VersionId;
use meridian_types::{BucketName, ObjectKey};

use crate::bytes_out::open_stream;
use crate::read_row::requested_range;
use crate::{ByteStream, CustomerKey, ObjectError, ObjectInfo, Objects, Preconditions, RangeSpec};

/// Asked by GET and HEAD alike.
#[derive(Debug, Clone)]
pub struct GetRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    /// `None` is the current one.
    pub version: Option<VersionId>,
    pub range: Option<RangeSpec>,
    /// 1..=10000; excludes `range`.
    pub part_number: Option<u16>,
    pub preconditions: Preconditions,
}

pub struct GetOutcome {
    pub info: ObjectInfo,
    /// The bytes of the object that the body holds; the whole object unless a range or part was asked for.
    pub range: Range<u64>,
    pub body: ByteStream,
}

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `DeleteMarker`, `NotModified`, `PreconditionFailed`, `InvalidRange`, `InvalidPartNumber`,
    /// `Unavailable` when no reachable holder has the first bytes. Later failures are errors of the body.
    pub async fn get(&self, request: GetRequest) -> Result<GetOutcome, ObjectError> {
        self.get_with_key(request, None).await
    }

    /// GET with the key that a client gives for what it encrypted with it.
    ///
    /// # Errors
    /// Those of `get`; `Refused` for a key that is missing, wrong or not asked for.
    pub async fn get_with_key(
        &self,
        request: GetRequest,
        customer: Option<&CustomerKey>,
    ) -> Result<GetOutcome, ObjectError> {
        let (row, key) = self.inner.opened_row(&request.bucket, &request.key, request.version, customer).await?;
        request.preconditions.check(&row.info.etag, row.info.last_modified_unix_ms)?;
        let range = requested_range(&row.info, &request)?;
        let body = open_stream(&self.inner, &row.source(key), range.clone()).await?;
        Ok(GetOutcome { info: row.info, range, body })
    }
}
