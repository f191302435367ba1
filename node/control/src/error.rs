//! What can go wrong between a caller and the control group.

use meridian_types::{DatacenterId, NodeId, ReplicaCode, VolumeId};

/// Why control did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("this node does not lead the control group (leader: {leader:?})")]
    NotLeader { leader: Option<NodeId> },
    #[error("the control group is not available: {reason}")]
    Unavailable { reason: String },
    /// The command may have been committed. Every command is safe to give again.
    #[error("the outcome of a control command is unknown")]
    Unknown,
    /// Rule 7: its disks were restored from an older copy.
    #[error(
        "node {node} registered with boot counter {registered} before and now comes with {given}: its disk went back in \
         time; it must join under a new node id, and its old volumes take no further append"
    )]
    BootCounterWentBack { node: NodeId, registered: u64, given: u64 },
    /// Rule 7, for a whole datacenter.
    #[error(
        "datacenter {datacenter} had boot counter {registered} before and now comes with {given} in the same log incarnation"
    )]
    PeerWentBack { datacenter: DatacenterId, registered: u64, given: u64 },
    /// Rules 3, 7: the volume files know of more than the control group, so ids would be issued twice.
    #[error(
        "volume {volume} has a file here that the control group does not account for ({reason}): its state went back in \
         time; this node must not serve"
    )]
    RegistryWentBack { volume: VolumeId, reason: &'static str },
    /// The code can't be met; the text says what is missing.
    #[error("{0}")]
    Placement(#[from] meridian_topology::PlacementError),
    #[error("no volume of code {code} is writable: {reason}")]
    NoWritableVolume { code: ReplicaCode, reason: String },
    #[error("node {node} is not registered in this datacenter")]
    NoSuchNode { node: NodeId },
    #[error("volume {volume} is not registered here")]
    NoSuchVolume { volume: VolumeId },
    #[error("no more ids are left in this datacenter")]
    IdsExhausted,
    /// The group refused what it should not have been asked: our bug, or a race that the next attempt settles.
    #[error("the control group refused: {0:?}")]
    Refused(crate::Refusal),
    #[error("the clock gives no stamp: {reason}")]
    Clock { reason: String },
    #[error("a volume file: {0}")]
    Volume(#[from] meridian_volume::VolumeError),
    #[error("a replica: {0}")]
    Replica(meridian_replica::ReplicaError),
    #[error("the control group's state is damaged: {reason}")]
    Damaged { reason: String },
    #[error("control is stopped")]
    Stopped,
}
