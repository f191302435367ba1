//! Who takes part in a group: voters, and learners that hold a copy of its state without a vote.
//!
//! Invariants: no node is both; at least one voter.

use std::collections::BTreeSet;

use meridian_types::NodeId;

/// The members that a group is bootstrapped with; every node of the datacenter is given the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMembers {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    first: NodeId,
}

impl GroupMembers {
    /// The voters, of which `first` bootstraps the group and is elected first, so that leaders can be spread.
    ///
    /// # Panics
    /// When `first` is no voter.
    pub fn new(voters: BTreeSet<NodeId>, first: NodeId) -> Self {
        assert!(voters.contains(&first), "the first leader is one of the voters");
        Self { voters, learners: BTreeSet::new(), first }
    }

    /// With nodes that follow without a vote; those that vote are left out.
    #[must_use]
    pub fn with_learners(mut self, learners: impl IntoIterator<Item = NodeId>) -> Self {
        self.learners.extend(learners);
        self.learners.retain(|node| !self.voters.contains(node));
        self
    }

    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    pub fn learners(&self) -> &BTreeSet<NodeId> {
        &self.learners
    }

    /// Who bootstraps the group.
    pub fn first(&self) -> NodeId {
        self.first
    }

    /// Whether the node holds the group's state.
    pub fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

impl From<BTreeSet<NodeId>> for GroupMembers {
    /// Voters only; the smallest id is the first leader.
    fn from(voters: BTreeSet<NodeId>) -> Self {
        let first = *voters.first().expect("a group has a voter");
        Self::new(voters, first)
    }
}
