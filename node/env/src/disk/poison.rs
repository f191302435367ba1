//! Remembers that a disk has failed (rule 6): the next sync after a failed one succeeds on every common file system,
//! and the bytes are gone.

use std::path::Path;
use std::sync::OnceLock;

use super::DiskError;

/// Set once, never cleared in the life of the process.
#[derive(Debug, Default)]
pub(super) struct Poison {
    reason: OnceLock<String>,
}

impl Poison {
    pub(super) fn check(&self, act: &'static str, path: &Path) -> Result<(), DiskError> {
        match self.reason.get() {
            None => Ok(()),
            Some(reason) => Err(DiskError::Failed { act, path: path.to_owned(), reason: reason.clone() }),
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.get().cloned()
    }

    /// Passes the error of a write on, and fails the disk unless it is only full.
    pub(super) fn after_write(&self, error: DiskError) -> DiskError {
        if error.is_no_space() { error } else { self.after_sync(error) }
    }

    /// Passes the error of a sync on, and fails the disk: a full one too, for what was not written may be anything.
    pub(super) fn after_sync(&self, error: DiskError) -> DiskError {
        if self.reason.set(error.to_string()).is_ok() {
            tracing::error!(%error, "disk failed: nothing is written to it any more");
        }
        error
    }
}
