//! The ordered key-value store of a node over one RocksDB, with one group commit.
//!
//! Each raft group of the node has a key range of its own in two columns: `State` (what its machine wrote) and `Log`
//! (its raft log, vote and marks). This crate knows nothing of raft or of rows: it keeps bytes in order, says when
//! they are durable, and refuses to open what it can't vouch for (rule 8). The layout is docs/formats/store.md.

mod batch;
mod engine;
mod error;
mod flusher;
mod group;
mod install;
mod memory;
mod options;
mod scan;
mod store;
mod view;
mod wal;

pub use batch::{Batch, Column};
pub use error::StoreError;
pub use group::GroupId;
pub use install::Installation;
pub use memory::SharedMemory;
pub use store::{Store, StoreStats, SyncHook};
pub use view::{GroupView, LiveView};
