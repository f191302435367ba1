//! The replication driver of a node: pulls the logs and the mirrors of the other datacenters, serves this one's, and
//! says how far each is behind.
//!
//! Both lanes are pulled by the destination: metadata by gRPC (`metadata_lane`), bytes by HTTP/1.1 (`blob_lane`).
//! What is applied, when to retry and what counts is decided in the pure crates; this crate performs it.
//!
//! Invariants: nothing waits for ever on a peer; a stale link state never outlives a recovered peer; all figures that
//! are shown come from committed cursors, durable mirrors and committed reports (rule 27).

mod ack;
mod all_conflicts;
mod blob_lane;
mod booting;
mod bulk_client;
mod bulk_server;
mod closing;
mod config;
mod conflicts;
mod driver;
mod error;
mod explain;
mod exposure;
mod forward;
mod inventory;
mod link_limits;
mod metadata_lane;
mod mirror_fetch;
mod needle_deletes;
mod parked;
mod rates;
mod remote;
mod report;
mod seen;
mod service;
mod siblings;
mod sources;
mod stable;
mod status;
mod verdict;
mod wait;
mod words;

pub use booting::{Heard, hear_peers};
pub use bulk_client::{BulkClient, BulkError};
pub use bulk_server::{ForwardHandler, serve_bulk};
pub use config::{PeerDatacenter, PeerNode, ReplicationConfig, ReplicationLimits};
pub use conflicts::{CONFLICTS_PAGE_MAX, Conflict, ConflictPage, ConflictQuery};
pub use driver::Replication;
pub use error::ReplicationError;
pub use explain::{Explanation, VersionAt};
pub use inventory::{CopyListing, NodeListing, VolumeListing};
pub use parked::{ParkedVolume, RetryRequest};
pub use report::LiveNodes;
pub use service::{BootMemory, ReplicationService};
pub use stable::StableStatus;
pub use status::{DatacenterStatus, Exposure, LagCell, LinkStatus, MissingBytes, ReplicationStatus};
pub use verdict::{LagState, Verdict};
pub use wait::{OriginPoint, WaitFailure, WaitReport, WaitRequest};
pub use words::{short_bytes, short_count, short_duration};
