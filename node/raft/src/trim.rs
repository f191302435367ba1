//! Keeps the raft log small in bytes as well.
//!
//! openraft trims by count: a snapshot every `snapshot_entries`, and of what it covers `log_entries_kept` stay. Entries
//! reach 3 MiB, so that a count alone would let the log grow to gigabytes. When so many bytes have been appended since
//! the last trim, the group takes a snapshot early (it is a handle and costs nothing) and purges all but a few entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_store::GroupId;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Notify;

use crate::types::Raft;

/// Entries that stay for followers a moment behind, when the log is trimmed by bytes.
const ENTRIES_KEPT: u64 = 64;

/// Counts what is appended to a log.
#[derive(Debug)]
pub(crate) struct LogSize {
    appended_bytes: AtomicU64,
    bytes_max: u64,
    reached: Notify,
}

impl LogSize {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { appended_bytes: AtomicU64::new(0), bytes_max, reached: Notify::new() })
    }

    pub(crate) fn grew(&self, bytes: usize) {
        let before = self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before < self.bytes_max && before + bytes as u64 >= self.bytes_max {
            self.reached.notify_one();
        }
    }
}

/// Trims the log of a group whenever its size asks for it; ends with the group.
pub(crate) async fn run(group: GroupId, raft: Raft, size: Arc<LogSize>) {
    loop {
        size.reached.notified().await;
        size.appended_bytes.store(0, Ordering::Relaxed);
        if let Err(reason) = trim(&raft).await {
            tracing::debug!(%group, reason, "the log is not trimmed any more");
            return;
        }
    }
}

async fn trim(raft: &Raft) -> Result<(), String> {
    let mut metrics = raft.data_metrics();
    let Some(target) = metrics.borrow_watched().last_applied else { return Ok(()) };
    raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
    while metrics.borrow_watched().snapshot < Some(target) {
        metrics.changed().await.map_err(|_| "the group stopped".to_owned())?;
    }
    let purge_to = target.index.saturating_sub(ENTRIES_KEPT);
    raft.trigger().purge_log(purge_to).await.map_err(|error| error.to_string())
}
