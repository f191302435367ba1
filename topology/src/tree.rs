//! The tree: datacenters, their racks, their nodes with what is known of each.
//!
//! It is a value: the caller builds it from the registry and from what gossip says, and passes it to a policy.
//!
//! Invariants: a node id stands once in a datacenter; iteration is in the order of ids and rack names.

use std::collections::BTreeMap;

use meridian_types::{DatacenterId, DatacenterName, NodeId};

use crate::PlacementError;

/// All datacenters of the cluster, as far as the caller knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    datacenters: BTreeMap<DatacenterId, Datacenter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datacenter {
    pub name: DatacenterName,
    racks: BTreeMap<String, Rack>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rack {
    nodes: BTreeMap<NodeId, Node>,
}

/// What placement wants to know of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub live: bool,
    /// Free for new volumes.
    pub free_bytes: u64,
}

impl Tree {
    /// Adds a datacenter without racks; one that is there already keeps its racks and takes the name.
    pub fn add_datacenter(&mut self, id: DatacenterId, name: DatacenterName) {
        let racks = self.datacenters.remove(&id).map(|datacenter| datacenter.racks).unwrap_or_default();
        self.datacenters.insert(id, Datacenter { name, racks });
    }

    /// # Errors
    /// `UnknownDatacenter`, or `NodeKnown` when the id stands in any rack of the datacenter.
    pub fn add_node(
        &mut self,
        datacenter: DatacenterId,
        rack: &str,
        id: NodeId,
        node: Node,
    ) -> Result<(), PlacementError> {
        let place = self.datacenters.get_mut(&datacenter).ok_or(PlacementError::UnknownDatacenter(datacenter))?;
        if place.find(id).is_some() {
            return Err(PlacementError::NodeKnown { datacenter: place.name.clone(), node: id });
        }
        place.racks.entry(rack.to_owned()).or_default().nodes.insert(id, node);
        Ok(())
    }

    /// # Errors
    /// `UnknownDatacenter`.
    pub fn datacenter(&self, id: DatacenterId) -> Result<&Datacenter, PlacementError> {
        self.datacenters.get(&id).ok_or(PlacementError::UnknownDatacenter(id))
    }

    /// All datacenters, by id.
    pub fn datacenters(&self) -> impl Iterator<Item = (DatacenterId, &Datacenter)> {
        self.datacenters.iter().map(|(id, datacenter)| (*id, datacenter))
    }
}

impl Datacenter {
    /// The rack that a node stands in, and what is known of the node.
    pub fn find(&self, id: NodeId) -> Option<(&str, Node)> {
        self.racks.iter().find_map(|(name, rack)| Some((name.as_str(), *rack.nodes.get(&id)?)))
    }

    /// By name.
    pub fn racks(&self) -> impl Iterator<Item = (&str, &Rack)> {
        self.racks.iter().map(|(name, rack)| (name.as_str(), rack))
    }
}

impl Rack {
    /// By id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Node)> {
        self.nodes.iter().map(|(id, node)| (*id, *node))
    }
}
