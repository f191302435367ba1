//! A group's state machine towards openraft: applies commands through the `Machine` and hands out snapshots.
//!
//! Invariants:
//! - One batch holds what the machine wrote and how far it has applied. It is not synced: the log is, and what a crash
//!   takes is applied again from it.
//! - An answer leaves after its batch is visible.
//! - A machine's error stops the group before anything of that batch is written.
//! - A snapshot is a view of the store as of now, made when it is asked for; none is kept, because a kept one would
//!   keep every overwritten row of all groups on disk.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use meridian_index::Machine;
use meridian_index::kv::Overlay;
use meridian_store::{Column, GroupId, GroupView, LiveView, Store};
use openraft::alias::SnapshotOf;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::{mpsc, watch};

use crate::record::{APPLIED_ROW, Applied, decode_applied, encode_applied, io_error};
use crate::snapshot::{SnapshotData, copy};
use crate::types::{Answer, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// A batch is written when the commands in it reach this many bytes, or this many.
const BATCH_COMMAND_BYTES: usize = 4 << 20;
const BATCH_ENTRIES_MAX: usize = 1024;

/// What others may watch of a state machine.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The index of the last applied entry; 0 before the first.
    pub index: watch::Sender<u64>,
    /// The term of the last applied entry.
    pub term: watch::Sender<u64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { index: watch::Sender::new(0), term: watch::Sender::new(0) }
    }

    fn publish(&self, last: Option<&LogId>) {
        let Some(last) = last else { return };
        self.index.send_replace(last.index);
        self.term.send_if_modified(|term| std::mem::replace(term, last.leader_id.term) != last.leader_id.term);
    }
}

pub(crate) struct StateMachine {
    store: Store,
    group: GroupId,
    machine: Arc<dyn Machine>,
    live: LiveView,
    applied: Applied,
    progress: Progress,
    _hold: mpsc::Sender<Infallible>,
}

impl StateMachine {
    /// `hold` is dropped with the state machine, so that a host knows when the store is free.
    pub(crate) fn open(
        store: Store,
        group: GroupId,
        machine: Arc<dyn Machine>,
        progress: Progress,
        hold: mpsc::Sender<Infallible>,
    ) -> Result<Self, io::Error> {
        let live = store.live(group);
        let row = store.get(Column::Log, group, APPLIED_ROW).map_err(io_error)?;
        let applied = row.map(|row| decode_applied(&row)).transpose().map_err(io_error)?.unwrap_or_default();
        progress.publish(applied.last.as_ref());
        Ok(Self { store, group, machine, live, applied, progress, _hold: hold })
    }

    /// Applies entries that follow one another as one batch, then answers.
    fn apply_batch(&mut self, entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>) -> io::Result<()> {
        let mut applied = self.applied.clone();
        let mut overlay = Overlay::new(&self.live);
        let mut answers = Vec::new();
        for (entry, responder) in entries {
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::default(),
                EntryPayload::Normal(command) => {
                    Answer(self.machine.apply(&mut overlay, &command.0).map_err(|error| {
                        tracing::error!(group = %self.group, index = entry.log_id.index, %error, "the group stops");
                        io_error(error)
                    })?)
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answer::default()
                }
            };
            applied.last = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        let mut batch = self.store.batch();
        batch.extend(self.group, &overlay.into_writes());
        batch.put(Column::Log, self.group, APPLIED_ROW, &encode_applied(&applied));
        self.store.write(batch).map_err(io_error)?;
        self.applied = applied;
        self.progress.publish(self.applied.last.as_ref());
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }
}

type HeldSnapshot = SnapshotOf<TypeConfig, SnapshotData>;

/// The snapshot that a view is.
fn snapshot(view: GroupView) -> io::Result<HeldSnapshot> {
    let applied = applied_in(&view)?;
    let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
    Ok(Snapshot { meta, snapshot: SnapshotData::Held(view) })
}

/// How far the state in a view has been applied: from the same moment as its rows.
pub(crate) fn applied_in(view: &GroupView) -> io::Result<Applied> {
    let row = view.log_row(APPLIED_ROW).map_err(io_error)?;
    Ok(row.map(|row| decode_applied(&row)).transpose().map_err(io_error)?.unwrap_or_default())
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let EntryPayload::Normal(command) = &entry.payload {
                bytes += command.0.len();
            }
            batch.push((entry, responder));
            if bytes >= BATCH_COMMAND_BYTES || batch.len() >= BATCH_ENTRIES_MAX {
                self.apply_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.apply_batch(batch) }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { view: self.store.view(self.group) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        let row = encode_applied(&applied);
        let group = self.group;
        let installation = match data {
            SnapshotData::Received(installation) => installation,
            SnapshotData::Held(view) => copy(&view, &self.store, group)?,
        };
        installation.finish(|batch| batch.put(Column::Log, group, APPLIED_ROW, &row)).map_err(io_error)?;
        // The leader counts on it from here on, and the log before it goes.
        self.store.synced().await.map_err(io_error)?;
        tracing::info!(%group, last = ?meta.last_log_id, "installed a snapshot");
        self.applied = applied;
        self.progress.publish(self.applied.last.as_ref());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<HeldSnapshot>, io::Error> {
        // Before anything has been applied there is none.
        if self.applied.last.is_none() { Ok(None) } else { snapshot(self.store.view(self.group)).map(Some) }
    }
}

/// Makes the snapshot of the moment in which it was asked for.
pub(crate) struct SnapshotBuilder {
    view: GroupView,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<HeldSnapshot, io::Error> {
        snapshot(self.view.clone())
    }
}
