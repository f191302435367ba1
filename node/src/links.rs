//! Channels to the other nodes of the own datacenter, for raft. Those to other datacenters belong to the
//! replication driver.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use meridian_raft::PeerChannels;
use meridian_types::NodeId;
use meridian_wire::LinkTimings;
use meridian_wire::tls::{Identity, server_name};
use tonic::transport::Channel;

use crate::config::NodeConfig;

/// One lazy channel a node.
pub struct DatacenterLinks {
    channels: BTreeMap<NodeId, Channel>,
}

impl DatacenterLinks {
    pub fn new(config: &NodeConfig, identity: &Identity, timings: &LinkTimings) -> Result<Self> {
        let others = config.datacenter.nodes.iter().filter(|node| node.id != config.member.id);
        let channels = others
            .map(|node| {
                let name = server_name(&node.name, &config.datacenter.name);
                let channel = meridian_wire::channel(&node.grpc.to_string(), identity, &name, timings)
                    .with_context(|| format!("set up the link to node {}", node.name))?;
                Ok((node.id, channel))
            })
            .collect::<Result<_>>()?;
        Ok(Self { channels })
    }
}

impl PeerChannels for DatacenterLinks {
    fn channel(&self, node: NodeId) -> Option<Channel> {
        self.channels.get(&node).cloned()
    }
}
