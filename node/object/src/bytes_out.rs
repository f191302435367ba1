//! Stored bytes on their way out: piece by piece, one piece read ahead, verified before they leave.
//!
//! Invariants: a stream delivers exactly the bytes of its range or ends with an error (promise 8); a piece's bytes
//! count in the budget until the last reader has dropped them; a piece that is only read ahead never waits for budget.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use meridian_cipher::{BLOCK_SIZE, ChunkPlace, DataKey, Window, plain_length, window};
use meridian_index::{ChunkRef, PartSize};
use meridian_types::Fid;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::objects::Inner;
use crate::{ByteStream, ObjectError, RemoteError, StreamError};

/// Piece of a chunk that is here: slow readers hold two of them.
const LOCAL_PIECE_SIZE_MAX: u32 = 1 << 20;
/// The longest that another datacenter may take for one piece.
const REMOTE_WAIT: Duration = Duration::from_secs(30);

/// An object's bytes: its chunks, and its data key if they are encrypted.
pub(crate) struct Source<'a> {
    pub(crate) chunks: &'a [ChunkRef],
    /// Of a multipart object; a chunk's place counts from the start of its part.
    pub(crate) parts: &'a [PartSize],
    pub(crate) key: Option<Arc<DataKey>>,
}

/// Some bytes of one needle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    fid: Fid,
    /// Of the needle's data, as it is stored.
    range: Range<u32>,
    sealed: Option<SealedPiece>,
}

/// What opens an encrypted piece.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SealedPiece {
    place: ChunkPlace,
    /// Plain bytes of the whole chunk.
    chunk_length: u32,
    window: Window,
}

impl Piece {
    fn size(&self) -> usize {
        self.range.len()
    }
}

/// Opens `range` of an object. The first piece is read here, so that bytes which can't be had are an error
/// of the request and not of its body.
pub(crate) async fn open_stream(
    inner: &Arc<Inner>,
    source: &Source<'_>,
    range: Range<u64>,
) -> Result<ByteStream, ObjectError> {
    let mut pieces = pieces_of(source, &range, |chunk| inner.piece_size(chunk))?;
    let key = source.key.clone();
    let Some(first) = pieces.pop_front() else { return Ok(stream::empty().boxed()) };
    let permit = inner.reserve(first.size()).await?;
    let first = inner.read_piece(first, key.as_deref(), permit).await?;
    if pieces.is_empty() {
        return Ok(stream::once(async move { Ok(first) }).boxed());
    }
    let ahead = read_ahead(inner, &key, &mut pieces);
    let rest = Rest { inner: Arc::clone(inner), key, pieces, ahead };
    Ok(stream::once(async move { Ok(first) }).chain(stream::unfold(Some(rest), next_piece)).boxed())
}

/// What a running stream has still to deliver.
struct Rest {
    inner: Arc<Inner>,
    key: Option<Arc<DataKey>>,
    pieces: VecDeque<Piece>,
    ahead: Option<JoinHandle<Result<Bytes, ObjectError>>>,
}

async fn next_piece(rest: Option<Rest>) -> Option<(Result<Bytes, StreamError>, Option<Rest>)> {
    let mut rest = rest?;
    let read = match rest.ahead.take() {
        Some(task) => match task.await {
            Ok(read) => read,
            Err(error) => Err(ObjectError::Storage(format!("a read ended early: {error}"))),
        },
        None => {
            let piece = rest.pieces.pop_front()?;
            match rest.inner.reserve(piece.size()).await {
                Ok(permit) => rest.inner.read_piece(piece, rest.key.as_deref(), permit).await,
                Err(error) => Err(error),
            }
        }
    };
    match read {
        Ok(bytes) => {
            rest.ahead = read_ahead(&rest.inner, &rest.key, &mut rest.pieces);
            Some((Ok(bytes), Some(rest)))
        }
        Err(error) => {
            tracing::warn!(%error, "a read broke off in the middle of an answer");
            Some((Err(StreamError::Storage(error.to_string())), None))
        }
    }
}

/// Starts to read the next piece if there is budget for it right now.
fn read_ahead(
    inner: &Arc<Inner>,
    key: &Option<Arc<DataKey>>,
    pieces: &mut VecDeque<Piece>,
) -> Option<JoinHandle<Result<Bytes, ObjectError>>> {
    let permit = inner.try_reserve(pieces.front()?.size())?;
    let piece = pieces.pop_front()?;
    let (inner, key) = (Arc::clone(inner), key.clone());
    Some(tokio::spawn(async move { inner.read_piece(piece, key.as_deref(), permit).await }))
}

/// Cuts `range` of the object into pieces of its chunks, each at most as large as `size_max` says for its chunk. A piece of an
/// encrypted chunk ends with a block, so that no block is read twice.
fn pieces_of(
    source: &Source<'_>,
    range: &Range<u64>,
    size_max: impl Fn(&ChunkRef) -> u32,
) -> Result<VecDeque<Piece>, ObjectError> {
    let mut pieces = VecDeque::new();
    let mut places = Places::new(source.parts);
    let mut start = 0u64;
    for chunk in source.chunks {
        let length = match &source.key {
            None => chunk.length,
            Some(_) => plain_length(chunk.length).ok_or_else(|| damaged("an encrypted chunk has no length"))?,
        };
        let (part, index) = places.next(start);
        let end = start + u64::from(length);
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            let step = size_max(chunk).max(1);
            // Both lie within the chunk, whose length is a u32.
            let (mut from, to) = ((from - start) as u32, (to - start) as u32);
            while from < to {
                let next = match source.key {
                    None => from.saturating_add(step).min(to),
                    Some(_) => end_of_blocks(from, step).min(to),
                };
                pieces.push_back(match source.key {
                    None => Piece { fid: chunk.fid, range: from..next, sealed: None },
                    Some(_) => sealed_piece(ChunkPlace { fid: chunk.fid, part, index }, from..next, length)?,
                });
                from = next;
            }
        }
        start = end;
    }
    if range.end > start {
        // Never a short answer: the row promises more bytes than its chunks hold.
        return Err(ObjectError::Storage(format!("the row has chunks for {start} bytes, {} are needed", range.end)));
    }
    Ok(pieces)
}

/// The end of the blocks that `from` and at least some of the next `step` bytes lie in.
fn end_of_blocks(from: u32, step: u32) -> u32 {
    let blocks = (step / BLOCK_SIZE).max(1);
    (from / BLOCK_SIZE).saturating_add(blocks).saturating_mul(BLOCK_SIZE)
}

fn sealed_piece(place: ChunkPlace, range: Range<u32>, chunk_length: u32) -> Result<Piece, ObjectError> {
    let window = window(range, chunk_length).ok_or_else(|| damaged("a range lies outside of its chunk"))?;
    let (fid, range) = (place.fid, window.stored.clone());
    Ok(Piece { fid, range, sealed: Some(SealedPiece { place, chunk_length, window }) })
}

fn damaged(what: &str) -> ObjectError {
    ObjectError::Storage(what.to_owned())
}

/// Tells the part of each chunk, and its number in the part, as they were when the chunk was encrypted.
struct Places<'a> {
    parts: std::slice::Iter<'a, PartSize>,
    part: u16,
    part_end: u64,
    index: u32,
}

impl<'a> Places<'a> {
    fn new(parts: &'a [PartSize]) -> Self {
        let whole = if parts.is_empty() { u64::MAX } else { 0 };
        Self { parts: parts.iter(), part: 0, part_end: whole, index: 0 }
    }

    /// The place of the chunk that begins at `start`; chunks are asked for in order.
    fn next(&mut self, start: u64) -> (u16, u32) {
        while start >= self.part_end
            && let Some(part) = self.parts.next()
        {
            self.part = part.number;
            self.part_end += part.size;
            self.index = 0;
        }
        let place = (self.part, self.index);
        self.index += 1;
        place
    }
}

/// Bytes together with their place in the budget.
struct Reserved {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl SealedPiece {
    fn open(&self, key: &DataKey, stored: &[u8]) -> Result<Vec<u8>, ObjectError> {
        let cipher = key.chunk(self.place, self.chunk_length);
        cipher.open(&self.window, stored).map_err(|error| ObjectError::Storage(error.to_string()))
    }
}

impl Inner {
    /// Small pieces of what is here; whole chunks of what must be fetched, since each costs a round trip.
    fn piece_size(&self, chunk: &ChunkRef) -> u32 {
        if self.replicas.is_here(chunk.fid.volume, chunk.end_offset) { LOCAL_PIECE_SIZE_MAX } else { chunk.length }
    }

    /// Reads a piece from a replica or mirror of this datacenter, else from another datacenter.
    async fn read_piece(
        &self,
        piece: Piece,
        key: Option<&DataKey>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Bytes, ObjectError> {
        let size = piece.size();
        let bytes = match self.replicas.read(piece.fid, piece.range.clone()).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // Not here yet, or damaged here: another copy has it or the client gets an error (promise 8).
                tracing::debug!(fid = ?piece.fid, %error, "asking another datacenter for bytes");
                self.fetch_piece(&piece).await?
            }
        };
        if bytes.len() != size {
            return Err(ObjectError::Storage(format!("{} bytes of {:?} where {size} are due", bytes.len(), piece.fid)));
        }
        let bytes = match (&piece.sealed, key) {
            (None, _) => bytes,
            (Some(sealed), Some(key)) => Bytes::from(sealed.open(key, &bytes)?),
            (Some(_), None) => return Err(damaged("encrypted bytes without a key")),
        };
        Ok(Bytes::from_owner(Reserved { bytes, _permit: permit }))
    }

    async fn fetch_piece(&self, piece: &Piece) -> Result<Bytes, ObjectError> {
        match tokio::time::timeout(REMOTE_WAIT, self.remote.fetch(piece.fid, piece.range.clone())).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error @ (RemoteError::Unreachable { .. } | RemoteError::NotFound { .. }))) => {
                Err(ObjectError::unavailable(format!("the object's bytes are not here: {error}")))
            }
            Err(_) => {
                let datacenter = piece.fid.volume.datacenter();
                let reason = format!("the object's bytes are not here, and datacenter {datacenter} is too slow");
                Err(ObjectError::unavailable(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_cipher::stored_length;
    use meridian_types::{Cookie, DatacenterId, NeedleKey, Timestamp, VolumeId};

    fn chunk(key: u64, length: u32) -> ChunkRef {
        let volume = VolumeId::new(1, DatacenterId::new(1).unwrap()).unwrap();
        let fid = Fid { volume, key: NeedleKey(key), cookie: Cookie(1) };
        ChunkRef { fid, length, end_offset: 0, stamp: Timestamp::ZERO }
    }

    fn plain(chunks: &[ChunkRef]) -> Source<'_> {
        Source { chunks, parts: &[], key: None }
    }

    fn cut(range: Range<u64>, step: u32) -> Vec<(u64, Range<u32>)> {
        let chunks = [chunk(1, 10), chunk(2, 10), chunk(3, 5)];
        let pieces = pieces_of(&plain(&chunks), &range, |_| step).unwrap();
        pieces.into_iter().map(|piece| (piece.fid.key.0, piece.range)).collect()
    }

    #[test]
    fn a_range_is_cut_at_chunks_and_pieces() {
        assert_eq!(cut(0..25, 100), vec![(1, 0..10), (2, 0..10), (3, 0..5)]);
        assert_eq!(cut(9..11, 100), vec![(1, 9..10), (2, 0..1)]);
        assert_eq!(cut(10..20, 4), vec![(2, 0..4), (2, 4..8), (2, 8..10)]);
        assert_eq!(cut(24..25, 4), vec![(3, 4..5)]);
        assert_eq!(cut(7..7, 4), vec![]);
    }

    #[test]
    fn every_range_is_covered_exactly() {
        for step in [1, 3, 10, 100] {
            for start in 0..25 {
                for end in start..=25 {
                    let total: usize = cut(start..end, step).iter().map(|(_, range)| range.len()).sum();
                    assert_eq!(total as u64, end - start);
                }
            }
        }
    }

    #[test]
    fn a_row_with_too_few_chunks_is_damage_and_not_a_short_answer() {
        let short = pieces_of(&plain(&[chunk(1, 10)]), &(0..11), |_| 100);
        assert!(matches!(short, Err(ObjectError::Storage(_))));
    }

    fn part(number: u16, size: u64) -> PartSize {
        PartSize { number, size, checksum: None }
    }

    #[test]
    fn encrypted_pieces_are_whole_blocks_in_their_places() {
        let stored = |plain| stored_length(plain).unwrap();
        let chunks = [chunk(1, stored(3 * BLOCK_SIZE)), chunk(2, stored(5)), chunk(3, stored(7)), chunk(4, stored(1))];
        let sizes = [part(2, 3 * u64::from(BLOCK_SIZE) + 5), part(3, 0), part(9, 7), part(11, 1)];
        let key = Some(Arc::new(DataKey::new([1; 32])));
        let source = Source { chunks: &chunks, parts: &sizes, key };
        let size = 3 * u64::from(BLOCK_SIZE) + 13;
        let pieces = pieces_of(&source, &(1..size), |_| 2 * BLOCK_SIZE + 9).unwrap();
        let found: Vec<_> = pieces
            .iter()
            .map(|piece| {
                let sealed = piece.sealed.as_ref().unwrap();
                (sealed.place.part, sealed.place.index, sealed.window.first_block, sealed.window.take)
            })
            .collect();
        let expected =
            [(2, 0, 0, 2 * BLOCK_SIZE - 1), (2, 0, 2, BLOCK_SIZE), (2, 1, 0, 5), (9, 0, 0, 7), (11, 0, 0, 1)];
        assert_eq!(found, expected);
        for start in [0, 1, 70_000, size - 9, size - 1] {
            for step in [1, BLOCK_SIZE, 1 << 20] {
                let pieces = pieces_of(&source, &(start..size), |_| step).unwrap();
                let taken: u64 = pieces.iter().map(|it| u64::from(it.sealed.as_ref().unwrap().window.take)).sum();
                assert_eq!(taken, size - start);
            }
        }
        let odd = Source { chunks: &[chunk(1, 16)], parts: &[], key: source.key.clone() };
        assert!(matches!(pieces_of(&odd, &(0..1), |_| 100), Err(ObjectError::Storage(_))));
    }
}
