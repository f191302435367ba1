//! Why an operation on the replicas of a volume did not happen, and what the caller does next.

use meridian_types::{DatacenterId, Epoch, Fid, FileGeneration, NodeId, VolumeId};
use meridian_volume::VolumeError;
use serde::{Deserialize, Serialize};

use crate::protocol::sealing::Undecided;
use crate::protocol::secondary::Refused;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// By the only replica, which is here.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The append may or may not be in the volume, and was not acknowledged.
    #[error("volume {volume} takes no append: {reason}")]
    TakeAnother { volume: VolumeId, reason: String },
    #[error("append to volume {volume}: {reason}")]
    Append { volume: VolumeId, reason: String },
    /// By a replica that has all there is.
    #[error("no needle {0:?}")]
    NoSuchNeedle(Fid),
    #[error("no replica of volume {volume} could be read: {reason}")]
    Unreadable { volume: VolumeId, reason: String },
    #[error("volume {0} is not registered in this datacenter")]
    NoSuchVolume(VolumeId),
    #[error("volume {volume} is not sealed: {source}")]
    Sealing { volume: VolumeId, source: Undecided },
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl ReplicaError {
    /// Why the clock gave no stamp, if that is what an append failed for (rules 7, 10).
    pub fn no_stamp(&self) -> Option<String> {
        match self {
            Self::Volume(VolumeError::Clock { source, .. }) => Some(source.to_string()),
            _ => None,
        }
    }

    /// Whether the same append may succeed at once in another volume; the failed one is to be reported.
    pub fn take_another(&self) -> bool {
        match self {
            Self::Volume(error) => error.take_another(),
            Self::TakeAnother { .. } | Self::NoSuchVolume(_) | Self::Peer(_) => true,
            _ => false,
        }
    }

    /// Whether it is certain that there is no such needle.
    pub fn is_no_such_needle(&self) -> bool {
        matches!(self, Self::NoSuchNeedle(_) | Self::Volume(VolumeError::NoSuchNeedle(_)))
    }
}

/// What went wrong between two nodes.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("node {0} is not known in this datacenter")]
    UnknownNode(NodeId),
    #[error("this node has no identity to reach others with")]
    NoIdentity,
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("no answer from {address} within {after_ms} ms")]
    Deadline { address: String, after_ms: u128 },
    #[error("{address} broke the exchange: {source}")]
    Exchange { address: String, source: hyper::Error },
    #[error("{address} refuses: {refusal}")]
    Refused { address: String, refusal: Refusal },
    #[error("{address} answered what can't be understood: {reason}")]
    Answer { address: String, reason: String },
    #[error("{name:?} is no server name")]
    Name { name: String },
}

/// Why a peer does not do what it is asked; travels as JSON. Names are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("the call can't be understood: {0}")]
    Call(String),
    #[error("the call is of another cluster")]
    OtherCluster,
    #[error("the call is of datacenter {0}")]
    OtherDatacenter(DatacenterId),
    #[error("the call is for node {0}, which is not this one")]
    OtherNode(NodeId),
    #[error("the certificate is not that of node {0} of this datacenter")]
    OtherCertificate(NodeId),
    #[error("volume {0} is not here")]
    NoSuchVolume(VolumeId),
    #[error("the volume's file is at generation {current}")]
    WrongGeneration { current: FileGeneration },
    #[error("the volume is at epoch {current}, not {asked}")]
    WrongEpoch { current: Epoch, asked: Epoch },
    #[error("node {0} is not the volume's primary")]
    NotPrimary(NodeId),
    #[error(transparent)]
    Protocol(Refused),
    #[error("the replica is incomplete: {0}")]
    Incomplete(String),
    /// For an append: another volume may take it.
    #[error("{0}")]
    TakeAnother(String),
    /// For a read: certain, for this replica has all there is.
    #[error("no such needle")]
    NoSuchNeedle,
    #[error("{0}")]
    Failed(String),
}
