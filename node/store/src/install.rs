//! Replaces a group's whole state by rows from a peer, so that a crash leaves the old state or the new one.
//!
//! The rows go to the slot that is not in use, in batches of bounded size; `finish` flips the slot row, drops the
//! old slot and writes the caller's own rows in one batch. What a crash left in the unused slot is dropped when the
//! store is opened (`engine`), and before the next installation.
//!
//! Invariants: at most one installation a group; readers see the old state until `finish`; views made before it keep
//! the old state for as long as they live.

use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::batch::{Batch, Column};
use crate::engine::{Engine, Slot, key};
use crate::store::Installing;
use crate::{GroupId, StoreError};

/// A batch is written when it has grown to this: large enough to be cheap, small against a write buffer.
const BATCH_BYTES: usize = 1 << 20;

/// Rows on their way into a group's state. Dropped without `finish`, it leaves the state as it was.
pub struct Installation {
    engine: Arc<Engine>,
    group: GroupId,
    slot: Slot,
    writes: WriteBatch,
    finished: bool,
    _exclusive: Installing,
}

impl Installation {
    pub(crate) fn begin(engine: Arc<Engine>, group: GroupId, exclusive: Installing) -> Result<Self, StoreError> {
        let slot = engine.slot(group).other();
        let mut writes = WriteBatch::default();
        engine.delete_slot(group, slot, &mut writes);
        engine.write(writes)?;
        Ok(Self { engine, group, slot, writes: WriteBatch::default(), finished: false, _exclusive: exclusive })
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Adds a row; blocks for the disk now and then.
    ///
    /// # Errors
    /// `StoreError` when the store fails.
    pub fn put(&mut self, row: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.writes.put_cf(self.engine.handle(Column::State), key(self.slot.prefix(self.group), row), value);
        if self.writes.size_in_bytes() >= BATCH_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), StoreError> {
        self.engine.write(std::mem::take(&mut self.writes))
    }

    /// Makes the rows the group's state, together with what `extra` adds. Durable after the next sync.
    ///
    /// # Errors
    /// `StoreError` when the store fails; the old state then stays.
    pub fn finish(mut self, extra: impl FnOnce(&mut Batch<'_>)) -> Result<(), StoreError> {
        self.write_out()?;
        let engine = self.engine.clone();
        let mut batch = Batch::new(&engine);
        extra(&mut batch);
        engine.flip(self.group, self.slot, batch.writes)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut writes = WriteBatch::default();
        self.engine.delete_slot(self.group, self.slot, &mut writes);
        if let Err(error) = self.engine.write(writes) {
            tracing::warn!(group = %self.group, %error, "could not drop an unfinished installation");
        }
    }
}
