//! Where volumes are, for clients that ask: the nodes that hold a volume and its needles' numbers here.

use meridian_control::VolumeState;
use meridian_types::{NodeId, ReplicaCode, VolumeId};

use super::BlobError;
use crate::Objects;

/// A node of this datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobNode {
    pub id: NodeId,
    pub name: String,
    pub rack: String,
    /// `host:port` of its REST port.
    pub rest: String,
    pub live: bool,
    pub draining: bool,
}

/// A volume of this datacenter, or a mirror of another one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlaces {
    pub volume: VolumeId,
    /// None for a mirror: its owner knows.
    pub code: Option<ReplicaCode>,
    pub writable: bool,
    pub mirror: bool,
    pub nodes: Vec<NodeId>,
    /// Bytes of the file, live needles and their bytes, where a replica is on this node.
    pub file_bytes: u64,
    pub needles: u64,
    pub bytes: u64,
}

impl Objects {
    /// The nodes of this datacenter, by id.
    pub fn blob_nodes(&self) -> Vec<BlobNode> {
        let control = &self.inner.control;
        let node = |record: meridian_control::NodeRecord| BlobNode {
            id: record.id,
            name: record.info.name.to_string(),
            rack: record.info.rack,
            rest: record.info.rest,
            live: control.is_live(record.id),
            draining: record.draining,
        };
        control.nodes().into_iter().map(node).collect()
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.inner.replicas.node()
    }

    /// Every volume that a node of this datacenter holds, as far as this node knows.
    pub fn volume_places(&self) -> Vec<VolumePlaces> {
        let (control, replicas) = (&self.inner.control, &self.inner.replicas);
        let sizes =
            |volume| replicas.state(volume).map_or((0, 0, 0), |state| (state.committed, state.needles, state.bytes));
        let own = control.volumes().into_iter().map(|record| {
            let (file_bytes, needles, bytes) = sizes(record.id);
            let nodes = std::iter::once(record.primary).chain(record.secondaries).collect();
            let (code, writable) = (Some(record.code), record.state == VolumeState::Open);
            VolumePlaces { volume: record.id, code, writable, mirror: false, nodes, file_bytes, needles, bytes }
        });
        // A datacenter of one node gives its mirrors to nobody: they lie on it.
        let here = replicas.states().into_iter().filter(|state| state.mirror).map(|state| state.header.volume);
        let mut mirrors = control.mirrors();
        for volume in here {
            mirrors.entry(volume).or_insert_with(|| replicas.node());
        }
        let mirrors = mirrors.into_iter().map(|(volume, node)| {
            let (file_bytes, needles, bytes) = sizes(volume);
            let nodes = vec![node];
            VolumePlaces { volume, code: None, writable: false, mirror: true, nodes, file_bytes, needles, bytes }
        });
        own.chain(mirrors).collect()
    }

    /// The nodes here that hold a volume; this node where only another datacenter has it, for it finds that one's blobs.
    ///
    /// # Errors
    /// `NotFound` for a volume that no datacenter can have.
    pub fn volume_nodes(&self, volume: VolumeId) -> Result<Vec<NodeId>, BlobError> {
        let control = &self.inner.control;
        if let Some(record) = control.volume(volume) {
            return Ok(std::iter::once(record.primary).chain(record.secondaries).collect());
        }
        let owner = volume.datacenter();
        if owner == self.datacenter() || !control.is_member(owner) {
            return Err(BlobError::NotFound);
        }
        Ok(vec![control.mirror_node(volume).unwrap_or_else(|| self.node_id())])
    }

    /// Makes volumes of a code ready on this node, at least one; returns how many take appends.
    ///
    /// # Errors
    /// `Impossible` says what is missing for the code; `Unavailable`.
    pub async fn grow_volumes(&self, code: Option<ReplicaCode>) -> Result<usize, BlobError> {
        let code = code.unwrap_or(self.inner.config.default_code);
        self.check_code(code)?;
        self.inner.control.lease_volume(code).await?;
        let open = |record: &meridian_control::VolumeRecord| {
            record.state == VolumeState::Open && record.code == code && record.primary == self.node_id()
        };
        Ok(self.inner.control.volumes().iter().filter(|record| open(record)).count())
    }
}
