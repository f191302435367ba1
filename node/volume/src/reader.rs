//! Reads needles and raw bytes of a volume.
//!
//! A small read is tried in place, for from the page cache it takes a microsecond; what would have to wait for the device,
//! and every large read, goes to a blocking thread.
//!
//! Invariants: bytes of a needle leave only after their checksum passed; nothing behind the committed length is read
//! (rule 2); a wrong cookie looks like no needle.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use meridian_env::DiskError;
use meridian_types::Fid;

use crate::index::Place;
use crate::needle::{BLOCK_SIZE, NeedleHeader, front_size, span, table_size, verify_blocks, verify_front};
use crate::volume::Volume;
use crate::{DamagedRange, VolumeError};

/// Largest read that is tried on the caller's thread, in bytes.
const INLINE_READ_SIZE_MAX: u64 = 256 << 10;

/// Reads as many bytes as are asked for from an offset; `None` when that would have to wait, or when there are not so many.
type Read<'a> = &'a dyn Fn(usize, u64) -> Result<Option<Vec<u8>>, DiskError>;

/// One read of a needle's data.
#[derive(Debug, Clone)]
struct NeedleRead {
    fid: Fid,
    place: Place,
    range: Range<u32>,
}

/// The data `range` of a needle.
pub(crate) async fn read(volume: Arc<Volume>, fid: Fid, range: Range<u32>) -> Result<Bytes, VolumeError> {
    let place = volume.find(fid)?;
    if range.start > range.end || range.end > place.length {
        let Range { start, end } = range;
        let checked = volume.clone();
        blocking(move || size(&checked, fid)).await?; // the size is for those who know the cookie
        return Err(VolumeError::RangeOutside { start, end, size: place.length });
    }
    let read = NeedleRead { fid, place, range };
    if read.cost() <= INLINE_READ_SIZE_MAX {
        let inline = |size, offset| {
            let mut buffer = vec![0; size];
            Ok(volume.data.read_cached_at(&mut buffer, offset)?.then_some(buffer))
        };
        if let Some(bytes) = read.run(&volume, &inline)? {
            return Ok(bytes);
        }
    }
    blocking(move || read.run_blocking(&volume)).await
}

/// The first bytes of a needle's data, at most `size_max` of them, and how many it has.
pub(crate) async fn read_prefix(volume: Arc<Volume>, fid: Fid, size_max: u32) -> Result<(Bytes, u32), VolumeError> {
    let length = volume.find(fid)?.length;
    let bytes = read(volume, fid, 0..length.min(size_max)).await?;
    Ok((bytes, length))
}

/// The size of a needle's data, once its cookie is checked. May wait for the device.
pub(crate) fn size(volume: &Volume, fid: Fid) -> Result<u32, VolumeError> {
    let place = volume.find(fid)?;
    NeedleRead { fid, place, range: 0..0 }.run_blocking(volume)?;
    Ok(place.length)
}

/// Where a needle is, once its cookie is checked. May wait for the device.
pub(crate) fn locate(volume: &Volume, fid: Fid) -> Result<u64, VolumeError> {
    size(volume, fid)?;
    Ok(volume.find(fid)?.offset())
}

/// Bytes of the volume file, as they are: whoever takes them verifies them. Fewer than asked for at the committed end.
pub(crate) async fn read_raw(volume: Arc<Volume>, offset: u64, size_max: usize) -> Result<Bytes, VolumeError> {
    let committed = volume.committed();
    if offset > committed {
        return Err(VolumeError::Gap { volume: volume.id(), offset, committed });
    }
    let size = (size_max as u64).min(committed - offset);
    if size <= INLINE_READ_SIZE_MAX {
        let mut buffer = vec![0; size as usize];
        if volume.data.read_cached_at(&mut buffer, offset)? {
            return Ok(buffer.into());
        }
    }
    blocking(move || {
        let mut buffer = Vec::new();
        volume.data.append_at(&mut buffer, size as usize, offset)?;
        Ok(buffer.into())
    })
    .await
}

/// Runs what waits for the device on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(VolumeError::ShuttingDown), // the runtime ends
    }
}

impl NeedleRead {
    /// Bytes to read from the file.
    fn cost(&self) -> u64 {
        match table_size(self.place.length) {
            0 => span(self.place.length),
            _ => (front_size(self.place.length) + self.blocks().len() * BLOCK_SIZE) as u64,
        }
    }

    /// The blocks that hold the range.
    fn blocks(&self) -> Range<usize> {
        if self.range.is_empty() {
            return 0..0;
        }
        self.range.start as usize / BLOCK_SIZE..(self.range.end as usize).div_ceil(BLOCK_SIZE)
    }

    fn run_blocking(&self, volume: &Volume) -> Result<Bytes, VolumeError> {
        let read = |size, offset| {
            let mut buffer = Vec::new();
            Ok((volume.data.append_at(&mut buffer, size, offset)? == size).then_some(buffer))
        };
        // A file that ends inside a committed needle has lost bytes.
        self.run(volume, &read)?.ok_or_else(|| self.corrupt(volume))
    }

    /// `None` when `read` gives nothing.
    fn run(&self, volume: &Volume, read: Read<'_>) -> Result<Option<Bytes>, VolumeError> {
        let length = self.place.length as usize;
        let front_size = front_size(self.place.length);
        let range = self.range.start as usize..self.range.end as usize;
        if table_size(self.place.length) == 0 {
            let Some(whole) = read(front_size + length, self.place.offset())? else { return Ok(None) };
            self.check_front(volume, &whole)?;
            return Ok(Some(Bytes::from(whole).slice(front_size + range.start..front_size + range.end)));
        }
        let blocks = self.blocks();
        let data = blocks.start * BLOCK_SIZE..(blocks.end * BLOCK_SIZE).min(length);
        let data_offset = self.place.offset() + (front_size + data.start) as u64;
        let Some(front) = read(front_size, self.place.offset())? else { return Ok(None) };
        let Some(bytes) = read(data.len(), data_offset)? else { return Ok(None) };
        self.check_front(volume, &front)?;
        verify_blocks(&front, blocks.start, &bytes).map_err(|_| self.corrupt(volume))?;
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        Ok(Some(Bytes::from(bytes).slice(range.start - data.start..range.end - data.start)))
    }

    fn check_front(&self, volume: &Volume, bytes: &[u8]) -> Result<(), VolumeError> {
        let header: NeedleHeader =
            verify_front(volume.identity, self.place.offset(), bytes).map_err(|_| self.corrupt(volume))?;
        if (header.key, header.length) != (self.fid.key, self.place.length) {
            return Err(self.corrupt(volume)); // the index is wrong: say so rather than serve another needle
        }
        if header.cookie != self.fid.cookie {
            return Err(VolumeError::NoSuchNeedle(self.fid));
        }
        Ok(())
    }

    fn corrupt(&self, volume: &Volume) -> VolumeError {
        let offset = self.place.offset();
        volume.note_damage(DamagedRange { offset, length: span(self.place.length), key: Some(self.fid.key) });
        VolumeError::CorruptNeedle { volume: volume.id(), offset }
    }
}
