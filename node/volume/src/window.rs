//! Reads a file from front to back in large pieces, handing out small ones.

use std::sync::Arc;

use meridian_env::{DiskError, DiskFile};

/// Least bytes of one read.
const READ_SIZE: usize = 1 << 20;

/// A file's bytes up to `end`, of which one stretch is in memory.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Nothing at or behind `end` is handed out.
    pub(crate) fn new(file: Arc<dyn DiskFile>, end: u64) -> Self {
        Self { file, end, start: 0, bytes: Vec::new() }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// `size` bytes from `offset`, fewer only at the end.
    pub(crate) fn get(&mut self, offset: u64, size: usize) -> Result<&[u8], DiskError> {
        let size = size.min(usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX));
        let inside = offset >= self.start && offset + size as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            let wanted = (size.max(READ_SIZE) as u64).min(self.end.saturating_sub(offset)) as usize;
            self.bytes.resize(wanted, 0);
            self.start = offset;
            let read = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(read);
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + size)])
    }
}
