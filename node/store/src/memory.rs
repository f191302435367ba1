//! The memory that all stores of one process share.
//!
//! `meridian dev` runs a whole cluster in one process: without one budget each store would take its own.

use rocksdb::{Cache, WriteBufferManager};

/// One block cache and one write buffer budget. Cheap to clone.
#[derive(Clone)]
pub struct SharedMemory {
    pub(crate) cache: Cache,
    pub(crate) buffers: WriteBufferManager,
}

impl SharedMemory {
    /// `cache_bytes` for blocks read from disk, `write_buffer_bytes` for rows not yet flushed to tables. Both are
    /// soft: a write is never stalled because another store of the process is busy.
    pub fn new(cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(cache_bytes),
            buffers: WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false),
        }
    }

    /// Bytes of blocks in the cache and of rows in write buffers.
    pub fn used_bytes(&self) -> usize {
        self.cache.get_usage() + self.buffers.get_usage()
    }
}
