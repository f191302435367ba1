//! The state machine of the control group: what each command changes, over the view that raft commits.
//!
//! What it does not do: choose (placement is the proposer's, and is checked here), stamp, or touch files. Invariants:
//! deterministic; a refused command writes nothing; counters, epochs and watermarks only move forward; a volume goes
//! `Creating → Open → Sealing → Sealed`, or from `Creating` to `Sealing`, and never back.

use std::collections::BTreeSet;

use bytes::Bytes;
use meridian_index::kv::Overlay;
use meridian_index::{Machine, MachineError};
use meridian_types::{DatacenterId, Epoch, FileGeneration, NeedleKey, NodeId, Timestamp, VolumeId};

use crate::command::{Command, KEYS_IN_LEASE_MAX, MIRRORS_IN_COMMAND_MAX, Refusal, Response};
use crate::mirrors::move_mirrors;
use crate::records::{
    ControlState, MirrorRecord, NodeProgress, Row, RowError, STATE_KEY, mirror_key, node_key, peer_key, progress_key,
    volume_key,
};
use crate::renewal::{RenewalFailure, renew};
use crate::watermarks::take_report;
use crate::{NodeRecord, PeerRecord, VolumeRecord, VolumeState};

/// Applies the commands of one datacenter's control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlMachine {
    pub datacenter: DatacenterId,
}

const EPOCH_FIRST: Epoch = Epoch(1);
const GENERATION_FIRST: FileGeneration = FileGeneration(1);

/// Why a command did not go through: it is refused, or the rows are damaged.
enum Failure {
    Refused(Refusal),
    Row(RowError),
}

impl From<RowError> for Failure {
    fn from(error: RowError) -> Self {
        Failure::Row(error)
    }
}

impl From<RenewalFailure> for Failure {
    fn from(failure: RenewalFailure) -> Self {
        match failure {
            RenewalFailure::Refused(refusal) => Failure::Refused(refusal),
            RenewalFailure::Row(error) => Failure::Row(error),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl Machine for ControlMachine {
    fn apply(&self, view: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        let command = Command::decode(command).map_err(MachineError::Command)?;
        match self.change(view, command) {
            Ok(response) => Ok(response.encode()),
            Err(Failure::Refused(refusal)) => Ok(Response::Refused(refusal).encode()),
            Err(Failure::Row(RowError::Kv(error))) => Err(MachineError::Kv(error)),
            Err(Failure::Row(error)) => Err(MachineError::Invariant(error.to_string())),
        }
    }
}

impl ControlMachine {
    /// Every refusal comes before the first write.
    fn change(&self, view: &mut Overlay<'_>, command: Command) -> Result<Response, Failure> {
        let mut state = read_state(view)?;
        match command {
            Command::RegisterNode { node, info, boot_counter, session } => {
                let mut draining = false;
                if let Some(Row::Node(known)) = Row::read(view, &node_key(node))? {
                    draining = known.draining;
                    if known.session == session && known.boot_counter == boot_counter {
                        return Ok(Response::NodeRegistered { boot_counter: state.boot_counter });
                    }
                    // Rule 7: a counter that stands still or goes back means a disk that was copied or restored.
                    if boot_counter <= known.boot_counter {
                        return Err(Refusal::BootCounterWentBack { registered: known.boot_counter }.into());
                    }
                }
                state.boot_counter += 1;
                put(view, Row::Node(NodeRecord { id: node, info, boot_counter, session, draining }));
                put(view, Row::State(state));
                Ok(Response::NodeRegistered { boot_counter: state.boot_counter })
            }
            Command::RegisterPeer(peer) => register_peer(view, peer),
            Command::LeaseKeys { node, count } => {
                if Row::read(view, &node_key(node))?.is_none() {
                    return Err(Refusal::NoSuchNode(node).into());
                }
                if count == 0 || count > KEYS_IN_LEASE_MAX {
                    return Err(Refusal::LeaseSize.into());
                }
                let first = state.next_key;
                state.next_key = first.checked_add(count).ok_or(Refusal::IdsExhausted)?;
                put(view, Row::State(state));
                Ok(Response::Keys { first: NeedleKey(first), count })
            }
            Command::CreateVolume { .. } => self.create_volume(view, state, command),
            Command::OpenVolume { volume } => {
                let mut record = read_volume(view, volume)?;
                match record.state {
                    VolumeState::Open => return Ok(Response::Volume(record)),
                    VolumeState::Creating => record.state = VolumeState::Open,
                    other => return Err(Refusal::WrongState(other).into()),
                }
                Ok(put_volume(view, state, record))
            }
            Command::BeginSeal { volume, epoch } => {
                let mut record = read_volume(view, volume)?;
                match record.state {
                    VolumeState::Creating | VolumeState::Open if record.epoch == epoch => {}
                    VolumeState::Sealing | VolumeState::Sealed if record.epoch == Epoch(epoch.0 + 1) => {
                        return Ok(Response::Volume(record));
                    }
                    _ => return Err(Refusal::StaleEpoch { current: record.epoch }.into()),
                }
                record.epoch = Epoch(epoch.0 + 1); // rule 1: fences the old primary
                record.state = VolumeState::Sealing;
                Ok(put_volume(view, state, record))
            }
            Command::FinishSeal { volume, epoch, length } => {
                let mut record = read_volume(view, volume)?;
                if record.epoch != epoch {
                    return Err(Refusal::StaleEpoch { current: record.epoch }.into());
                }
                match record.state {
                    VolumeState::Sealed if record.sealed_length == Some(length) => return Ok(Response::Volume(record)),
                    VolumeState::Sealing => {}
                    other => return Err(Refusal::WrongState(other).into()),
                }
                record.state = VolumeState::Sealed;
                record.sealed_length = Some(length);
                Ok(put_volume(view, state, record))
            }
            Command::CloseRegistry { at } => {
                close_registry(view, &mut state, at);
                Ok(Response::Closed(state.registry_closed))
            }
            Command::Report { node, partitions, reports, close } => {
                if reports.iter().any(|report| report.source == self.datacenter) {
                    return Err(Refusal::OwnWatermark.into());
                }
                for report in reports {
                    take_report(view, node, partitions, report)?;
                }
                if let Some(at) = close {
                    close_registry(view, &mut state, at);
                }
                Ok(Response::Reported)
            }
            Command::AssignMirrors { volumes, node } => self.assign_mirrors(view, state, volumes, node),
            Command::MoveMirrors { volumes, from, to } => {
                if volumes.len() > MIRRORS_IN_COMMAND_MAX {
                    return Err(Refusal::TooManyMirrors.into());
                }
                if Row::read(view, &node_key(to))?.is_none() {
                    return Err(Refusal::NoSuchNode(to).into());
                }
                Ok(move_mirrors(view, state, volumes, (from, to))?)
            }
            Command::DrainNode { node, draining } => {
                let Some(Row::Node(mut record)) = Row::read(view, &node_key(node))? else {
                    return Err(Refusal::NoSuchNode(node).into());
                };
                record.draining = draining;
                put(view, Row::Node(record.clone()));
                Ok(Response::Node(record))
            }
            Command::Renew { node, incarnation } => Ok(renew(view, state, node, incarnation)?),
        }
    }

    fn assign_mirrors(
        &self,
        view: &mut Overlay<'_>,
        mut state: ControlState,
        volumes: Vec<VolumeId>,
        node: NodeId,
    ) -> Result<Response, Failure> {
        if volumes.len() > MIRRORS_IN_COMMAND_MAX {
            return Err(Refusal::TooManyMirrors.into());
        }
        if Row::read(view, &node_key(node))?.is_none() {
            return Err(Refusal::NoSuchNode(node).into());
        }
        if volumes.iter().any(|volume| volume.datacenter() == self.datacenter) {
            return Err(Refusal::OwnWatermark.into());
        }
        for volume in volumes {
            if Row::read(view, &mirror_key(volume))?.is_some() {
                continue; // who was first keeps it
            }
            put(view, Row::Mirror(MirrorRecord { volume, node }));
            // Rule 13: from now on the node counts for the source, from zero.
            let source = volume.datacenter();
            if Row::read(view, &progress_key(source, node))?.is_none() {
                put(
                    view,
                    Row::Progress(NodeProgress {
                        source,
                        node,
                        data: Timestamp::ZERO,
                        parked: 0,
                        held: None,
                        moves: 0,
                    }),
                );
            }
        }
        state.registry_version += 1;
        put(view, Row::State(state));
        Ok(Response::MirrorsAssigned)
    }

    fn create_volume(
        &self,
        view: &mut Overlay<'_>,
        mut state: ControlState,
        command: Command,
    ) -> Result<Response, Failure> {
        let Command::CreateVolume { code, primary, secondaries, mirrors, created } = command else {
            unreachable!("matched by the caller")
        };
        // Rule 13: what was said of "all volumes that hold anything at or below T" must stay true.
        if created <= state.registry_closed {
            return Err(Refusal::Restamp { above: state.registry_closed }.into());
        }
        for node in secondaries.iter().chain([&primary]) {
            if Row::read(view, &node_key(*node))?.is_none() {
                return Err(Refusal::NoSuchNode(*node).into());
            }
        }
        let replicas: BTreeSet<NodeId> = secondaries.iter().copied().chain([primary]).collect();
        let others: BTreeSet<DatacenterId> =
            mirrors.iter().copied().filter(|mirror| *mirror != self.datacenter).collect();
        let local = 1 + usize::from(code.other_racks()) + usize::from(code.same_rack());
        let is_exact = |found: usize, named: usize, wanted: usize| found == wanted && named == wanted;
        if !is_exact(replicas.len(), secondaries.len() + 1, local)
            || !is_exact(others.len(), mirrors.len(), usize::from(code.other_datacenters()))
        {
            return Err(Refusal::WrongCopies.into());
        }
        // Rule 3: counter × 256 + datacenter, and the counter never goes back.
        let id = VolumeId::new(state.next_volume, self.datacenter).map_err(|_| Refusal::IdsExhausted)?;
        state.next_volume += 1;
        let record = VolumeRecord {
            id,
            code,
            state: VolumeState::Creating,
            epoch: EPOCH_FIRST,
            generation: GENERATION_FIRST,
            primary,
            secondaries,
            mirrors,
            sealed_length: None,
            created,
        };
        Ok(put_volume(view, state, record))
    }
}

fn register_peer(view: &mut Overlay<'_>, peer: PeerRecord) -> Result<Response, Failure> {
    if let Some(Row::Peer(known)) = Row::read(view, &peer_key(peer.datacenter, peer.node))?
        && known.went_back(&peer)
    {
        return Err(Refusal::PeerWentBack { registered: known.boot_counter }.into());
    }
    put(view, Row::Peer(peer.clone()));
    Ok(Response::PeerRegistered(peer))
}

fn close_registry(view: &mut Overlay<'_>, state: &mut ControlState, at: Timestamp) {
    if at > state.registry_closed {
        state.registry_closed = at;
        state.registry_version += 1;
        put(view, Row::State(*state));
    }
}

fn read_state(view: &Overlay<'_>) -> Result<ControlState, RowError> {
    match Row::read(view, STATE_KEY)? {
        Some(Row::State(state)) => Ok(state),
        _ => Ok(ControlState::default()),
    }
}

fn read_volume(view: &Overlay<'_>, volume: VolumeId) -> Result<VolumeRecord, Failure> {
    match Row::read(view, &volume_key(volume))? {
        Some(Row::Volume(record)) => Ok(record),
        _ => Err(Refusal::NoSuchVolume.into()),
    }
}

pub(crate) fn put(view: &mut Overlay<'_>, row: Row) {
    view.put(row.key(), row.encode());
}

fn put_volume(view: &mut Overlay<'_>, mut state: ControlState, record: VolumeRecord) -> Response {
    state.registry_version += 1;
    put(view, Row::State(state));
    put(view, Row::Volume(record.clone()));
    Response::Volume(record)
}

#[cfg(test)]
mod tests;
