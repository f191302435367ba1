//! The other nodes of this datacenter, as this one asks them for bytes.
//!
//! Invariants: a node is asked only for what lies on its own disks; which node holds a volume is read from control and
//! never guessed.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_control::VolumeRecord;
use meridian_types::{DatacenterName, NodeId, NodeName};
use meridian_wire::LinkTimings;
use meridian_wire::tls::{Identity, server_name};

use crate::bulk_client::BulkClient;
use crate::{PeerNode, ReplicationError};

/// One other node of this datacenter.
pub struct Sibling {
    pub name: NodeName,
    pub bulk: Arc<BulkClient>,
}

/// All of them.
pub struct Siblings(BTreeMap<NodeId, Sibling>);

impl Siblings {
    /// # Errors
    /// When an address or a name of the configuration is not one.
    pub fn new(
        nodes: &[PeerNode],
        datacenter: &DatacenterName,
        identity: &Identity,
        timings: &LinkTimings,
    ) -> Result<Self, ReplicationError> {
        let siblings = nodes
            .iter()
            .map(|node| {
                let name = server_name(&node.name, datacenter);
                let bulk = BulkClient::new(node.bulk.clone(), name, identity, timings.connect_timeout)?;
                Ok((node.node, Sibling { name: node.name.clone(), bulk: Arc::new(bulk) }))
            })
            .collect::<Result<_, ReplicationError>>()?;
        Ok(Self(siblings))
    }

    /// Who else holds a replica of a volume of this datacenter, the primary first.
    pub fn holders(&self, volume: &VolumeRecord) -> Vec<&Sibling> {
        let replicas = [volume.primary].into_iter().chain(volume.secondaries.iter().copied());
        replicas.filter_map(|node| self.0.get(&node)).collect()
    }
}
