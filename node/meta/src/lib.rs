//! The partitions of the object index and the catalog as raft groups of this node.
//!
//! What it is for: stamping mutations in order, proposing them, reading at a read index, applying the batches of
//! other datacenters, and closing timestamps. What it does not do: say what a mutation means (`index`), move
//! bytes (`volume`), or talk to another datacenter (`replication`).
//!
//! Invariants: one proposer task per partition stamps and proposes, so stamp order is log order; nothing is stamped
//! before this node serves as leader (rule 9); a proposal of unknown outcome is retried only under its request id
//! (rule 11).

mod closing;
mod error;
mod meta;
mod proposer;
mod slot;

pub use error::MetaError;
pub use meridian_raft::{GroupMembers, ReadView};
pub use meta::{Meta, MetaConfig};
