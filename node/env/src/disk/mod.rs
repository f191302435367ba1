//! Files of a node behind a trait: positioned reads and writes, syncs, directories.
//!
//! `RealDisk` is the machine's file system, `FaultDisk` adds chosen errors to any other disk, `SimulatedDisk` keeps
//! everything in memory and forgets what was not synced when its power is cut. This layer knows nothing of formats
//! and does not retry; a `Disk` stands for one failure domain (one directory tree on one device).
//!
//! Invariants:
//! - After a failed sync, or a failed write that is not for want of space, the whole disk is failed: every later write,
//!   sync, truncate, rename, create and remove answers `DiskError::Failed`, for good (rule 6). Reads go on, because
//!   every format above is checksummed.
//! - A read is short only at the end of the file.
//! - Nothing is durable before `sync_data`, and no name before `sync_directory`.

mod fault;
mod poison;
mod real;
mod simulated;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use fault::{Fault, FaultDisk};
pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// Why a file operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{act} {}: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("{act} {}: the disk has failed before: {reason}", path.display())]
    Failed { act: &'static str, path: PathBuf, reason: String },
}

impl DiskError {
    pub(crate) fn io(act: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { act, path: path.to_owned(), source: source.into() }
    }

    /// The file system or the quota is full. Such a write does not fail the disk.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// One failure domain of files. Paths are absolute or relative to the process, as the caller likes.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Makes a new, empty file; its name is durable after `sync_directory`.
    ///
    /// # Errors
    /// `Io` when it exists already.
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `Io`, for which `is_not_found` may hold.
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Makes a directory and those above it; one that exists is no error.
    fn create_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError>;

    /// Renames atomically, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Removes a file; one that does not exist is no error.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Makes the names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> Result<(), DiskError>;

    /// Why the disk has failed, when it has.
    fn failed(&self) -> Option<String>;
}

/// An open file. Shared by reference: each call carries its own offset.
pub trait DiskFile: Send + Sync + Debug + 'static {
    /// Length in bytes.
    fn length(&self) -> Result<u64, DiskError>;

    /// Fills `buffer` from `offset`; returns how many bytes there were before the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError>;

    /// Appends up to `size` bytes from `offset` to `buffer`; returns how many there were before the end of the file. For
    /// what is large: nobody has to clear the memory first.
    fn append_at(&self, buffer: &mut Vec<u8>, size: usize, offset: u64) -> Result<usize, DiskError> {
        let start = buffer.len();
        buffer.resize(start + size, 0);
        let read = self.read_at(&mut buffer[start..], offset)?;
        buffer.truncate(start + read);
        Ok(read)
    }

    /// Fills `buffer` if that needs no waiting for the device; false leaves the buffer undefined.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, DiskError>;

    /// Writes all pieces one behind the other, from `offset`. After an error any part of them may be in the file.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError>;

    /// Makes every earlier write and truncate of this file durable, its length included. Never retried (rule 6).
    fn sync_data(&self) -> Result<(), DiskError>;

    /// Cuts or extends with zeros.
    fn truncate(&self, length: u64) -> Result<(), DiskError>;
}

/// Replaces the file at `path` by `content`, atomically and durably.
///
/// The order is what makes it safe: the new content is synced under another name before the rename, and the rename
/// before this returns, so that a crash leaves the whole old file or the whole new one.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    disk.remove(&draft)?; // left behind by a crash
    let file = disk.create(&draft)?;
    file.write_at(&[IoSlice::new(content)], 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&draft, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => disk.sync_directory(directory),
        _ => disk.sync_directory(Path::new(".")),
    }
}

/// The whole content of a small file.
pub fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path)?;
    let mut content = vec![0; file.length()? as usize];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}
