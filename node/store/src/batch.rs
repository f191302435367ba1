//! Writes that become visible together and are replayed together.
//!
//! Invariants: a batch lies in the WAL as one record, so that recovery has all of it or nothing; keys are encoded
//! when they are added, so a batch must not be kept across the installation of a snapshot into its group (both are
//! done by the one owner of the group's state).

use meridian_index::kv::WriteSet;
use rocksdb::WriteBatch;

use crate::GroupId;
use crate::engine::{Engine, key};

/// Which of a group's two key ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// What the group's machine wrote. Views see it.
    State,
    /// The group's raft log, vote and marks.
    Log,
}

/// An atomic write to any groups and columns. Made by `Store::batch`, written by `Store::write`.
pub struct Batch<'s> {
    engine: &'s Engine,
    pub(crate) writes: WriteBatch,
}

impl<'s> Batch<'s> {
    pub(crate) fn new(engine: &'s Engine) -> Self {
        Self { engine, writes: WriteBatch::default() }
    }

    pub fn put(&mut self, column: Column, group: GroupId, row: &[u8], value: &[u8]) {
        self.writes.put_cf(self.engine.handle(column), self.engine.key(column, group, row), value);
    }

    pub fn delete(&mut self, column: Column, group: GroupId, row: &[u8]) {
        self.writes.delete_cf(self.engine.handle(column), self.engine.key(column, group, row));
    }

    /// Deletes the rows in `[start, end)` with one range tombstone. Scans get slower by each such tombstone that they
    /// cross: only for ranges too long for single deletes.
    pub fn delete_range(&mut self, column: Column, group: GroupId, start: &[u8], end: &[u8]) {
        let (start, end) = (self.engine.key(column, group, start), self.engine.key(column, group, end));
        self.writes.delete_range_cf(self.engine.handle(column), start, end);
    }

    /// Adds what a machine wrote to its state.
    pub fn extend(&mut self, group: GroupId, writes: &WriteSet) {
        let prefix = self.engine.state_prefix(group);
        let handle = self.engine.handle(Column::State);
        for (row, value) in writes {
            match value {
                Some(value) => self.writes.put_cf(handle, key(prefix, row), value),
                None => self.writes.delete_cf(handle, key(prefix, row)),
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of the encoded batch.
    pub fn size_bytes(&self) -> usize {
        self.writes.size_in_bytes()
    }
}
