//! A group's raft log, vote and marks in the store's log column.
//!
//! Invariants:
//! - An append returns when its entries can be read and calls back when they are durable; all groups of the node
//!   share one sync (`Store::sync`).
//! - The vote is durable when `save_vote` returns.
//! - The log has no hole: entries leave it in one batch with the purged mark, or from its end.
//! - What is read back at once, to be applied, comes from memory (`recent`): it is changed right after the write that it
//!   mirrors, by the one writer of the log.
//! - How far the log is committed is written with the next append: it need not be known for sure, a start goes on from
//!   what is applied, and a write of its own is paid by every proposal.
//! - Rows are removed one by one, so that no range tombstone lies before the log; only a jump (a follower that got a
//!   snapshot) takes a range.

use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use meridian_index::kv::Step;
use meridian_store::{Batch, Column, GroupId, Store};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::recent::RecentEntries;
use crate::record::{
    COMMITTED_ROW, PURGED_ROW, VOTE_ROW, decode_committed, decode_entry, decode_purged, decode_vote, encode_committed,
    encode_entry, encode_purged, encode_vote, entry_row, entry_rows_from, io_error,
};
use crate::trim::LogSize;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// More entries than this leave the log by a range tombstone instead of one delete each.
const SINGLE_DELETES_MAX: u64 = 8192;
/// Entries are read for a peer until they reach this many bytes; one entry is always read. With the largest entry it
/// stays below the limit of a message.
const REPLICATION_BYTES_MAX: usize = 4 << 20;

/// The log of one group. Cheap to clone: readers are clones.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Store,
    group: GroupId,
    size: Arc<LogSize>,
    recent: Arc<Mutex<RecentEntries>>,
    /// Committed since the last append.
    committed: Option<LogId>,
    _hold: mpsc::Sender<Infallible>,
}

impl LogStore {
    /// `hold` is dropped with the last reader, so that a host knows when the store is free.
    pub(crate) fn new(store: Store, group: GroupId, size: Arc<LogSize>, hold: mpsc::Sender<Infallible>) -> Self {
        Self { store, group, size, recent: Arc::default(), committed: None, _hold: hold }
    }

    fn row<T>(
        &self,
        row: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, meridian_types::RecordError>,
    ) -> io::Result<Option<T>> {
        let found = self.store.get(Column::Log, self.group, row).map_err(io_error)?;
        found.map(|bytes| decode(&bytes)).transpose().map_err(io_error)
    }

    fn write(&self, fill: impl FnOnce(&mut Batch<'_>)) -> io::Result<()> {
        let mut batch = self.store.batch();
        fill(&mut batch);
        self.store.write(batch).map_err(io_error)
    }

    fn purged(&self) -> io::Result<Option<LogId>> {
        self.row(PURGED_ROW, decode_purged)
    }

    /// The last entry in the log. The search starts behind what is purged, so that it crosses no tombstones.
    fn last(&self, purged: Option<&LogId>) -> io::Result<Option<LogId>> {
        let rows = entry_rows_from(purged.map_or(0, |id| id.index + 1));
        let mut last = None;
        self.store
            .scan_reverse(Column::Log, self.group, &rows.start, &rows.end, &mut |_, value| {
                last = Some(decode_entry(value));
                Step::Stop
            })
            .map_err(io_error)?;
        Ok(last.transpose().map_err(io_error)?.map(|entry| entry.log_id))
    }

    /// The entries in `[start, end)`, cut where their bytes reach `bytes_max`.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Some(mut entries) = self.recent.lock().get(start, end) {
            cut(&mut entries, bytes_max);
            return Ok(entries);
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut failure = None;
        let visit = &mut |_: &[u8], value: &[u8]| match decode_entry(value) {
            Ok(entry) => {
                bytes += value.len();
                entries.push(entry);
                if bytes >= bytes_max { Step::Stop } else { Step::Next }
            }
            Err(error) => {
                failure = Some(error);
                Step::Stop
            }
        };
        self.store.scan(Column::Log, self.group, &entry_row(start), &entry_row(end), visit).map_err(io_error)?;
        if let Some(error) = failure {
            tracing::error!(group = %self.group, %error, "an entry of the raft log is damaged");
            return Err(io_error(error));
        }
        let dense = entries.windows(2).all(|pair| pair[0].log_id.index + 1 == pair[1].log_id.index);
        if dense { Ok(entries) } else { Err(io::Error::other(format!("the raft log has a hole in {start}..{end}"))) }
    }

    /// Deletes the entries in `[first, behind)`.
    fn delete(&self, batch: &mut Batch<'_>, first: u64, behind: u64) {
        if behind.saturating_sub(first) > SINGLE_DELETES_MAX {
            batch.delete_range(Column::Log, self.group, &entry_row(first), &entry_row(behind));
        } else {
            for index in first..behind {
                batch.delete(Column::Log, self.group, &entry_row(index));
            }
        }
    }
}

/// Cuts entries where their bytes reach `bytes_max`; one always stays.
fn cut(entries: &mut Vec<Entry>, bytes_max: usize) {
    let mut bytes = 0;
    let reaches = |entry: &Entry| {
        if let EntryPayload::Normal(command) = &entry.payload {
            bytes += command.0.len();
        }
        bytes >= bytes_max
    };
    if let Some(last) = entries.iter().position(reaches) {
        entries.truncate(last + 1);
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, REPLICATION_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.row(VOTE_ROW, decode_vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.purged()?;
        let last_log_id = self.last(last_purged_log_id.as_ref())?.or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write(|batch| batch.put(Column::Log, self.group, VOTE_ROW, &encode_vote(vote)))?;
        self.store.synced().await.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let written = self.row(COMMITTED_ROW, decode_committed)?;
        Ok(self.committed.or(written))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = self.store.batch();
        let entries: Vec<Entry> = entries.into_iter().collect();
        for entry in &entries {
            batch.put(Column::Log, self.group, &entry_row(entry.log_id.index), &encode_entry(entry));
        }
        if let Some(committed) = self.committed.take() {
            batch.put(Column::Log, self.group, COMMITTED_ROW, &encode_committed(&committed));
        }
        let bytes = batch.size_bytes();
        self.store.write(batch).map_err(io_error)?;
        self.recent.lock().append(entries);
        self.store.sync(move |synced| callback.io_completed(synced.map_err(io_error)));
        self.size.grew(bytes);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |id| id.index + 1);
        let Some(last) = self.last(self.purged()?.as_ref())? else { return Ok(()) };
        self.recent.lock().clear();
        self.write(|batch| self.delete(batch, first, last.index + 1))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let purged = self.purged()?;
        if purged.as_ref() >= Some(&log_id) {
            return Ok(());
        }
        let first = purged.map_or(0, |id| id.index + 1);
        self.recent.lock().drop_below(log_id.index + 1);
        self.write(|batch| {
            batch.put(Column::Log, self.group, PURGED_ROW, &encode_purged(&log_id));
            self.delete(batch, first, log_id.index + 1);
        })
    }
}
