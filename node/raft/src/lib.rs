//! Many raft groups over one store: openraft, its log, its state machine, its network.
//!
//! A node runs one [`RaftHost`]; each group of it (control, the catalog, the partitions) is a [`Group`] that takes
//! opaque commands and applies them through a `Machine`; a [`Route`] reaches a group from any node of the datacenter, be
//! it the leader, another replica or none. openraft stays inside this crate: no type of it is public, so
//! that another release of it, or another raft, is a change of this crate only. It does not stamp, batch, retry or
//! route: its users do. What lies on disk is docs/formats/raft-log.md.
//!
//! Invariants: a proposal is answered after its entry is durable on a quorum and applied here; a group whose store or
//! machine fails stops here and never acknowledges again; openraft's allowance for logs that revert stays off (rule 7).

mod error;
mod forward;
mod group;
mod held_views;
mod homing;
mod host;
mod leadership;
mod log_store;
mod members;
mod network;
mod recent;
mod record;
mod remote_view;
mod route;
mod service;
mod snapshot;
mod state;
mod trim;
mod types;

pub use error::{ForwardError, ProposeError, RaftError, ReadError};
pub use forward::{ForwardHandler, decode_forwarded, encode_forwarded};
pub use group::{Group, ProposalReceiver};
pub use host::{HostConfig, PeerChannels, RaftHost};
pub use leadership::Leadership;
pub use members::GroupMembers;
pub use remote_view::{ReadView, RemoteView};
pub use route::{Forwarded, Route};
pub use service::RaftService;

#[cfg(test)]
mod suite_tests;
