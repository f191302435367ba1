//! Reads of one group's state: as of one moment (`GroupView`), or as it is now (`LiveView`).
//!
//! Neither waits for anything: whether a view is recent enough is the raft crate's question.
//!
//! Invariants: a `GroupView` never changes, whatever is applied or installed meanwhile. It keeps RocksDB from dropping
//! overwritten rows of all groups, so it is for a request and not for keeping.

use std::sync::Arc;

use bytes::Bytes;
use meridian_index::kv::{KvError, KvRead, Visit};
use rocksdb::{ReadOptions, Snapshot};
use self_cell::self_cell;

use crate::GroupId;
use crate::batch::Column;
use crate::engine::{Engine, key, prefix_end};
use crate::scan;

type Pin<'a> = Snapshot<'a>;

self_cell! {
    struct Pinned {
        owner: Arc<Engine>,
        #[covariant]
        dependent: Pin,
    }
}

struct ViewInner {
    pinned: Pinned,
    group: GroupId,
    prefix: [u8; 4],
}

/// A group's state at the moment of `Store::view`. Cheap to make and to clone.
#[derive(Clone)]
pub struct GroupView {
    inner: Arc<ViewInner>,
}

impl GroupView {
    pub(crate) fn new(engine: Arc<Engine>, group: GroupId) -> Self {
        let (pinned, prefix) = engine.with_slot(group, |slot| {
            (Pinned::new(engine.clone(), |engine| engine.database.snapshot()), slot.prefix(group))
        });
        Self { inner: Arc::new(ViewInner { pinned, group, prefix }) }
    }

    pub fn group(&self) -> GroupId {
        self.inner.group
    }

    /// A row of the group's log column as of the same moment.
    ///
    /// # Errors
    /// `KvError` when RocksDB fails.
    pub fn log_row(&self, row: &[u8]) -> Result<Option<Bytes>, KvError> {
        let engine = self.inner.pinned.borrow_owner();
        let prefix = engine.prefix(Column::Log, self.inner.group);
        self.read(Column::Log, key(prefix, row))
    }

    /// Visits all rows of the state in ascending order.
    ///
    /// # Errors
    /// `KvError` when RocksDB fails.
    pub fn scan_all(&self, visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.scan_from(&[], visit)
    }

    /// Visits all rows of the state from `start` on in ascending order.
    ///
    /// # Errors
    /// `KvError` when RocksDB fails.
    pub fn scan_from(&self, start: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(key(self.inner.prefix, start));
        options.set_iterate_upper_bound(prefix_end(self.inner.prefix));
        let engine = self.inner.pinned.borrow_owner();
        let rows = self.inner.pinned.borrow_dependent().raw_iterator_cf_opt(engine.handle(Column::State), options);
        scan::forward(rows, self.inner.prefix, visit).map_err(failed)
    }

    fn read(&self, column: Column, key: Vec<u8>) -> Result<Option<Bytes>, KvError> {
        let handle = self.inner.pinned.borrow_owner().handle(column);
        let found = self.inner.pinned.borrow_dependent().get_pinned_cf(handle, key).map_err(failed)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }
}

impl KvRead for GroupView {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.read(Column::State, key(self.inner.prefix, row))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        if start >= end {
            return Ok(());
        }
        let engine = self.inner.pinned.borrow_owner();
        let options = scan::bounded(self.inner.prefix, start, end);
        let rows = self.inner.pinned.borrow_dependent().raw_iterator_cf_opt(engine.handle(Column::State), options);
        scan::forward(rows, self.inner.prefix, visit).map_err(failed)
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        if start >= end {
            return Ok(());
        }
        let engine = self.inner.pinned.borrow_owner();
        let options = scan::bounded(self.inner.prefix, start, end);
        let rows = self.inner.pinned.borrow_dependent().raw_iterator_cf_opt(engine.handle(Column::State), options);
        scan::backward(rows, self.inner.prefix, visit).map_err(failed)
    }
}

/// A group's state as it is at each read. For the one owner of the state, which alone changes it.
#[derive(Clone)]
pub struct LiveView {
    engine: Arc<Engine>,
    group: GroupId,
}

impl LiveView {
    pub(crate) fn new(engine: Arc<Engine>, group: GroupId) -> Self {
        Self { engine, group }
    }
}

impl KvRead for LiveView {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.engine.get(Column::State, self.group, row).map_err(|error| KvError(error.to_string()))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        if start >= end {
            return Ok(());
        }
        let prefix = self.engine.state_prefix(self.group);
        let options = scan::bounded(prefix, start, end);
        let rows = self.engine.database.raw_iterator_cf_opt(self.engine.handle(Column::State), options);
        scan::forward(rows, prefix, visit).map_err(failed)
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        if start >= end {
            return Ok(());
        }
        let prefix = self.engine.state_prefix(self.group);
        let options = scan::bounded(prefix, start, end);
        let rows = self.engine.database.raw_iterator_cf_opt(self.engine.handle(Column::State), options);
        scan::backward(rows, prefix, visit).map_err(failed)
    }
}

fn failed(error: rocksdb::Error) -> KvError {
    KvError(error.to_string())
}
