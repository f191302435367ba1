//! Reading a blob: one read for its head and first bytes, here if it is here, and a stream for the rest.
//!
//! Invariants: what is read is verified; a fid of another datacenter's volume is looked for there too before it is called
//! unknown; an expired blob is unknown; first bytes count in the budget until their reader drops them.

use std::ops::Range;

use bytes::Bytes;
use meridian_index::ChunkRef;
use meridian_types::{Fid, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

use super::envelope::{HEAD_SIZE_MAX, Head, etag};
use super::{BlobAddress, BlobError};
use crate::bytes_out::{Source, open_stream};
use crate::{ByteStream, ObjectError, Objects, Preconditions, RangeSpec, RemoteError};

/// What one read takes of a blob: all of most of them, and no more than is read without another thread when it is cached.
const FIRST_READ_SIZE: u32 = 128 << 10;

/// What is known of a blob besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub modified_unix_ms: u64,
    /// Empty when none was given.
    pub name: String,
    /// Empty when none was given.
    pub content_type: String,
}

/// A blob whose head was read.
pub struct OpenBlob {
    objects: Objects,
    fid: Fid,
    pub info: BlobInfo,
    /// Bytes of the needle before the blob's data, and in all.
    head_size: u64,
    needle_size: u32,
    /// The first bytes of the data.
    first: Bytes,
    permit: OwnedSemaphorePermit,
}

impl Objects {
    /// Finds a blob on this node, in this datacenter, or in another one.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when somebody who may have it can't be asked; `Busy`.
    pub async fn open_blob(&self, address: BlobAddress) -> Result<OpenBlob, BlobError> {
        self.open_needle(address.fid().ok_or(BlobError::NotFound)?).await
    }

    pub(super) async fn open_needle(&self, fid: Fid) -> Result<OpenBlob, BlobError> {
        let permit = match self.inner.try_reserve(FIRST_READ_SIZE as usize) {
            Some(permit) => permit,
            None => self.inner.reserve(FIRST_READ_SIZE as usize).await?,
        };
        let (bytes, needle_size) = self.read_first(fid).await?;
        let head = Head::decode(&bytes).ok_or(BlobError::NotFound)?; // a chunk of an object is no blob
        if head.expires_unix_ms != 0 && head.expires_unix_ms <= self.inner.now_unix_ms() {
            return Err(BlobError::NotFound);
        }
        let head_size = head.size();
        let info = BlobInfo {
            size: u64::from(needle_size) - head_size as u64,
            etag: etag(head.checksum),
            modified_unix_ms: head.modified_unix_ms,
            name: head.name,
            content_type: head.content_type,
        };
        let first = bytes.slice(head_size..);
        Ok(OpenBlob { objects: self.clone(), fid, info, head_size: head_size as u64, needle_size, first, permit })
    }

    /// The first bytes of a needle, blob or not, and its size.
    pub(super) async fn read_first(&self, fid: Fid) -> Result<(Bytes, u32), BlobError> {
        let inner = &self.inner;
        let error = match inner.replicas.read_prefix(fid, FIRST_READ_SIZE).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // The owner's word is final; a mirror may only be behind.
        if fid.volume.datacenter() == self.datacenter()
            && (error.is_no_such_needle() || inner.control.volume(fid.volume).is_none())
        {
            return Err(BlobError::NotFound);
        }
        match inner.remote.fetch_prefix(fid, FIRST_READ_SIZE).await {
            Ok(found) => Ok(found),
            Err(RemoteError::NotFound { .. }) => Err(BlobError::NotFound),
            Err(RemoteError::Unreachable { datacenter, reason }) => {
                tracing::debug!(?fid, %error, reason, "a blob can't be read");
                Err(BlobError::Unavailable(format!("the blob is not here, and datacenter {datacenter} can't be asked")))
            }
        }
    }
}

impl OpenBlob {
    pub(super) fn fid(&self) -> Fid {
        self.fid
    }

    /// The bytes that a request asks for; all of them without a range.
    ///
    /// # Errors
    /// `NotModified`, `PreconditionFailed`, `InvalidRange`.
    pub fn requested(
        &self,
        preconditions: &Preconditions,
        range: Option<RangeSpec>,
    ) -> Result<Range<u64>, ObjectError> {
        preconditions.check(&self.info.etag, self.info.modified_unix_ms)?;
        range.map_or(Ok(0..self.info.size), |range| range.resolve(self.info.size))
    }

    /// `range` of the data, which lies within it.
    ///
    /// # Errors
    /// As `open_blob`, for the first piece; later ones are errors of the stream.
    pub async fn body(self, range: Range<u64>) -> Result<BlobBody, BlobError> {
        let Self { objects, fid, head_size, needle_size, permit, first, .. } = self;
        if range.end <= first.len() as u64 {
            let bytes = first.slice(range.start as usize..range.end as usize);
            return Ok(BlobBody::Whole(Bytes::from_owner(Held { bytes, _permit: permit })));
        }
        drop(permit);
        let needle = ChunkRef { fid, length: needle_size, end_offset: 0, stamp: Timestamp::ZERO };
        let range = range.start + head_size..range.end + head_size;
        let source = Source { chunks: &[needle], parts: &[], key: None };
        Ok(BlobBody::Stream(open_stream(&objects.inner, &source, range).await?))
    }
}

/// Bytes of a blob on their way out.
pub enum BlobBody {
    /// They came with the head.
    Whole(Bytes),
    Stream(ByteStream),
}

/// Bytes together with their place in the budget.
struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

const _: () = assert!(HEAD_SIZE_MAX < FIRST_READ_SIZE as usize);
