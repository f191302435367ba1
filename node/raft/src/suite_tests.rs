//! openraft's own suite of storage tests on our log and state machine, and what it does not ask: durability.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use meridian_index::kv::Overlay;
use meridian_index::{Machine, MachineError};
use meridian_store::{GroupId, SharedMemory, Store};
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::log_store::LogStore;
use crate::state::{Progress, StateMachine};
use crate::trim::LogSize;
use crate::types::{Command, Entry, TypeConfig, Vote, log_id};

const GROUP: GroupId = GroupId(16);

struct NoMachine;

impl Machine for NoMachine {
    fn apply(&self, _: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        Ok(Bytes::copy_from_slice(command))
    }
}

fn hold() -> mpsc::Sender<Infallible> {
    mpsc::channel(1).0
}

fn open(path: &Path) -> (LogStore, StateMachine) {
    let store = Store::open(path, &SharedMemory::new(1 << 20, 8 << 20)).unwrap();
    let log = LogStore::new(store.clone(), GROUP, LogSize::new(u64::MAX), hold());
    (log, StateMachine::open(store, GROUP, Arc::new(NoMachine), Progress::new(), hold()).unwrap())
}

/// Builds empty stores; `reopens` times closed and opened again before they are used.
struct Builder {
    reopens: usize,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..self.reopens {
            open(directory.path());
        }
        let (log, state) = open(directory.path());
        Ok((directory, log, state))
    }
}

#[tokio::test]
async fn the_storage_suite_passes() {
    Suite::test_all(Builder { reopens: 0 }).await.unwrap();
}

#[tokio::test]
async fn the_storage_suite_passes_on_a_store_that_was_closed_and_opened() {
    Suite::test_all(Builder { reopens: 2 }).await.unwrap();
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Command(Bytes::from(vec![index as u8; 10]))) }
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry, IntoIter: Send> + Send) {
    let (sender, receiver) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
}

async fn indexes(log: &mut LogStore) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn log_vote_and_marks_are_there_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    append(&mut log, (0..20).map(|index| entry(1, index))).await;
    log.purge(log_id(1, 4)).await.unwrap();
    log.truncate_after(Some(log_id(1, 15))).await.unwrap();
    log.save_committed(Some(log_id(1, 9))).await.unwrap();
    append(&mut log, [entry(3, 16)]).await; // which carries the mark
    log.save_vote(&Vote::new_committed(3, 7)).await.unwrap();
    drop((log, directory.path()));

    let (mut log, _) = open(directory.path());
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 4)), Some(log_id(3, 16))));
    assert_eq!(indexes(&mut log).await, (5..=16).collect::<Vec<_>>());
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 9)));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 7)));
}

#[tokio::test]
async fn a_purge_far_beyond_the_log_leaves_an_empty_log_that_can_be_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    append(&mut log, (0..3).map(|index| entry(1, index))).await;
    log.purge(log_id(5, 1_000_000)).await.unwrap();
    log.purge(log_id(1, 2)).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(5, 1_000_000)), Some(log_id(5, 1_000_000))));
    append(&mut log, [entry(5, 1_000_001)]).await;
    assert_eq!(indexes(&mut log).await, [1_000_001]);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(5, 1_000_001)));
}

#[tokio::test]
async fn a_message_to_a_follower_is_bounded_by_bytes_and_never_empty() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    let large = |index| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(Command(Bytes::from(vec![0; 3 << 20]))),
    };
    append(&mut log, (0..4).map(large)).await;
    assert_eq!(log.limited_get_log_entries(0, 4).await.unwrap().len(), 2);
    assert_eq!(log.limited_get_log_entries(3, 4).await.unwrap().len(), 1);
    assert_eq!(log.try_get_log_entries(0..4).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_hole_in_the_log_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    append(&mut log, [entry(1, 0), entry(1, 1), entry(1, 3)]).await;
    log.try_get_log_entries(0..4).await.unwrap_err();
}

#[tokio::test]
async fn groups_of_one_store_keep_their_logs_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &SharedMemory::new(1 << 20, 8 << 20)).unwrap();
    let mut logs: Vec<_> =
        (0..3).map(|group| LogStore::new(store.clone(), GroupId(group), LogSize::new(u64::MAX), hold())).collect();
    for (count, log) in logs.iter_mut().enumerate() {
        append(log, (0..=count as u64).map(|index| entry(1, index))).await;
    }
    logs[1].truncate_after(None).await.unwrap();
    assert_eq!(indexes(&mut logs[0]).await, [0]);
    assert_eq!(indexes(&mut logs[1]).await, [0u64; 0]);
    assert_eq!(indexes(&mut logs[2]).await, [0, 1, 2]);
}

#[tokio::test]
async fn nothing_applied_is_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut state) = open(directory.path());
    assert!(state.get_current_snapshot().await.unwrap().is_none());
    assert_eq!(state.applied_state().await.unwrap().0, None);
}
