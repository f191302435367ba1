//! Why the store refuses or fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::GroupId;

/// An error of the store. Cheap to clone: one failed sync answers many waiters.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{action}: {source}")]
    Rocks { action: &'static str, source: rocksdb::Error },
    #[error("{action} {}: {source}", .path.display())]
    File { action: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// Bytes that had been synced no longer read back (rule 8). The node must not vote with what is left.
    #[error("write-ahead log {} is damaged at byte {offset}: {reason}", .path.display())]
    WalDamaged { path: PathBuf, offset: u64, reason: String },
    /// A write or a sync failed earlier; nothing is acknowledged until the store is opened again (rule 6).
    #[error("store has failed and takes no more writes: {reason}")]
    Failed { reason: String },
    #[error("store is closed")]
    Closed,
    #[error("store has format {found:?}, this program knows {known:?}")]
    Format { found: String, known: &'static str },
    #[error("another snapshot is being installed into group {group}")]
    InstallBusy { group: GroupId },
    #[error("slot row of group {group} is malformed")]
    Slot { group: GroupId },
}

impl StoreError {
    pub(crate) fn rocks(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Self {
        move |source| Self::Rocks { action, source }
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source: Arc::new(source) }
    }
}
