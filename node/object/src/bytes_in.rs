//! A body on its way in: cut into chunks, each appended durable to a volume, hashed on the side.
//!
//! Knows nothing of rows: the chunks belong to nobody until their row is committed, and are discarded when it
//! provably is not (rule 11).
//!
//! Invariants: chunks are in the order of the body; at most `CHUNKS_IN_FLIGHT_MAX` of one body wait for their append;
//! each chunk's bytes are reserved in the budget before they are read; a body with a byte too few or too many fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use md5::{Digest, Md5};
use meridian_cipher::{ChunkPlace, DataKey};
use meridian_control::ControlError;
use meridian_index::ChunkRef;
use meridian_types::limits::CHUNK_SIZE_MAX;
use meridian_types::{Fid, ReplicaCode, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::objects::Inner;
use crate::{ByteStream, ObjectError, StreamError};

/// Chunks of one body that wait for their append while the next one is read.
const CHUNKS_IN_FLIGHT_MAX: usize = 2;
/// Volumes tried for one chunk before the write is given up.
const APPEND_ATTEMPTS_MAX: u32 = 4;
/// The longest that one append may take, a stalled disk included.
const APPEND_WAIT: Duration = Duration::from_secs(30);
/// The longest silence of a client in the middle of its body; it holds budget all the while.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Orphan chunks of one body that are deleted at a time: they share syncs.
const DELETES_IN_FLIGHT_MAX: usize = 16;
/// Up to here the one chunk of a body is appended by the request's own task: another one costs it more than it gains.
const APPEND_INLINE_SIZE_MAX: usize = 16 << 10;
/// Up to here hashing costs less than handing it to another thread.
const HASH_INLINE_SIZE_MAX: usize = 64 << 10;

/// A body that is durable and that no row names yet.
pub(crate) struct StoredBody {
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) chunks: UncommittedChunks,
}

/// Chunks that no row names. Dropped, they are deleted in the background.
pub(crate) struct UncommittedChunks {
    inner: Arc<Inner>,
    chunks: Vec<ChunkRef>,
    appends: VecDeque<Append>,
}

/// An append that is not settled.
enum Append {
    /// Runs beside the reading of the body.
    Beside(JoinHandle<Result<ChunkRef, ObjectError>>),
    /// Begins when it is waited for, and goes on in the background if nobody waits any more.
    Here(BoxFuture<'static, Result<ChunkRef, ObjectError>>),
}

impl Append {
    async fn end(&mut self) -> Result<ChunkRef, ObjectError> {
        match self {
            Append::Here(append) => append.await,
            Append::Beside(task) => match task.await {
                Ok(appended) => appended,
                Err(error) => Err(ObjectError::Storage(format!("an append ended early: {error}"))),
            },
        }
    }
}

impl UncommittedChunks {
    fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), chunks: Vec::new(), appends: VecDeque::new() }
    }

    /// Hands the chunks over to a proposal; from here on only a certain refusal makes them orphans (rule 11).
    pub(crate) fn release(mut self) -> Vec<ChunkRef> {
        assert!(self.appends.is_empty(), "a body is complete before its chunks are proposed");
        std::mem::take(&mut self.chunks)
    }

    async fn settle(&mut self, in_flight_max: usize) -> Result<(), ObjectError> {
        while self.appends.len() > in_flight_max {
            let append = self.appends.front_mut().expect("there are more than in_flight_max");
            let ended = append.end().await; // popped only after it: a dropped request leaves it to `drop`
            self.appends.pop_front();
            self.chunks.push(ended?);
        }
        Ok(())
    }
}

impl Drop for UncommittedChunks {
    fn drop(&mut self) {
        if self.chunks.is_empty() && self.appends.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (inner, mut chunks) = (Arc::clone(&self.inner), std::mem::take(&mut self.chunks));
        let appends = std::mem::take(&mut self.appends);
        runtime.spawn(async move {
            for mut append in appends {
                if let Ok(chunk) = append.end().await {
                    chunks.push(chunk);
                }
            }
            inner.delete_chunks(chunks).await;
        });
    }
}

/// The greatest stamp of some chunks: what the index leader must observe before it stamps their row (rule 13).
pub(crate) fn greatest_stamp(chunks: &[ChunkRef]) -> Timestamp {
    chunks.iter().map(|chunk| chunk.stamp).max().unwrap_or(Timestamp::ZERO)
}

/// How a body's chunks are encrypted.
#[derive(Clone)]
pub(crate) struct BodyCipher {
    pub(crate) key: Arc<DataKey>,
    /// Of a multipart upload; 0 elsewhere.
    pub(crate) part: u16,
}

impl BodyCipher {
    fn seal(&self, fid: Fid, index: u32, data: &[u8]) -> Bytes {
        let length = u32::try_from(data.len()).expect("a chunk is at most CHUNK_SIZE_MAX");
        Bytes::from(self.key.chunk(ChunkPlace { fid, part: self.part, index }, length).seal(data))
    }
}

/// Stores a body of `length` bytes (of any length when `None`), at most `size_max`; plain without a `cipher`.
///
/// # Errors
/// `EntityTooLarge`, `IncompleteBody`, `BodyTooLong`, `Body`, `Busy`, `Unavailable`: what was stored is discarded.
/// `InvalidArgument`, before a byte is taken: the client waits for a copy elsewhere, and the code keeps none.
pub(crate) async fn store_body(
    inner: &Arc<Inner>,
    code: ReplicaCode,
    body: ByteStream,
    length: Option<u64>,
    size_max: u64,
    cipher: Option<BodyCipher>,
) -> Result<StoredBody, ObjectError> {
    if let Some(size) = length.filter(|length| *length > size_max) {
        return Err(ObjectError::EntityTooLarge { size, size_max });
    }
    inner.check_copies(code.other_datacenters())?;
    let mut source = BodySource { body, rest: Bytes::new(), ended: false };
    let mut chunks = UncommittedChunks::new(inner);
    let mut hash = BodyHash::Ready(Md5::new());
    let mut size = 0u64;
    // A chunk is held twice while it is encrypted; what its tags take is left out of the account (0.02 %).
    let copies = if cipher.is_some() { 2 } else { 1 };
    let mut index = 0;
    loop {
        let left = length.map_or(CHUNK_SIZE_MAX as u64, |length| length - size);
        let wanted = usize::try_from(left).unwrap_or(CHUNK_SIZE_MAX).min(CHUNK_SIZE_MAX);
        if wanted == 0 {
            break;
        }
        let mut permit = inner.reserve(copies * wanted).await?;
        let data = source.take(wanted).await?;
        size += data.len() as u64;
        if size > size_max {
            return Err(ObjectError::EntityTooLarge { size, size_max });
        }
        if data.is_empty() {
            break;
        }
        drop(permit.split(copies * (wanted - data.len()))); // only a body of unknown length reserves more than it has
        let permit = Arc::new(permit);
        chunks.settle(CHUNKS_IN_FLIGHT_MAX - 1).await?;
        let sealed = cipher.clone().map(|cipher| (cipher, index));
        let append = append_chunk(Arc::clone(inner), code, data.clone(), sealed, permit.clone());
        let is_all = length == Some(size) && index == 0 && data.len() <= APPEND_INLINE_SIZE_MAX;
        chunks.appends.push_back(match is_all {
            true => Append::Here(append.boxed()),
            false => Append::Beside(tokio::spawn(append)),
        });
        index += 1;
        hash = hash.update(data, permit).await?;
        if source.ended && source.rest.is_empty() {
            break;
        }
    }
    if let Some(expected) = length {
        if size < expected {
            return Err(ObjectError::IncompleteBody { expected, received: size });
        }
        // The end must be seen too: checksums in trailers are verified by the stream only there.
        if !source.take(1).await?.is_empty() {
            return Err(ObjectError::BodyTooLong { expected });
        }
    }
    let md5 = hash.finish().await?;
    chunks.settle(0).await?;
    Ok(StoredBody { size, md5, chunks })
}

/// The body as pieces of the size that is asked for.
struct BodySource {
    body: ByteStream,
    rest: Bytes,
    ended: bool,
}

impl BodySource {
    /// Up to `size` bytes; fewer only at the end of the body.
    async fn take(&mut self, size: usize) -> Result<Bytes, ObjectError> {
        if self.rest.is_empty() {
            self.rest = self.next().await?;
        }
        if self.rest.len() >= size || self.ended {
            let size = size.min(self.rest.len());
            return Ok(self.rest.split_to(size));
        }
        let mut gathered = BytesMut::with_capacity(size.min(CHUNK_SIZE_MAX));
        while gathered.len() < size {
            if self.rest.is_empty() {
                self.rest = self.next().await?;
                if self.rest.is_empty() {
                    break;
                }
            }
            let size = (size - gathered.len()).min(self.rest.len());
            gathered.extend_from_slice(&self.rest.split_to(size));
        }
        Ok(gathered.freeze())
    }

    /// The next piece that is not empty; empty at the end.
    async fn next(&mut self) -> Result<Bytes, ObjectError> {
        while !self.ended {
            match tokio::time::timeout(BODY_SILENCE_MAX, self.body.next()).await {
                Ok(Some(Ok(piece))) if piece.is_empty() => {}
                Ok(Some(Ok(piece))) => return Ok(piece),
                Ok(Some(Err(error))) => return Err(ObjectError::Body(error)),
                Ok(None) => self.ended = true,
                Err(_) => {
                    let reason = format!("no byte for {} s", BODY_SILENCE_MAX.as_secs());
                    return Err(ObjectError::Body(StreamError::Client(reason)));
                }
            }
        }
        Ok(Bytes::new())
    }
}

/// MD5 of the body so far, perhaps still being computed on another thread while the chunk is appended.
enum BodyHash {
    Ready(Md5),
    Running(JoinHandle<Md5>),
}

impl BodyHash {
    async fn ready(self) -> Result<Md5, ObjectError> {
        match self {
            BodyHash::Ready(hasher) => Ok(hasher),
            BodyHash::Running(task) => {
                task.await.map_err(|error| ObjectError::Storage(format!("hashing ended early: {error}")))
            }
        }
    }

    /// `permit` covers the bytes until they are hashed.
    async fn update(self, data: Bytes, permit: Arc<OwnedSemaphorePermit>) -> Result<BodyHash, ObjectError> {
        let mut hasher = self.ready().await?;
        if data.len() <= HASH_INLINE_SIZE_MAX {
            hasher.update(&data);
            return Ok(BodyHash::Ready(hasher));
        }
        Ok(BodyHash::Running(tokio::task::spawn_blocking(move || {
            hasher.update(&data);
            drop((data, permit));
            hasher
        })))
    }

    async fn finish(self) -> Result<[u8; 16], ObjectError> {
        Ok(self.ready().await?.finalize().into())
    }
}

/// Appends one chunk, taking another volume whenever one can't have it: a bounded number of times. It is encrypted anew for
/// each needle, whose name is part of its key.
async fn append_chunk(
    inner: Arc<Inner>,
    code: ReplicaCode,
    data: Bytes,
    cipher: Option<(BodyCipher, u32)>,
    _permit: Arc<OwnedSemaphorePermit>,
) -> Result<ChunkRef, ObjectError> {
    inner.remote.before_append().await;
    for _ in 0..APPEND_ATTEMPTS_MAX {
        let volume = inner.control.lease_volume(code).await.map_err(control_error)?;
        let fid = inner.control.next_fid(volume).await.map_err(control_error)?;
        let stored = match &cipher {
            Some((cipher, index)) => cipher.seal(fid, *index, &data),
            None => data.clone(),
        };
        let length = u32::try_from(stored.len()).expect("a chunk is at most CHUNK_SIZE_MAX and its tags");
        let append = inner.replicas.append(volume, fid.key, fid.cookie, stored);
        match tokio::time::timeout(APPEND_WAIT, append).await {
            Ok(Ok(appended)) => {
                return Ok(ChunkRef { fid, length, end_offset: appended.end_offset, stamp: appended.stamp });
            }
            Ok(Err(error)) if error.take_another() => {
                tracing::warn!(%volume, %error, "an append failed; taking another volume");
            }
            // The client hears that, not which file of which disk it was.
            Ok(Err(error)) => {
                tracing::error!(%volume, %error, "an append failed");
                let reason = error.no_stamp().map(|error| format!("the bytes could not be stored: {error}"));
                return Err(ObjectError::unavailable(
                    reason.unwrap_or_else(|| "the bytes could not be stored".to_owned()),
                ));
            }
            Err(_) => {
                tracing::warn!(%volume, "an append takes too long; taking another volume");
            }
        }
        inner.control.report_failed(volume).await;
    }
    Err(ObjectError::unavailable("the bytes could not be stored"))
}

fn control_error(error: ControlError) -> ObjectError {
    match error {
        // Says what is missing; asking again does not help until the bucket's code or the machines change (rule 24).
        ControlError::Placement(error) => {
            ObjectError::InvalidArgument { argument: "replication", reason: error.to_string() }
        }
        ControlError::NoWritableVolume { code, reason } => {
            ObjectError::unavailable(format!("no volume of code {code} takes bytes now: {reason}"))
        }
        error => {
            tracing::error!(%error, "no volume for the bytes");
            ObjectError::unavailable("no volume takes bytes now")
        }
    }
}

impl Inner {
    /// Deletes chunks that no row names or will name, in the background: nobody waits for it.
    pub(crate) fn discard(self: &Arc<Self>, chunks: Vec<ChunkRef>) {
        let inner = Arc::clone(self);
        tokio::spawn(async move { inner.delete_chunks(chunks).await });
    }

    /// What fails here is left to a later check of the store.
    async fn delete_chunks(&self, chunks: Vec<ChunkRef>) {
        let deletes = chunks.into_iter().map(|chunk| async move {
            match self.replicas.delete(chunk.fid).await {
                Ok(()) => {}
                Err(error) if error.is_no_such_needle() => {}
                Err(error) => tracing::debug!(fid = ?chunk.fid, %error, "an orphan chunk stays"),
            }
        });
        stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT_MAX).collect::<()>().await;
    }
}
