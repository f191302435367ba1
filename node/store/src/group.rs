//! Ids of the raft groups of a node: the prefix of all their keys.
//!
//! Invariants: the mapping is part of the disk format and never changes; partitions start at 16, so that the numbers
//! below stay free for groups that a node has once; an id fits 31 bits, because the top bit of a prefix is the slot.

use std::fmt;

use meridian_types::PartitionId;

/// The bit of a state key's prefix that says which of two slots it lies in.
pub(crate) const SLOT_BIT: u32 = 1 << 31;

/// A raft group of a datacenter, below 2^31. Its big-endian bytes prefix every key of the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The control group of the datacenter.
    pub const CONTROL: GroupId = GroupId(0);
    /// The catalog: buckets and users.
    pub const CATALOG: GroupId = GroupId(1);

    const PARTITIONS_START: u32 = 16;

    /// The group of a partition of the object index, the catalog's included.
    pub fn partition(partition: PartitionId) -> GroupId {
        if partition.is_catalog() { Self::CATALOG } else { GroupId(Self::PARTITIONS_START + u32::from(partition.0)) }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_groups_of_their_own() {
        assert_eq!(GroupId::partition(PartitionId(0)), GroupId(16));
        assert_eq!(GroupId::partition(PartitionId(4095)), GroupId(16 + 4095));
        assert_eq!(GroupId::partition(PartitionId::CATALOG), GroupId::CATALOG);
    }
}
