//! The rows of the control group, their keys and their codec: docs/formats/control.md.
//!
//! ```text
//! s                     the counters of the group
//! n  node id (u32 BE)   a registered node
//! v  volume id (u32 BE) a registered volume
//! w  datacenter (u8)    the watermarks of a source
//! a  datacenter (u8)    how far each partition has applied a source's log
//! r  datacenter (u8), node id (u32 BE)   how far a node's mirrors of a source are complete
//! m  volume id (u32 BE) the node that holds the mirror of another datacenter's volume
//! p  datacenter (u8), node id (u32 BE)   a node of a peer datacenter
//! ```
//!
//! These are plain values; what changes them is in `machine`. Invariants: each row is one record of kind `ControlState`
//! that says which row it is, so that one read from the wrong key is refused; ids sort in their keys as they count.

use std::collections::BTreeMap;

use meridian_index::kv::{KvError, KvRead, Step};
use meridian_types::{
    DatacenterId, Epoch, FileGeneration, Incarnation, NodeId, NodeName, PartitionId, RecordError, RecordKind,
    ReplicaCode, RequestId, Timestamp, VolumeId, decode_record, encode_record,
};
use serde::{Deserialize, Serialize};

const ROW_VERSION: u8 = 1;
/// Longest reason of a held stream that is kept, in bytes.
pub const HELD_REASON_LENGTH_MAX: usize = 512;

/// Where a node is and how it is reached; addresses are `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: NodeName,
    pub rack: String,
    pub s3: String,
    pub rest: String,
    pub grpc: String,
    pub bulk: String,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub info: NodeInfo,
    /// The greatest boot counter that it registered with (rule 7).
    pub boot_counter: u64,
    /// Names the registration, so that a retry of unknown outcome is not taken for a counter that stood still.
    pub session: RequestId,
    /// Takes no further volume.
    pub draining: bool,
}

/// What a node of another datacenter last said of itself (rule 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    pub datacenter: DatacenterId,
    pub node: NodeId,
    /// How often it has started on its disk.
    pub boot_counter: u64,
    /// Names that start: another one under the same counter is one of a disk that went back.
    pub session: RequestId,
    /// Of its datacenter's log.
    pub incarnation: Incarnation,
}

impl PeerRecord {
    /// Whether `said`, which comes later, tells of a disk that went back (rule 7). A new incarnation of the log is how a
    /// datacenter says that it knows.
    pub fn went_back(&self, said: &PeerRecord) -> bool {
        let is_twin = said.boot_counter == self.boot_counter && said.session != self.session;
        let is_earlier = said.boot_counter < self.boot_counter;
        said.incarnation < self.incarnation || (said.incarnation == self.incarnation && (is_earlier || is_twin))
    }
}

/// The life of a volume. It takes appends only while it is `Open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum VolumeState {
    /// Registered; its files are being made. A missing file may be created, and only in this state.
    Creating,
    Open,
    /// The epoch is raised; no replica has yet given a length (rule 1).
    Sealing,
    Sealed,
}

/// A registered volume of this datacenter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub id: VolumeId,
    pub code: ReplicaCode,
    pub state: VolumeState,
    pub epoch: Epoch,
    pub generation: FileGeneration,
    pub primary: NodeId,
    /// The other replicas in this datacenter.
    pub secondaries: Vec<NodeId>,
    /// The datacenters that hold a mirror.
    pub mirrors: Vec<DatacenterId>,
    /// Set once sealed.
    pub sealed_length: Option<u64>,
    /// Every needle in it is stamped above this, and this is above every registry close before it (rule 13).
    pub created: Timestamp,
}

impl VolumeRecord {
    /// The nodes that hold it in this datacenter, the primary first.
    pub fn replicas(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(self.primary).chain(self.secondaries.iter().copied())
    }
}

/// What this datacenter has of another, as committed: only forward (rules 13, 27).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkReport {
    pub source: DatacenterId,
    /// Everything stamped at or below it at the source is visible here.
    pub meta: Timestamp,
    /// And every byte whose code gives this datacenter a copy is durable here.
    pub data: Timestamp,
    /// By this datacenter's clock.
    pub reported_at: Timestamp,
    /// Parked ranges of this source's mirrors.
    pub parked: u64,
    /// Why a metadata stream from this source is held, if one is; at most `HELD_REASON_LENGTH_MAX` bytes.
    pub held: Option<String>,
}

/// What one node has of one source, as it gives it to the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    pub source: DatacenterId,
    /// How far each partition that this node leads has applied the source's log.
    pub applied: Vec<(PartitionId, Timestamp)>,
    /// How far the mirrors that this node was given are complete; bounded by the list of volumes that it knows.
    pub data: Timestamp,
    /// By this datacenter's clock.
    pub reported_at: Timestamp,
    /// Parked ranges of the source's mirrors on this node.
    pub parked: u64,
    /// Why a metadata stream from the source is held, if one is; at most `HELD_REASON_LENGTH_MAX` bytes.
    pub held: Option<String>,
    /// How often mirrors of the source had been moved to this node when it computed `data` (`Control::mirror_moves`).
    pub moves: u64,
}

/// The last report of a node that holds mirrors of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeProgress {
    pub(crate) source: DatacenterId,
    pub(crate) node: NodeId,
    pub(crate) data: Timestamp,
    pub(crate) parked: u64,
    pub(crate) held: Option<String>,
    /// How often mirrors were moved to it: a report that knows of fewer moves is older than the last one.
    pub(crate) moves: u64,
}

/// How far the partitions have applied a source's log; one that is missing counts as zero (rule 13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) source: DatacenterId,
    pub(crate) partitions: BTreeMap<PartitionId, Timestamp>,
}

/// Which node holds the mirror of another datacenter's volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRecord {
    pub volume: VolumeId,
    pub node: NodeId,
}

/// The counters of the group. None ever goes back, so nothing that they count is issued twice (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// The counter of the next volume id.
    pub next_volume: u32,
    /// The first needle key that is not leased.
    pub next_key: u64,
    /// No later volume is created at or below it (rule 13).
    pub registry_closed: Timestamp,
    /// Registrations of nodes so far: what this datacenter tells its peers as its boot counter (rule 7).
    pub boot_counter: u64,
    /// Raised with every change of a volume's record or of `registry_closed`.
    pub registry_version: u64,
    /// The incarnation of this datacenter's logs for which volumes and counters were renewed last (rule 7).
    pub renewed: Incarnation,
}

impl Default for ControlState {
    /// Of a datacenter that has registered nothing. Volume 0 and key 0 are never issued.
    fn default() -> Self {
        Self {
            next_volume: 1,
            next_key: 1,
            registry_closed: Timestamp::ZERO,
            boot_counter: 0,
            registry_version: 0,
            renewed: Incarnation(0),
        }
    }
}

/// Any row. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Row {
    State(ControlState),
    Node(NodeRecord),
    Volume(VolumeRecord),
    Watermark(WatermarkReport),
    Peer(PeerRecord),
    Applied(Applied),
    Progress(NodeProgress),
    Mirror(MirrorRecord),
}

/// Why a row can't be read: the store's failure, or damage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("control row {key}: {source}")]
    Record { key: String, source: RecordError },
    #[error("control row {key} holds another row")]
    Misplaced { key: String },
}

pub(crate) const STATE_KEY: &[u8] = b"s";
pub(crate) const NODES: u8 = b'n';
pub(crate) const VOLUMES: u8 = b'v';
pub(crate) const WATERMARKS: u8 = b'w';
pub(crate) const PEERS: u8 = b'p';
pub(crate) const MIRRORS: u8 = b'm';
pub(crate) const PROGRESS: u8 = b'r';

pub(crate) fn node_key(node: NodeId) -> Vec<u8> {
    [&[NODES], node.0.to_be_bytes().as_slice()].concat()
}

pub(crate) fn volume_key(volume: VolumeId) -> Vec<u8> {
    [&[VOLUMES], volume.get().to_be_bytes().as_slice()].concat()
}

pub(crate) fn watermark_key(source: DatacenterId) -> Vec<u8> {
    vec![WATERMARKS, source.get()]
}

pub(crate) fn applied_key(source: DatacenterId) -> Vec<u8> {
    vec![b'a', source.get()]
}

/// Before the keys of all nodes' progress with a source.
pub(crate) fn progress_prefix(source: DatacenterId) -> [u8; 2] {
    [PROGRESS, source.get()]
}

pub(crate) fn progress_key(source: DatacenterId, node: NodeId) -> Vec<u8> {
    [progress_prefix(source).as_slice(), node.0.to_be_bytes().as_slice()].concat()
}

pub(crate) fn mirror_key(volume: VolumeId) -> Vec<u8> {
    [&[MIRRORS], volume.get().to_be_bytes().as_slice()].concat()
}

pub(crate) fn peer_key(datacenter: DatacenterId, node: NodeId) -> Vec<u8> {
    [[PEERS, datacenter.get()].as_slice(), node.0.to_be_bytes().as_slice()].concat()
}

impl Row {
    /// Where the row stands.
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Row::State(_) => STATE_KEY.to_vec(),
            Row::Node(node) => node_key(node.id),
            Row::Volume(volume) => volume_key(volume.id),
            Row::Watermark(report) => watermark_key(report.source),
            Row::Peer(peer) => peer_key(peer.datacenter, peer.node),
            Row::Applied(applied) => applied_key(applied.source),
            Row::Progress(progress) => progress_key(progress.source, progress.node),
            Row::Mirror(mirror) => mirror_key(mirror.volume),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_record(RecordKind::ControlState, ROW_VERSION, self)
    }

    /// Opens the row that was read at `key`, and checks that it belongs there.
    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, RowError> {
        let shown = || key.escape_ascii().to_string();
        let row: Row = decode_record(RecordKind::ControlState, ROW_VERSION, bytes)
            .map_err(|source| RowError::Record { key: shown(), source })?;
        if row.key() == key { Ok(row) } else { Err(RowError::Misplaced { key: shown() }) }
    }

    pub(crate) fn read(kv: &dyn KvRead, key: &[u8]) -> Result<Option<Self>, RowError> {
        kv.get(key)?.map(|bytes| Self::decode(key, &bytes)).transpose()
    }

    /// All rows whose keys start with `prefix`, in the order of their keys.
    pub(crate) fn read_all(kv: &dyn KvRead, prefix: u8) -> Result<Vec<Self>, RowError> {
        Self::read_between(kv, &[prefix], &[prefix + 1])
    }

    /// All rows whose keys lie in `[start, end)`, in order.
    pub(crate) fn read_between(kv: &dyn KvRead, start: &[u8], end: &[u8]) -> Result<Vec<Self>, RowError> {
        let mut rows = Vec::new();
        let mut failed = None;
        kv.scan(start, end, &mut |key, value| match Self::decode(key, value) {
            Ok(row) => {
                rows.push(row);
                Step::Next
            }
            Err(error) => {
                failed = Some(error);
                Step::Stop
            }
        })?;
        failed.map_or(Ok(rows), Err)
    }
}

#[cfg(test)]
mod tests;
