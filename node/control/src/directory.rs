//! Where the replicas of a volume are, by the control group: what `node/replica` asks of it.
//!
//! Invariants: answers come from what this node has applied; once control is gone, nothing is known.

use std::sync::Weak;

use async_trait::async_trait;
use meridian_replica::{NodeAddress, Placement, ReplicaDirectory, Stage};
use meridian_types::{DatacenterName, NodeId, VolumeId};
use meridian_wire::tls::server_name;

use crate::shell::Inner;
use crate::{VolumeRecord, VolumeState};

/// The registry of this datacenter, from memory.
pub(crate) struct Directory {
    pub(crate) control: Weak<Inner>,
    pub(crate) datacenter: DatacenterName,
}

pub(crate) fn placement(record: &VolumeRecord) -> Placement {
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
        secondaries: record.secondaries.clone(),
    }
}

#[async_trait]
impl ReplicaDirectory for Directory {
    fn volume(&self, volume: VolumeId) -> Option<Placement> {
        self.control.upgrade()?.registry().volume(volume).map(placement)
    }

    fn volumes_on(&self, node: NodeId) -> Vec<Placement> {
        let Some(control) = self.control.upgrade() else { return Vec::new() };
        let registry = control.registry();
        let here = registry.volumes.iter().filter(|record| record.replicas().any(|replica| replica == node));
        here.map(placement).collect()
    }

    fn node(&self, node: NodeId) -> Option<NodeAddress> {
        let registry = self.control.upgrade()?.registry();
        let record = registry.nodes.iter().find(|record| record.id == node)?;
        let server_name = server_name(&record.info.name, &self.datacenter);
        Some(NodeAddress { bulk: record.info.bulk.clone(), server_name })
    }

    async fn report_failed(&self, volume: VolumeId, reason: &str) {
        tracing::warn!(%volume, reason, "a volume is taken out of use");
        if let Some(control) = self.control.upgrade() {
            control.report_failed(volume);
        }
    }
}
