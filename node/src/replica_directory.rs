//! Where the replicas of a volume are, by the control group: what `node/replica` asks of it.

use async_trait::async_trait;
use meridian_control::{Control, VolumeRecord, VolumeState};
use meridian_replica::{NodeAddress, Placement, ReplicaDirectory, Stage};
use meridian_types::{DatacenterName, NodeId, VolumeId};
use meridian_wire::tls::server_name;

/// The registry of this datacenter, from memory.
pub struct ControlDirectory {
    control: Control,
    datacenter: DatacenterName,
}

impl ControlDirectory {
    pub fn new(control: Control, datacenter: DatacenterName) -> Self {
        Self { control, datacenter }
    }
}

fn placement(record: VolumeRecord) -> Placement {
    let stage = match (record.state, record.sealed_length) {
        (VolumeState::Creating, _) => Stage::Creating,
        (VolumeState::Open, _) => Stage::Open,
        (VolumeState::Sealed, Some(length)) => Stage::Sealed { length },
        (VolumeState::Sealing | VolumeState::Sealed, _) => Stage::Sealing,
    };
    Placement {
        volume: record.id,
        code: record.code,
        generation: record.generation,
        epoch: record.epoch,
        stage,
        primary: record.primary,
        secondaries: record.secondaries,
    }
}

#[async_trait]
impl ReplicaDirectory for ControlDirectory {
    fn volume(&self, volume: VolumeId) -> Option<Placement> {
        self.control.volume(volume).map(placement)
    }

    fn volumes_on(&self, node: NodeId) -> Vec<Placement> {
        let placements = self.control.volumes().into_iter().map(placement);
        placements.filter(|placement| placement.replicas().any(|replica| replica == node)).collect()
    }

    fn node(&self, node: NodeId) -> Option<NodeAddress> {
        let record = self.control.nodes().into_iter().find(|record| record.id == node)?;
        Some(NodeAddress { bulk: record.info.bulk, server_name: server_name(&record.info.name, &self.datacenter) })
    }

    async fn report_failed(&self, volume: VolumeId, reason: &str) {
        tracing::warn!(%volume, reason, "a volume is taken out of use");
        self.control.report_failed(volume).await;
    }
}
