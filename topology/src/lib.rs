//! The tree of datacenters, racks and nodes, and where the copies of a replica code go. Pure.
//!
//! What it is for: one policy that both selects and validates placements. What it does not do: know by itself who is
//! alive, or decide (only the control group does).
//!
//! Invariants: the letters of a code are met exactly or the placement is refused with what is missing, never silently
//! degraded; the same tree gives the same answer everywhere.

mod error;
mod groups;
mod policy;
mod tree;

pub use error::PlacementError;
pub use groups::{Group, Member, PARTITION_REPLICAS_MAX, control_voters, control_voters_count, partition_groups};
pub use policy::{LocalSet, Policy};
pub use tree::{Datacenter, Node, Rack, Tree};
