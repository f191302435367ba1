//! What nodes say to each other: the gRPC services generated from `proto/*.proto`, the checks that stand between
//! a message and the types of the program, and the mutual TLS under both gRPC and the bulk HTTP/1.1 port.
//!
//! It does not decide anything: no retry, no routing, no state. Bulk bytes do not travel over gRPC.
//!
//! Invariants:
//! - A message of another cluster or of an unknown protocol version is refused (FAILED_PRECONDITION) before
//!   anything else of it is looked at; a field out of range is refused (INVALID_ARGUMENT), never cut to fit.
//! - No connection is made or taken without both sides proving an identity of the cluster's own authority.
//! - Every message, window and wait has a limit with a name, in `limits` or `LinkTimings`.

mod caller;
mod channel;
mod codec;
mod dialer;
mod entries;
pub mod fields;
mod incoming;
pub mod limits;
mod server;
pub mod tls;

pub use caller::{CallerError, LocalNode, Members, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Peer, Shown};
pub use channel::{ChannelError, LinkTimings, call, channel, raft_client, replication_client};
pub use dialer::{BoxedPipe, Dialer, Listener, Pipe};
pub use entries::{EntriesError, PackedEntries, pack_entries, unpack_entries};
pub use fields::FieldError;
pub use incoming::{Connection, Incoming, incoming, incoming_limited};
pub use server::{raft_server, replication_server, server};

/// The generated code, in the package tree of the .proto files.
mod generated {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("meridian.common.v1");
        }
    }
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("meridian.raft.v1");
        }
    }
    pub mod replication {
        pub mod v1 {
            tonic::include_proto!("meridian.replication.v1");
        }
    }
}

/// Messages that all services share.
pub use generated::common::v1 as common;
/// Raft between the nodes of a datacenter: `raft_client::RaftClient`, `raft_server::{Raft, RaftServer}`.
pub use generated::raft::v1 as raft;
/// Replication between datacenters: `replication_client::ReplicationClient`,
/// `replication_server::{Replication, ReplicationServer}`.
pub use generated::replication::v1 as replication;
