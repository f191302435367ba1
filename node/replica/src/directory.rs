//! Where replicas are: what this crate asks of the control group.

use async_trait::async_trait;
use meridian_types::{Epoch, FileGeneration, NodeId, ReplicaCode, VolumeId};
use meridian_volume::VolumeHeader;

/// How far the life of a volume has come, by the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its files are being made; the only stage in which a replica's file may be created.
    Creating,
    Open,
    /// The epoch is raised; the length is not decided.
    Sealing,
    Sealed {
        length: u64,
    },
}

/// A registered volume of this datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub volume: VolumeId,
    pub code: ReplicaCode,
    pub generation: FileGeneration,
    pub epoch: Epoch,
    pub stage: Stage,
    pub primary: NodeId,
    pub secondaries: Vec<NodeId>,
}

impl Placement {
    /// All nodes with a replica, the primary first.
    pub fn replicas(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(self.primary).chain(self.secondaries.iter().copied())
    }

    pub fn header(&self) -> VolumeHeader {
        let Self { volume, generation, epoch, code, .. } = *self;
        VolumeHeader { volume, generation, epoch, code }
    }
}

/// How a node of this datacenter is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// `host:port` of the bulk port.
    pub bulk: String,
    /// The name in the node's certificate (`meridian_wire::tls::server_name`).
    pub server_name: String,
}

/// The registry as this node knows it. Answers come from memory: they are asked for on every append.
#[async_trait]
pub trait ReplicaDirectory: Send + Sync + 'static {
    /// A volume of this datacenter.
    fn volume(&self, volume: VolumeId) -> Option<Placement>;

    /// The volumes with a replica on `node`.
    fn volumes_on(&self, node: NodeId) -> Vec<Placement>;

    fn node(&self, node: NodeId) -> Option<NodeAddress>;

    /// An append failed: the volume is to be sealed (rule 1). May be called more than once.
    async fn report_failed(&self, volume: VolumeId, reason: &str);
}
