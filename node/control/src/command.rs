//! Commands of the control group and what `apply` answers: docs/formats/control.md.
//!
//! A command's bytes are the raft entry's payload and so are durable. Each is safe to give again after an unknown
//! outcome: a repeated registration is known by its session, a repeated lease or creation leaves an unused range or
//! volume behind, a repeated seal is known by its epoch, and the rest only move forward.
//!
//! Invariants: variants are only ever added at the end; a command says all that `apply` needs.

use bytes::Bytes;
use meridian_types::{
    DatacenterId, Epoch, Incarnation, NeedleKey, NodeId, RecordError, RecordKind, ReplicaCode, RequestId, Timestamp,
    VolumeId, decode_record, encode_record,
};
use serde::{Deserialize, Serialize};

use crate::{NodeInfo, NodeRecord, NodeReport, PeerRecord, VolumeRecord, VolumeState};

const COMMAND_VERSION: u8 = 1;
const RESPONSE_VERSION: u8 = 1;

/// A change of the control group's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Refused unless the counter is above the registered one, or session and counter are the registered ones (rule 7).
    RegisterNode { node: NodeId, info: NodeInfo, boot_counter: u64, session: RequestId },
    /// Refused when the counter went back within one incarnation (rule 7).
    RegisterPeer(PeerRecord),
    /// Leases the next `count` needle keys to `node`, for good (rule 3).
    LeaseKeys { node: NodeId, count: u64 },
    /// Registers a volume under the next id (rule 3). `created` is the proposer's stamp; refused unless it is above the
    /// registry's closed timestamp (rule 13).
    CreateVolume {
        code: ReplicaCode,
        primary: NodeId,
        secondaries: Vec<NodeId>,
        mirrors: Vec<DatacenterId>,
        created: Timestamp,
    },
    /// The volume's files are made: from now on it may take appends, and a missing file is a loss.
    OpenVolume { volume: VolumeId },
    /// Fences the volume: no append under `epoch` is acknowledged any more (rule 1). Repeated under the epoch that it
    /// left behind it changes nothing.
    BeginSeal { volume: VolumeId, epoch: Epoch },
    /// Every complete replica of `epoch` that answered holds at least `length` bytes.
    FinishSeal { volume: VolumeId, epoch: Epoch, length: u64 },
    /// No volume is created at or below `at` any more (rule 13).
    CloseRegistry { at: Timestamp },
    /// What one node has of all sources; `partitions` is the cluster's P, `close` as in `CloseRegistry`. A datacenter's
    /// watermark is the least of its nodes' and partitions' (rule 13).
    Report { node: NodeId, partitions: u16, reports: Vec<NodeReport>, close: Option<Timestamp> },
    /// Gives mirrors of other datacenters' volumes to a node; a volume that has one keeps it.
    AssignMirrors { volumes: Vec<VolumeId>, node: NodeId },
    /// Takes no further volume there, or again.
    DrainNode { node: NodeId, draining: bool },
    /// The disks of this datacenter went back in time (rules 3, 7): every volume of `node` that could take appends is given
    /// up, and ids and keys go on far above what the forgotten time may have issued. Once an incarnation.
    Renew { node: NodeId, incarnation: Incarnation },
    /// Gives those of the mirrors that `from` holds, for it is gone, to `to`, whose progress then counts from zero.
    MoveMirrors { volumes: Vec<VolumeId>, from: NodeId, to: NodeId },
}

/// What `apply` made of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The datacenter's boot counter, raised by the registration.
    NodeRegistered {
        boot_counter: u64,
    },
    PeerRegistered(PeerRecord),
    /// `count` keys from `first` on.
    Keys {
        first: NeedleKey,
        count: u64,
    },
    /// The volume's record after the command.
    Volume(VolumeRecord),
    /// The registry's closed timestamp, at least the one asked for.
    Closed(Timestamp),
    Reported,
    Refused(Refusal),
    MirrorsAssigned,
    /// The node's record after the command.
    Node(NodeRecord),
    Renewed,
}

/// Why `apply` refused a command; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    BootCounterWentBack {
        registered: u64,
    },
    PeerWentBack {
        registered: u64,
    },
    /// Stamp again above this (rule 13).
    Restamp {
        above: Timestamp,
    },
    NoSuchNode(NodeId),
    NoSuchVolume,
    StaleEpoch {
        current: Epoch,
    },
    WrongState(VolumeState),
    /// Replicas or mirrors that are named twice, are no others, or are not as many as the code says.
    WrongCopies,
    IdsExhausted,
    /// A lease of no keys or of more than `KEYS_IN_LEASE_MAX`.
    LeaseSize,
    /// A watermark or a mirror of this datacenter itself.
    OwnWatermark,
    /// More volumes in one command than `MIRRORS_IN_COMMAND_MAX`.
    TooManyMirrors,
}

/// Most mirrors that one command assigns.
pub const MIRRORS_IN_COMMAND_MAX: usize = 1024;
/// Most needle keys in one lease.
pub const KEYS_IN_LEASE_MAX: u64 = 1 << 20;

impl Command {
    pub fn encode(&self) -> Bytes {
        encode_record(RecordKind::ControlCommand, COMMAND_VERSION, self).into()
    }

    /// # Errors
    /// `RecordError` when the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(RecordKind::ControlCommand, COMMAND_VERSION, bytes)
    }
}

impl Response {
    pub fn encode(&self) -> Bytes {
        encode_record(RecordKind::Response, RESPONSE_VERSION, self).into()
    }

    /// # Errors
    /// `RecordError` when the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(RecordKind::Response, RESPONSE_VERSION, bytes)
    }
}
