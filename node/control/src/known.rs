//! What others than the replicas know of a volume's committed length (rule 1).
//!
//! The replication driver answers: it hears the primaries of this datacenter, and the mirrors in others. It starts after
//! control, so it is attached later.
//!
//! Invariant: an answer is a length that was committed once, so a replica below it has lost bytes that were acknowledged.

use async_trait::async_trait;
use meridian_types::VolumeId;

/// See the module.
#[async_trait]
pub trait KnownLengths: Send + Sync {
    /// The greatest committed length of a volume that is known outside of this node's replica, in bytes; 0 when nobody knows
    /// of any. Nobody is waited for beyond a second or so: a mirror that can't be asked holds up no seal.
    async fn committed(&self, volume: VolumeId) -> u64;
}
