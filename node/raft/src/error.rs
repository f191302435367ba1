//! What can go wrong, as callers need it: whether a proposal may still take effect, and who leads instead.

use meridian_store::{GroupId, StoreError};
use meridian_types::NodeId;
use serde::{Deserialize, Serialize};

/// Why a host or a group does not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    #[error("members of group {group} do not name this node {node}")]
    NotAMember { group: GroupId, node: NodeId },
    #[error("group {group} runs already")]
    Running { group: GroupId },
    #[error("raft configuration: {reason}")]
    Config { reason: String },
    #[error("start group {group}: {reason}")]
    Start { group: GroupId, reason: String },
    #[error("host is shut down")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProposeError {
    /// Not proposed, and never will be.
    #[error("this node does not lead; leader: {leader:?}")]
    NotLeader { leader: Option<NodeId> },
    /// Not proposed: too many proposals of the group wait.
    #[error("too many proposals wait")]
    Busy,
    /// The entry may be in the log and may still commit: retry only under its request id (rule 11).
    #[error("outcome of the proposal is unknown")]
    Unknown,
    /// Not proposed: the group is stopped here.
    #[error("group is stopped")]
    Stopped,
}

/// Why a read can't be linearizable here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead; leader: {leader:?}")]
    NotLeader { leader: Option<NodeId> },
    #[error("no quorum confirms that this node leads")]
    NoQuorum,
    /// The leader did not answer, or what it answered for was not applied here in time.
    #[error("the read is not confirmed in time: {reason}")]
    Unconfirmed { reason: String },
    #[error("group is stopped")]
    Stopped,
}

/// Why a forwarded request has no answer of the group's owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Not sent: nobody is known to lead the group.
    #[error("no leader of the group is known")]
    NoLeader,
    /// It may have been taken: what it asked for may yet happen (rule 11).
    #[error("node {node} gave no answer: {reason}")]
    Unknown { node: NodeId, reason: String },
}
