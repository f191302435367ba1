//! Writing a blob: its head and its body as one needle, appended to the volume that its fid names.
//!
//! Invariants: nothing is appended before the whole body has come and its digest agrees; memory is reserved before bytes are
//! read; a fid that names other bytes already is never written again, and the same bytes again are the same success.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use futures::StreamExt;
use md5::{Digest as _, Md5};
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Fid, VolumeId};
use tokio::sync::OwnedSemaphorePermit;

use super::envelope::{HEAD_SIZE_MAX, Head, etag, set_checksum};
use super::{BLOB_WORD_LENGTH_MAX, BlobAddress, BlobError};
use crate::{ByteStream, Objects, StreamError};

/// Largest blob, in bytes: one needle, less its head.
pub const BLOB_SIZE_MAX: usize = NEEDLE_SIZE_MAX - HEAD_SIZE_MAX;
/// What a body of unknown length reserves at a time.
const RESERVE_STEP: usize = 1 << 20;
/// The longest that the append may take, a stalled disk included.
const APPEND_WAIT: Duration = Duration::from_secs(30);
/// The longest silence of a client in the middle of its body.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Up to here digesting costs less than handing it to another thread.
const DIGEST_INLINE_SIZE_MAX: usize = 64 << 10;

/// A blob to be.
pub struct PutBlob {
    pub address: BlobAddress,
    /// At most `BLOB_WORD_LENGTH_MAX` bytes each; empty for none.
    pub name: String,
    pub content_type: String,
    /// Now, without it.
    pub modified_unix_ms: Option<u64>,
    /// After so long the blob is unknown.
    pub lives_ms: Option<u64>,
    pub body: ByteStream,
    /// Bytes of the body, where they were announced.
    pub length: Option<u64>,
    /// The body has hardly more bytes than this, where its length is not known.
    pub size_hint: Option<u64>,
    pub content_md5: Option<[u8; 16]>,
    /// SHA-256 that the body must have, where its request was signed with one.
    pub sha256: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobOutcome {
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
}

/// Head and body in one buffer, and what they hold of the budget.
struct Gathered {
    bytes: BytesMut,
    permit: OwnedSemaphorePermit,
}

impl Objects {
    /// Stores a blob; durable on every copy that the volume's code demands in this datacenter on return.
    ///
    /// # Errors
    /// See `BlobError`. After `Unavailable` the same write may be repeated.
    pub async fn put_blob(&self, put: PutBlob) -> Result<BlobOutcome, BlobError> {
        let fid = self.assigned(put.address)?;
        let datacenter = fid.volume.datacenter();
        if datacenter != self.datacenter() {
            return Err(BlobError::OtherDatacenter { volume: fid.volume.get(), datacenter });
        }
        for (argument, word) in [("name", &put.name), ("Content-Type", &put.content_type)] {
            if word.len() > BLOB_WORD_LENGTH_MAX {
                let reason = format!("it has more than {BLOB_WORD_LENGTH_MAX} bytes");
                return Err(BlobError::InvalidArgument { argument, reason });
            }
        }
        let now = self.inner.now_unix_ms();
        let head = Head {
            modified_unix_ms: put.modified_unix_ms.unwrap_or(now),
            expires_unix_ms: put.lives_ms.map_or(0, |lives_ms| now.saturating_add(lives_ms)),
            checksum: 0,
            name: put.name,
            content_type: put.content_type,
        };
        let Gathered { mut bytes, permit } = self.gather(&head, put.body, (put.length, put.size_hint)).await?;
        let head_size = head.size();
        let checksum = Digest::new(CrcAlgorithm::Crc64Nvme);
        let checksum = {
            let mut digest = checksum;
            digest.update(&bytes[head_size..]);
            digest.finalize()
        };
        set_checksum(&mut bytes, checksum);
        let bytes = bytes.freeze();
        let data = bytes.slice(head_size..);
        check_digests(data, put.content_md5, put.sha256).await?;
        let outcome = BlobOutcome { size: (bytes.len() - head_size) as u64, etag: etag(checksum) };
        self.inner.remote.before_append().await;
        self.append(fid, bytes, permit, outcome).await
    }

    async fn append(
        &self,
        fid: Fid,
        bytes: Bytes,
        _permit: OwnedSemaphorePermit,
        outcome: BlobOutcome,
    ) -> Result<BlobOutcome, BlobError> {
        let append = self.inner.replicas.append(fid.volume, fid.key, fid.cookie, bytes);
        let error = match tokio::time::timeout(APPEND_WAIT, append).await {
            Ok(Ok(_)) => return Ok(outcome),
            Ok(Err(error)) if error.take_another() => {
                tracing::warn!(volume = %fid.volume, %error, "a blob's volume takes nothing more");
                self.inner.control.report_failed(fid.volume).await;
                return Err(no_more(fid.volume));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        // A write that was repeated, or a fid that was used twice: what is there decides.
        match self.open_needle(fid).await {
            Ok(known) if (known.info.size, &known.info.etag) == (outcome.size, &outcome.etag) => Ok(outcome),
            Ok(_) => Err(BlobError::Exists),
            Err(_) => {
                tracing::error!(volume = %fid.volume, error, "a blob was not appended");
                Err(BlobError::Unavailable("the bytes could not be stored; repeat the write".to_owned()))
            }
        }
    }

    /// Reads the body behind its head, as far as memory allows.
    async fn gather(
        &self,
        head: &Head,
        mut body: ByteStream,
        (length, size_hint): (Option<u64>, Option<u64>),
    ) -> Result<Gathered, BlobError> {
        let too_large = || BlobError::TooLarge { size_max: BLOB_SIZE_MAX };
        let head_size = head.size();
        let room = match length {
            Some(length) => usize::try_from(length).ok().filter(|room| *room <= BLOB_SIZE_MAX).ok_or_else(too_large)?,
            None => size_hint
                .and_then(|hint| usize::try_from(hint).ok())
                .map_or(RESERVE_STEP, |hint| hint.min(RESERVE_STEP)),
        };
        let mut permit = self.inner.reserve(head_size + room).await?;
        let mut bytes = BytesMut::with_capacity(head_size + room);
        bytes.extend_from_slice(&head.encode());
        loop {
            let piece = match tokio::time::timeout(BODY_SILENCE_MAX, body.next()).await {
                Ok(Some(piece)) => piece.map_err(BlobError::Body)?,
                Ok(None) => break,
                Err(_) => {
                    let reason = format!("no byte for {} s", BODY_SILENCE_MAX.as_secs());
                    return Err(BlobError::Body(StreamError::Client(reason)));
                }
            };
            let size = bytes.len() - head_size + piece.len();
            if size > BLOB_SIZE_MAX {
                return Err(too_large());
            }
            if let Some(expected) = length.filter(|length| size as u64 > *length) {
                return Err(BlobError::Incomplete { expected, received: size as u64 });
            }
            while permit.num_permits() < head_size + size {
                permit.merge(self.inner.reserve(RESERVE_STEP).await?);
            }
            bytes.extend_from_slice(&piece);
        }
        let received = (bytes.len() - head_size) as u64;
        match length {
            Some(expected) if received != expected => Err(BlobError::Incomplete { expected, received }),
            _ => Ok(Gathered { bytes, permit }),
        }
    }
}

fn no_more(volume: VolumeId) -> BlobError {
    BlobError::Unavailable(format!("volume {volume} takes nothing more: ask /dir/assign for another fid"))
}

async fn check_digests(data: Bytes, md5: Option<[u8; 16]>, sha256: Option<[u8; 32]>) -> Result<(), BlobError> {
    if md5.is_none() && sha256.is_none() {
        return Ok(());
    }
    let small = data.len() <= DIGEST_INLINE_SIZE_MAX;
    let agree = move || {
        md5.is_none_or(|expected| Md5::digest(&data).as_slice() == expected)
            && sha256.is_none_or(|expected| sha2::Sha256::digest(&data).as_slice() == expected)
    };
    let agree = if small { Ok(agree()) } else { tokio::task::spawn_blocking(agree).await };
    match agree {
        Ok(true) => Ok(()),
        Ok(false) => Err(BlobError::BadDigest),
        Err(error) => Err(BlobError::Unavailable(format!("digesting ended early: {error}"))),
    }
}
