//! What can go wrong between a gateway and a partition. Each variant says what the caller may do next.

use meridian_types::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// Why a partition did not do what it was asked.
///
/// `NotLeader`, `Unavailable`, `Busy`, `Clock`, `Skewed`, `NotHere` and `DiskFailed` promise that nothing was or will be committed; `Unknown`
/// promises nothing: the same request id may be proposed again, and only that (rule 11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MetaError {
    #[error("partition {partition}: this node does not lead it (leader: {leader:?})")]
    NotLeader { partition: PartitionId, leader: Option<NodeId> },
    #[error("partition {partition} is not available: {reason}")]
    Unavailable { partition: PartitionId, reason: String },
    /// The proposal may have been committed or may yet be (rule 11).
    #[error("partition {partition}: the outcome of the proposal is unknown")]
    Unknown { partition: PartitionId },
    #[error("partition {partition} has too many proposals waiting")]
    Busy { partition: PartitionId },
    /// A remote stamp lies further ahead than `max_clock_skew`; the batch was not proposed (rule 9, 10).
    #[error("a remote stamp is {ahead_ms} ms ahead of this datacenter's clock")]
    Skewed { ahead_ms: u64 },
    /// The clock gave no stamp in time, or refuses to (rule 10).
    #[error("partition {partition}: no stamp: {reason}")]
    Clock { partition: PartitionId, reason: String },
    /// The encoded proposal is larger than a raft entry may be.
    #[error("partition {partition}: a proposal of {size} bytes is above the largest allowed, {size_max}")]
    TooLarge { partition: PartitionId, size: usize, size_max: usize },
    /// This node holds no replica of it; only what goes to the leader can be had.
    #[error("partition {partition} has no replica on this node")]
    NotHere { partition: PartitionId },
    #[error("there is no partition {partition} in this cluster")]
    NoSuchPartition { partition: PartitionId },
    /// The partition's state or a response of it does not decode; the group is of no use until it is repaired.
    #[error("partition {partition} is damaged: {reason}")]
    Damaged { partition: PartitionId, reason: String },
    #[error("the object index is stopped")]
    Stopped,
    /// A write or a sync failed earlier on this node (rule 6): it takes nothing and shows nothing until it is started again.
    #[error(
        "partition {partition}: the disk of this node has failed, nothing is taken from it or given to it: {reason}; \
             see to the disk and restart the node, or ask another one"
    )]
    DiskFailed { partition: PartitionId, reason: String },
}
