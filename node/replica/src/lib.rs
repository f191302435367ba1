//! Replicas of a volume inside one datacenter: appended in one order, byte-identical, committed when all have it, sealed by
//! rule 1, repaired by copying ranges.
//!
//! `protocol` is pure and decides; the rest is a thin shell over the files of `meridian-volume` and the bulk port. Where
//! replicas are is asked of a `ReplicaDirectory`, which control is; mirrors in other datacenters are the replication
//! driver's. See docs/architecture.md and docs/formats/replica-calls.md.
//!
//! Invariants:
//! - An append is acknowledged when it is durable on every replica, in order (promise 1, rule 1).
//! - Within an epoch every offset has one content; a fenced primary never acknowledges late.
//! - What fails its checksum is read elsewhere and repaired, never served (promise 8).

mod call;
mod client;
mod directory;
mod ending;
mod error;
mod inbox;
mod peers;
mod primary_replica;
pub mod protocol;
mod reading;
mod replicas;
mod routes;
mod secondary_replica;

pub use call::PATH_PREFIX;
pub use directory::{NodeAddress, Placement, ReplicaDirectory, Stage};
pub use error::{PeerError, Refusal, ReplicaError};
pub use protocol::sealing::{Decision, Undecided};
pub use replicas::{ReplicaTimings, Replicas, ReplicasConfig};
pub use routes::PeerHandler;
