//! Which node holds the mirror of each volume of another datacenter; and giving away those of a node that is gone.
//!
//! A node that is gone for `repair_after` has its mirrors given to live ones, which fetch the bytes anew from their source:
//! nothing of them is copied between nodes of this datacenter. If it comes back its files lie unused.
//!
//! Invariants (rule 13): a moved mirror counts from zero: what its new holder reports of the source counts only from the
//! report on that knows of the move; until then W_data stands still. A live node's mirrors are never taken from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meridian_index::kv::Overlay;
use meridian_types::{DatacenterId, NodeId, Timestamp, VolumeId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::command::{Command, MIRRORS_IN_COMMAND_MAX, Response};
use crate::machine::put;
use crate::proposing::{Proposing, senseless};
use crate::records::{ControlState, MIRRORS, MirrorRecord, NodeProgress, Row, RowError, mirror_key, progress_key};
use crate::registry::Registry;
use crate::{ControlError, Liveness};

/// Moves those of `volumes` whose mirror `from` holds; part of the state machine, with all refusals behind it.
pub(crate) fn move_mirrors(
    view: &mut Overlay<'_>,
    mut state: ControlState,
    volumes: Vec<VolumeId>,
    (from, to): (NodeId, NodeId),
) -> Result<Response, RowError> {
    let mut sources = BTreeSet::new();
    for volume in volumes {
        let held = Row::read(view, &mirror_key(volume))?;
        if held.is_some_and(|row| matches!(row, Row::Mirror(mirror) if mirror.node == from)) {
            put(view, Row::Mirror(MirrorRecord { volume, node: to }));
            sources.insert(volume.datacenter());
        }
    }
    let left: BTreeSet<DatacenterId> = Row::read_all(view, MIRRORS)?
        .into_iter()
        .filter_map(|row| match row {
            Row::Mirror(mirror) if mirror.node == from => Some(mirror.volume.datacenter()),
            _ => None,
        })
        .collect();
    for source in &sources {
        let known = Row::read(view, &progress_key(*source, to))?;
        let (moves, parked, held) = match known {
            Some(Row::Progress(known)) => (known.moves, known.parked, known.held),
            _ => (0, 0, None),
        };
        let progress =
            NodeProgress { source: *source, node: to, data: Timestamp::ZERO, parked, held, moves: moves + 1 };
        put(view, Row::Progress(progress));
        if !left.contains(source) {
            view.delete(progress_key(*source, from)); // it holds nothing, and so holds nobody up
        }
    }
    if !sources.is_empty() {
        state.registry_version += 1;
        put(view, Row::State(state));
    }
    Ok(Response::MirrorsAssigned)
}

/// Chooses for each volume the usable node with the fewest mirrors.
///
/// # Errors
/// `Unavailable` when there is none.
pub(crate) fn share_out(
    registry: &Registry,
    liveness: &Liveness,
    volumes: impl IntoIterator<Item = VolumeId>,
) -> Result<BTreeMap<NodeId, Vec<VolumeId>>, ControlError> {
    let usable = registry.nodes.iter().filter(|node| !node.draining && liveness.is_live(node.id));
    let mut counts: BTreeMap<NodeId, usize> = usable.map(|node| (node.id, 0)).collect();
    for node in registry.mirrors.values() {
        counts.entry(*node).and_modify(|count| *count += 1);
    }
    let mut given: BTreeMap<NodeId, Vec<VolumeId>> = BTreeMap::new();
    for volume in volumes {
        let node = counts.iter().min_by_key(|(node, count)| (**count, **node)).map(|(node, _)| *node);
        let node = node.ok_or_else(|| ControlError::Unavailable { reason: "no node is live".to_owned() })?;
        *counts.entry(node).or_default() += 1;
        given.entry(node).or_default().push(volume);
    }
    Ok(given)
}

/// What the leader keeps: since when nodes are silent.
#[derive(Debug)]
pub(crate) struct LostMirrors {
    repair_after: Duration,
    silent: Mutex<BTreeMap<NodeId, Instant>>,
}

impl LostMirrors {
    pub(crate) fn new(repair_after: Duration) -> Self {
        Self { repair_after, silent: Mutex::default() }
    }

    /// One look of the group's leader: gives away the mirrors of nodes that are silent for too long.
    ///
    /// # Errors
    /// As any command; it may be repeated after any.
    pub(crate) async fn give_away(&self, proposing: &Proposing, liveness: &Liveness) -> Result<(), ControlError> {
        let registry = proposing.cache.get();
        for from in self.gone(&registry, liveness) {
            let held = registry.mirrors.iter().filter(|(_, node)| **node == from).map(|(volume, _)| *volume);
            for (to, volumes) in share_out(&registry, liveness, held)? {
                tracing::warn!(node = %from, %to, mirrors = volumes.len(), "a node is gone; its mirrors are fetched anew");
                for volumes in volumes.chunks(MIRRORS_IN_COMMAND_MAX) {
                    let command = Command::MoveMirrors { volumes: volumes.to_vec(), from, to };
                    match proposing.propose(command).await? {
                        Response::MirrorsAssigned => {}
                        other => return Err(senseless(other)),
                    }
                }
            }
        }
        Ok(())
    }

    /// The nodes that are silent for `repair_after`, as far as this node has looked.
    fn gone(&self, registry: &Registry, liveness: &Liveness) -> Vec<NodeId> {
        let (now, mut silent) = (Instant::now(), self.silent.lock());
        for node in registry.nodes.iter().map(|node| node.id) {
            if liveness.is_live(node) {
                silent.remove(&node);
            } else {
                silent.entry(node).or_insert(now);
            }
        }
        silent.iter().filter(|(_, since)| now - **since >= self.repair_after).map(|(node, _)| *node).collect()
    }

    /// Who leads no more starts to look anew when it leads again.
    pub(crate) fn forget(&self) {
        self.silent.lock().clear();
    }
}
