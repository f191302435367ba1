//! What the driver is told at start: this node, the other datacenters and where their nodes are, and its limits.

use std::time::Duration;

use meridian_types::{DatacenterId, DatacenterName, NodeId, NodeName};
use meridian_wire::{Dialer, LinkTimings, LocalNode};

/// Another node, of this datacenter or of another one. Addresses are `HOST:PORT` and may be a proxy's: TLS checks the name.
#[derive(Debug, Clone)]
pub struct PeerNode {
    pub node: NodeId,
    pub name: NodeName,
    pub rack: String,
    pub grpc: String,
    pub bulk: String,
}

/// Another member datacenter.
#[derive(Debug, Clone)]
pub struct PeerDatacenter {
    pub id: DatacenterId,
    pub name: DatacenterName,
    pub nodes: Vec<PeerNode>,
}

/// How the driver behaves.
#[derive(Debug, Clone)]
pub struct ReplicationConfig {
    pub local: LocalNode,
    pub cluster_name: String,
    pub datacenter_name: DatacenterName,
    pub boot_counter: u64,
    pub peers: Vec<PeerDatacenter>,
    /// The other nodes of this datacenter.
    pub siblings: Vec<PeerNode>,
    pub timings: LinkTimings,
    /// How the other datacenters are dialled, for both lanes.
    pub dialer: Dialer,
    pub limits: ReplicationLimits,
}

/// Limits of the driver; all of them hold for each source datacenter.
#[derive(Debug, Clone)]
pub struct ReplicationLimits {
    /// How long a source keeps a pull open when it has nothing new.
    pub long_poll: Duration,
    /// What is added to it before the call counts as lost.
    pub call_grace: Duration,
    /// Deadline of a call that should be answered at once.
    pub call_deadline: Duration,
    /// Deadline of a question to another node of this datacenter.
    pub sibling_deadline: Duration,
    /// First and longest pause after a failed call.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Bytes of one fetched range of a mirror. Two full chunks with their headers, so that none is fetched twice.
    pub mirror_range_bytes: usize,
    /// Bytes of ranges in flight on one link.
    pub link_bytes_max: usize,
    /// Bytes a second of both lanes on one link; `None` for as many as come.
    pub link_bytes_per_second_max: Option<u64>,
    /// Requests that may wait at the source for bytes that are not yet written, fewer than `BULK_CONNECTIONS_MAX`.
    pub mirror_waits_max: usize,
    /// Failed checks of a range until it is parked.
    pub mirror_attempts_max: u32,
    /// How often the reports of the other datacenters are kept, for when one can't be asked any more.
    pub status_interval: Duration,
    /// Behind by more than this is worth a look, by more than the second worth a call.
    pub lag_warn: Duration,
    pub lag_critical: Duration,
    /// How long a request waits for what its session has seen in other datacenters (rule 21).
    pub session_wait: Duration,
    /// How long an answer waits for the word of other datacenters (rule 25).
    pub remote_ack_wait: Duration,
    /// Watermark reports are committed at most this often.
    pub report_interval: Duration,
    /// A source closes its volumes and registry this often while bytes move, and `close_interval_idle` otherwise.
    pub close_interval: Duration,
    pub close_interval_idle: Duration,
}

impl Default for ReplicationLimits {
    fn default() -> Self {
        Self {
            long_poll: Duration::from_secs(10),
            call_grace: Duration::from_secs(5),
            call_deadline: Duration::from_secs(5),
            sibling_deadline: Duration::from_secs(1),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            mirror_range_bytes: (8 << 20) + (64 << 10),
            link_bytes_max: 24 << 20,
            link_bytes_per_second_max: None,
            mirror_waits_max: 4,
            mirror_attempts_max: 5,
            status_interval: Duration::from_secs(5),
            lag_warn: Duration::from_secs(10),
            lag_critical: Duration::from_secs(60),
            session_wait: Duration::from_secs(5),
            remote_ack_wait: Duration::from_secs(10),
            report_interval: Duration::from_secs(1),
            close_interval: Duration::from_millis(500),
            close_interval_idle: Duration::from_secs(3),
        }
    }
}
