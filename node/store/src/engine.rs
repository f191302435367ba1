//! The open RocksDB with what must be known to encode a key, and whether it has failed.
//!
//! A group's state lies in one of two slots: a snapshot from a peer is written to the other one while the state is
//! still in use, and becomes the state when the slot row flips. The slot is the top bit of the key's prefix.
//!
//! Invariants: slot row and slot map change under the write lock of `slots`, and a view takes its RocksDB snapshot
//! under the read lock, so that a view sees one whole state; once failed, always failed (rule 6).

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};

use crate::batch::Column;
use crate::group::{GroupId, SLOT_BIT};
use crate::options::{LOG_COLUMN, STATE_COLUMN};
use crate::store::SyncHook;
use crate::wal::SyncMark;
use crate::{StoreError, options};

/// Which of its two key ranges a group's state lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    First = 0,
    Second = 1,
}

impl Slot {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(crate) fn prefix(self, group: GroupId) -> [u8; 4] {
        match self {
            Self::First => group.0.to_be_bytes(),
            Self::Second => (group.0 | SLOT_BIT).to_be_bytes(),
        }
    }
}

/// A key as RocksDB has it.
pub(crate) fn key(prefix: [u8; 4], row: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + row.len());
    key.extend_from_slice(&prefix);
    key.extend_from_slice(row);
    key
}

/// The first key behind all keys with this prefix.
pub(crate) fn prefix_end(prefix: [u8; 4]) -> Vec<u8> {
    match u32::from_be_bytes(prefix).checked_add(1) {
        Some(next) => next.to_be_bytes().to_vec(),
        None => vec![0xff; 5],
    }
}

const SLOT_ROW: &[u8] = b"slot/";
const SLOT_ROW_VERSION: u8 = 1;

pub(crate) struct Engine {
    pub(crate) database: DB,
    slots: RwLock<HashMap<GroupId, Slot>>,
    failure: OnceLock<String>,
    mark: SyncMark,
    /// The last sequence number that a finished sync covers.
    synced: Mutex<u64>,
    hook: Option<SyncHook>,
}

impl Engine {
    pub(crate) fn new(database: DB, mark: SyncMark, hook: Option<SyncHook>) -> Result<Self, StoreError> {
        let engine =
            Self { database, slots: RwLock::default(), failure: OnceLock::new(), mark, synced: Mutex::new(0), hook };
        engine.load_slots()?;
        engine.drop_unfinished_installs()?;
        Ok(engine)
    }

    pub(crate) fn handle(&self, column: Column) -> &ColumnFamily {
        let name = match column {
            Column::State => STATE_COLUMN,
            Column::Log => LOG_COLUMN,
        };
        self.database.cf_handle(name).expect("opened with this column")
    }

    pub(crate) fn prefix(&self, column: Column, group: GroupId) -> [u8; 4] {
        match column {
            Column::State => self.state_prefix(group),
            Column::Log => group.0.to_be_bytes(),
        }
    }

    pub(crate) fn state_prefix(&self, group: GroupId) -> [u8; 4] {
        self.slot(group).prefix(group)
    }

    pub(crate) fn key(&self, column: Column, group: GroupId, row: &[u8]) -> Vec<u8> {
        key(self.prefix(column, group), row)
    }

    pub(crate) fn slot(&self, group: GroupId) -> Slot {
        self.slots.read().get(&group).copied().unwrap_or(Slot::First)
    }

    /// Runs `pin` while no slot can flip.
    pub(crate) fn with_slot<T>(&self, group: GroupId, pin: impl FnOnce(Slot) -> T) -> T {
        let slots = self.slots.read();
        pin(slots.get(&group).copied().unwrap_or(Slot::First))
    }

    pub(crate) fn get(&self, column: Column, group: GroupId, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.database.get_pinned_cf(self.handle(column), self.key(column, group, row));
        Ok(found.map_err(StoreError::rocks("read a row"))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Writes without a sync. An error fails the store: what the WAL then holds is not known.
    pub(crate) fn write(&self, writes: WriteBatch) -> Result<(), StoreError> {
        self.check()?;
        self.database.write_opt(writes, &WriteOptions::default()).map_err(|source| {
            self.fail(format!("write a batch: {source}"));
            StoreError::Rocks { action: "write a batch", source }
        })
    }

    /// Makes all that was written before the call durable. Called by one thread at a time.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.check()?;
        self.write_mark()?;
        let through = self.database.latest_sequence_number();
        let synced = match &self.hook {
            Some(hook) => hook(),
            None => Ok(()),
        };
        let synced = synced.and_then(|()| self.database.flush_wal(true).map_err(|source| source.to_string()));
        match synced {
            Ok(()) => *self.synced.lock() = through,
            // Rule 6: the kernel may have dropped the dirty pages; a retry would report success for lost bytes.
            Err(reason) => return Err(self.fail(format!("sync the write-ahead log: {reason}"))),
        }
        Ok(())
    }

    /// Tells a later recovery how far the WAL had been synced (see `wal`).
    fn write_mark(&self) -> Result<(), StoreError> {
        let synced = *self.synced.lock();
        if synced == 0 {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        writes.put_log_data(self.mark.encode(synced));
        self.write(writes)
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(reason) => Err(StoreError::Failed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn fail(&self, reason: String) -> StoreError {
        tracing::error!(%reason, "the store has failed");
        let reason = self.failure.get_or_init(|| reason).clone();
        StoreError::Failed { reason }
    }

    /// Makes `slot` the group's state, drops the rows of the other one, and writes `writes`: all in one batch.
    pub(crate) fn flip(&self, group: GroupId, slot: Slot, mut writes: WriteBatch) -> Result<(), StoreError> {
        let mut slots = self.slots.write();
        writes.put(slot_row(group), [SLOT_ROW_VERSION, slot as u8]);
        self.delete_slot(group, slot.other(), &mut writes);
        self.write(writes)?;
        slots.insert(group, slot);
        Ok(())
    }

    /// One range tombstone: a state is large, and nothing scans the slot until it is written anew.
    pub(crate) fn delete_slot(&self, group: GroupId, slot: Slot, writes: &mut WriteBatch) {
        let prefix = slot.prefix(group);
        writes.delete_range_cf(self.handle(Column::State), prefix.to_vec(), prefix_end(prefix));
    }

    fn load_slots(&self) -> Result<(), StoreError> {
        let mut slots = self.slots.write();
        let mut rows = self.database.raw_iterator();
        rows.seek(SLOT_ROW);
        while let Some((row, value)) = rows.item() {
            let Some(group) = row.strip_prefix(SLOT_ROW) else { break };
            let group =
                GroupId(u32::from_be_bytes(group.try_into().map_err(|_| StoreError::Slot { group: GroupId(0) })?));
            let slot = match value {
                [SLOT_ROW_VERSION, 0] => Slot::First,
                [SLOT_ROW_VERSION, 1] => Slot::Second,
                _ => return Err(StoreError::Slot { group }),
            };
            slots.insert(group, slot);
            rows.next();
        }
        rows.status().map_err(StoreError::rocks("read the slot rows"))
    }

    /// A crash in the middle of an installation leaves rows in the slot that is not in use.
    fn drop_unfinished_installs(&self) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        let mut rows = self.database.raw_iterator_cf(self.handle(Column::State));
        rows.seek_to_first();
        while let Some(found) = rows.key() {
            let prefix: [u8; 4] = found.get(..4).and_then(|prefix| prefix.try_into().ok()).unwrap_or_default();
            let raw = u32::from_be_bytes(prefix);
            let group = GroupId(raw & !SLOT_BIT);
            if self.state_prefix(group) != prefix {
                tracing::warn!(%group, "dropping a snapshot whose installation was cut short");
                self.delete_slot(group, self.slot(group).other(), &mut writes);
            }
            rows.seek(prefix_end(prefix));
        }
        rows.status().map_err(StoreError::rocks("look for unfinished installations"))?;
        drop(rows);
        if writes.is_empty() { Ok(()) } else { self.write(writes) }
    }

    pub(crate) fn property(&self, column: Column, name: &str) -> u64 {
        self.database.property_int_value_cf(self.handle(column), name).ok().flatten().unwrap_or(0)
    }
}

fn slot_row(group: GroupId) -> Vec<u8> {
    [SLOT_ROW, &group.0.to_be_bytes()].concat()
}

/// The columns that the database is opened with.
pub(crate) fn columns(memory: &crate::SharedMemory) -> Vec<rocksdb::ColumnFamilyDescriptor> {
    vec![
        rocksdb::ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options::own_column(memory)),
        rocksdb::ColumnFamilyDescriptor::new(STATE_COLUMN, options::state_column(memory)),
        rocksdb::ColumnFamilyDescriptor::new(LOG_COLUMN, options::log_column(memory)),
    ]
}
