//! Limits of the internal protocol, in bytes unless the name says otherwise. A message above its limit is refused
//! with RESOURCE_EXHAUSTED by the side that would have to take it, before it is read.

use meridian_types::limits::{LOG_BATCH_SIZE_MAX, MUTATION_SIZE_MAX, PARTITIONS_MAX};

/// Largest raft message: several appended entries of at most `MUTATION_SIZE_MAX`. Above tonic's 4 MiB default.
pub const RAFT_MESSAGE_SIZE_MAX: usize = 32 << 20;
/// Largest message of the replication service: the batches of many partitions in one reply.
pub const REPLICATION_MESSAGE_SIZE_MAX: usize = 32 << 20;
/// Most bytes of entries that a puller may ask for in one reply; with one entry too many it still fits a message.
pub const PULL_SIZE_MAX: usize = 16 << 20;
/// Most cursors of one pull: every partition and the catalog.
pub const PULL_CURSORS_MAX: usize = PARTITIONS_MAX as usize + 1;
/// Largest entries block of one partition's batch before compression: a full batch, one entry that comes whole
/// although it does not fit, and their framing.
pub const ENTRIES_SIZE_MAX: usize = LOG_BATCH_SIZE_MAX + MUTATION_SIZE_MAX + (1 << 20);
/// Largest piece of a snapshot's data.
pub const SNAPSHOT_PIECE_SIZE_MAX: usize = 1 << 20;
/// Longest text for an operator (a refusal, a reason) that is taken over from a peer.
pub const DETAIL_LENGTH_MAX: usize = 512;

/// HTTP/2 flow-control window of one stream: 8 MiB carry 40 MB/s over 200 ms.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 flow-control window of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Connections at the gRPC port. Every other node of the cluster needs a few.
pub const CONNECTIONS_MAX: usize = 1024;
/// Most requests that one connection may have open at a server.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Largest header list of an internal request.
pub const HEADER_LIST_SIZE_MAX: u32 = 16 << 10;

const _: () = assert!(PULL_SIZE_MAX + ENTRIES_SIZE_MAX < REPLICATION_MESSAGE_SIZE_MAX);
const _: () = assert!(2 * MUTATION_SIZE_MAX < RAFT_MESSAGE_SIZE_MAX);
