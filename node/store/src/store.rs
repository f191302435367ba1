//! The store of a node: open, write, sync, look.
//!
//! Invariants: a write is atomic and visible when it returns, and durable when a `sync` that was asked for afterwards
//! says so; writes become durable in the order in which they were made, for all groups are in one WAL.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use meridian_index::kv::{Visit, WriteSet};
use parking_lot::Mutex;
use rocksdb::DB;

use crate::batch::{Batch, Column};
use crate::engine::Engine;
use crate::flusher::Flusher;
use crate::wal::{self, SyncMark};
use crate::{GroupId, GroupView, Installation, LiveView, SharedMemory, StoreError, engine, options, scan};

const FORMAT_ROW: &[u8] = b"format";
const FORMAT: &str = "meridian store 1";

/// Called before each sync; an `Err` counts as a sync that failed. For tests that inject disk faults.
pub type SyncHook = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The one store of a node. Cheap to clone; closed when the last clone and the last view are gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// Declared first: the flusher ends, and syncs a last time, before the database closes.
    flusher: Flusher,
    engine: Arc<Engine>,
    installing: Arc<Mutex<HashSet<GroupId>>>,
}

/// Holds a group's place among the running installations.
pub(crate) struct Installing {
    running: Arc<Mutex<HashSet<GroupId>>>,
    group: GroupId,
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.running.lock().remove(&self.group);
    }
}

/// Figures for metrics, as of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    pub state_bytes_on_disk: u64,
    pub log_bytes_on_disk: u64,
    /// Rows not yet in a table file.
    pub buffered_bytes: u64,
    /// Views that are alive: each keeps overwritten rows on disk.
    pub views: u64,
    pub failed: bool,
}

impl Store {
    /// Opens the store in the directory `path`, or makes it. A torn end of the WAL is cut; anything else that does not
    /// read back is an error, and the files are left as they are.
    ///
    /// # Errors
    /// `StoreError::WalDamaged` for damage that is no torn end (rule 8), `StoreError::Rocks` for what RocksDB finds.
    pub fn open(path: &Path, memory: &SharedMemory) -> Result<Self, StoreError> {
        Self::open_with(path, memory, None)
    }

    /// `open` with a hook into each sync.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(path: &Path, memory: &SharedMemory, hook: Option<SyncHook>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(StoreError::file("create", path))?;
        wal::check_and_cut(path)?;
        let database = DB::open_cf_descriptors(&options::database(memory), path, engine::columns(memory))
            .map_err(StoreError::rocks("open the store"))?;
        check_format(&database)?;
        let engine = Arc::new(Engine::new(database, SyncMark::load(path)?, hook)?);
        let flusher = Flusher::start(engine.clone()).map_err(StoreError::file("start the sync thread of", path))?;
        Ok(Self { inner: Arc::new(Inner { flusher, engine, installing: Arc::default() }) })
    }

    /// An empty batch for `write`.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.inner.engine)
    }

    /// Writes a batch: visible at once, durable after the next `sync`.
    ///
    /// # Errors
    /// `StoreError` when the store fails or has failed; it then takes no more writes.
    pub fn write(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.inner.engine.write(batch.writes)
    }

    /// Writes to one group's state.
    ///
    /// # Errors
    /// As `write`.
    pub fn commit(&self, group: GroupId, writes: &WriteSet) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.extend(group, writes);
        self.write(batch)
    }

    /// Calls `done` once all that was written before is durable, or with the error. `done` runs on the thread that
    /// serves all groups: it must be quick and must not wait.
    pub fn sync(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.inner.flusher.sync(Box::new(done));
    }

    /// Waits until all that was written before the call is durable.
    ///
    /// # Errors
    /// `StoreError` when the store has failed (rule 6) or is being closed.
    pub async fn synced(&self) -> Result<(), StoreError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.sync(move |result| {
            let _ = sender.send(result); // the waiter may be gone
        });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// # Errors
    /// `StoreError::Rocks` when the read fails.
    pub fn get(&self, column: Column, group: GroupId, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.engine.get(column, group, row)
    }

    /// Visits a group's rows in `[start, end)` in ascending order, as of the call.
    ///
    /// # Errors
    /// `StoreError::Rocks` when a read fails.
    pub fn scan(
        &self,
        column: Column,
        group: GroupId,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.walk(column, group, start, end, visit, scan::forward)
    }

    /// Visits a group's rows in `[start, end)` in descending order, as of the call.
    ///
    /// # Errors
    /// `StoreError::Rocks` when a read fails.
    pub fn scan_reverse(
        &self,
        column: Column,
        group: GroupId,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.walk(column, group, start, end, visit, scan::backward)
    }

    fn walk(
        &self,
        column: Column,
        group: GroupId,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
        direction: fn(rocksdb::DBRawIterator<'_>, [u8; 4], &mut Visit<'_>) -> Result<(), rocksdb::Error>,
    ) -> Result<(), StoreError> {
        if start >= end {
            return Ok(());
        }
        let engine = &self.inner.engine;
        let prefix = engine.prefix(column, group);
        let rows = engine.database.raw_iterator_cf_opt(engine.handle(column), scan::bounded(prefix, start, end));
        direction(rows, prefix, visit).map_err(StoreError::rocks("scan rows"))
    }

    /// A group's state as of now.
    pub fn view(&self, group: GroupId) -> GroupView {
        GroupView::new(self.inner.engine.clone(), group)
    }

    /// A group's state as it is at each read; for the owner of that state.
    pub fn live(&self, group: GroupId) -> LiveView {
        LiveView::new(self.inner.engine.clone(), group)
    }

    /// Begins to replace a group's state by a peer's. Only the owner of the state may `finish` it.
    ///
    /// # Errors
    /// `StoreError::InstallBusy` while another installation into the group runs.
    pub fn install(&self, group: GroupId) -> Result<Installation, StoreError> {
        if !self.inner.installing.lock().insert(group) {
            return Err(StoreError::InstallBusy { group });
        }
        let exclusive = Installing { running: self.inner.installing.clone(), group };
        Installation::begin(self.inner.engine.clone(), group, exclusive)
    }

    /// # Errors
    /// `StoreError::Failed` once a write or a sync has failed.
    pub fn check(&self) -> Result<(), StoreError> {
        self.inner.engine.check()
    }

    pub fn stats(&self) -> StoreStats {
        let engine = &self.inner.engine;
        let of_both = |name| engine.property(Column::State, name) + engine.property(Column::Log, name);
        StoreStats {
            state_bytes_on_disk: engine.property(Column::State, "rocksdb.total-sst-files-size"),
            log_bytes_on_disk: engine.property(Column::Log, "rocksdb.total-sst-files-size"),
            buffered_bytes: of_both("rocksdb.cur-size-all-mem-tables"),
            views: engine.property(Column::State, "rocksdb.num-snapshots"),
            failed: engine.check().is_err(),
        }
    }
}

/// A directory of another program or of a later release is refused before anything is written to it.
fn check_format(database: &DB) -> Result<(), StoreError> {
    let action = "read the format row";
    match database.get(FORMAT_ROW).map_err(StoreError::rocks(action))? {
        Some(found) if found == FORMAT.as_bytes() => Ok(()),
        Some(found) => Err(StoreError::Format { found: String::from_utf8_lossy(&found).into_owned(), known: FORMAT }),
        None => database.put(FORMAT_ROW, FORMAT).map_err(StoreError::rocks("write the format row")),
    }
}

#[cfg(test)]
mod tests;
