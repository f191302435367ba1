//! What an operator sees of a datacenter: its nodes, and every copy of its volumes wherever it lies.
//!
//! Invariants: a copy's length is its own node's word, and is absent where that node can't be asked; a copy that the code
//! demands is listed also while its node is gone.

use std::collections::BTreeMap;

use futures::future::join_all;
use meridian_control::{NodeRecord, VolumeRecord, VolumeState};
use meridian_types::{NodeId, VolumeId};
use meridian_wire::replication::{MirrorCopy, MirrorsReply, MirrorsRequest};
use meridian_wire::{call, fields};
use serde::{Deserialize, Serialize};

use crate::driver::{Inner, Replication};
use crate::{ReplicationError, error::reason_of};

/// One volume of the asked datacenter; field names are an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeListing {
    pub volume: u32,
    pub code: String,
    /// `creating`, `open`, `sealing` or `sealed`.
    pub state: String,
    pub epoch: u32,
    /// Bytes of the primary's file, and how many of them count; None while it can't be asked.
    pub length: Option<u64>,
    pub committed: Option<u64>,
    pub copies: Vec<CopyListing>,
}

/// One copy of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyListing {
    pub datacenter: String,
    pub rack: Option<String>,
    pub node: Option<String>,
    /// `primary`, `secondary` or `mirror`.
    pub role: String,
    pub length: Option<u64>,
    /// Gossip hears of its node; None when its datacenter can't be asked.
    pub live: Option<bool>,
}

/// One node of the asked datacenter; field names are an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeListing {
    pub id: u32,
    pub name: String,
    pub rack: String,
    pub s3: String,
    pub rest: String,
    pub boot_counter: u64,
    /// `live` or `silent`.
    pub gossip: String,
    /// Takes no further volumes.
    pub draining: bool,
    /// Replicas of this datacenter's volumes, those that it orders, and mirrors of others'.
    pub replicas: u64,
    pub primaries: u64,
    pub mirrors: u64,
    /// Partitions that it leads, the catalog included, as the asked node knows.
    pub leads: u64,
}

impl Replication {
    /// The nodes of this datacenter, by id.
    pub fn nodes(&self) -> Vec<NodeListing> {
        let inner = &self.inner;
        let (volumes, mirrors) = (inner.control.volumes(), inner.control.mirrors());
        let leaders: Vec<NodeId> =
            inner.meta.partitions().filter_map(|partition| Some(inner.meta.leader(partition)?.0)).collect();
        let count =
            |counts: &dyn Fn(&VolumeRecord) -> bool| volumes.iter().filter(|volume| counts(volume)).count() as u64;
        let listing = |node: NodeRecord| NodeListing {
            id: node.id.0,
            name: node.info.name.to_string(),
            rack: node.info.rack,
            s3: node.info.s3,
            rest: node.info.rest,
            boot_counter: node.boot_counter,
            gossip: if inner.control.is_live(node.id) { "live" } else { "silent" }.to_owned(),
            draining: node.draining,
            replicas: count(&|volume| volume.primary == node.id || volume.secondaries.contains(&node.id)),
            primaries: count(&|volume| volume.primary == node.id),
            mirrors: mirrors.values().filter(|holder| **holder == node.id).count() as u64,
            leads: leaders.iter().filter(|leader| **leader == node.id).count() as u64,
        };
        inner.control.nodes().into_iter().map(listing).collect()
    }

    /// Lets a node take no further volumes, or take them again.
    ///
    /// # Errors
    /// `NoSuchNode`, or why control did not commit it.
    pub async fn drain(&self, name: &str, draining: bool) -> Result<NodeListing, ReplicationError> {
        let nodes = self.inner.control.nodes();
        let found = nodes.iter().find(|node| node.info.name.as_str() == name || node.id.0.to_string() == name);
        let node = found.ok_or_else(|| ReplicationError::NoSuchNode {
            name: name.to_owned(),
            nodes: nodes.iter().map(|node| node.info.name.to_string()).collect::<Vec<_>>().join(", "),
        })?;
        let committed = self.inner.control.drain(node.id, draining).await?;
        let listed = self.nodes().into_iter().find(|node| node.id == committed.id.0);
        // What this node has applied may be a moment older than what the leader has committed.
        let listed = listed.map(|node| NodeListing { draining: committed.draining, ..node });
        listed.ok_or(ReplicationError::NoSuchNode { name: name.to_owned(), nodes: String::new() })
    }

    /// Every volume of this datacenter with all its copies, by id.
    pub async fn volumes(&self) -> Vec<VolumeListing> {
        let inner = &self.inner;
        let asked = inner.sources.values().map(|source| async move {
            let mut client = source.client();
            let request = MirrorsRequest { caller: inner.config.local.caller() };
            let deadline = inner.config.limits.call_deadline;
            let reply = call(deadline, request, |request| async move { client.list_mirrors(request).await }).await;
            let mirrors = reply.inspect_err(|status| {
                tracing::debug!(source = %source.peer.name, reason = reason_of(status), "mirrors are not listed");
            });
            (source.id(), mirrors.ok().map(by_volume))
        });
        let mirrors: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        let nodes: BTreeMap<NodeId, NodeRecord> =
            inner.control.nodes().into_iter().map(|node| (node.id, node)).collect();
        let listing = |record: VolumeRecord| {
            let replicas = [(record.primary, "primary")].into_iter();
            let replicas = replicas.chain(record.secondaries.iter().map(|node| (*node, "secondary")));
            let mut copies: Vec<CopyListing> = replicas
                .map(|(id, role)| CopyListing {
                    datacenter: inner.config.datacenter_name.to_string(),
                    rack: nodes.get(&id).map(|node| node.info.rack.clone()),
                    node: nodes.get(&id).map(|node| node.info.name.to_string()),
                    role: role.to_owned(),
                    length: inner.length_at(id, record.id),
                    live: Some(inner.control.is_live(id)),
                })
                .collect();
            copies.extend(record.mirrors.iter().map(|datacenter| {
                let known = mirrors.get(datacenter).and_then(Option::as_ref);
                let copy = known.and_then(|known| known.get(&record.id));
                CopyListing {
                    datacenter: self.name_of(*datacenter),
                    rack: copy.map(|copy| copy.rack.clone()),
                    node: copy.map(|copy| copy.node.clone()),
                    role: "mirror".to_owned(),
                    length: copy.map(|copy| copy.length_bytes),
                    live: copy.map(|copy| copy.live),
                }
            }));
            let length = copies[0].length;
            VolumeListing {
                volume: record.id.get(),
                code: record.code.to_string(),
                state: state_name(record.state).to_owned(),
                epoch: record.epoch.0,
                length,
                committed: record.sealed_length.or(length),
                copies,
            }
        };
        inner.control.volumes().into_iter().map(listing).collect()
    }
}

impl Inner {
    /// How long a node's file of a volume is, if it has said so.
    fn length_at(&self, node: NodeId, volume: VolumeId) -> Option<u64> {
        if node == self.config.local.node {
            return self.volumes.state(volume).map(|state| state.committed);
        }
        self.siblings.get(node)?.volume(volume).map(|state| state.committed)
    }

    /// The mirrors here of another datacenter's volumes.
    pub(crate) fn mirrors_of(&self, owner: meridian_types::DatacenterId) -> MirrorsReply {
        let nodes: BTreeMap<NodeId, NodeRecord> =
            self.control.nodes().into_iter().map(|node| (node.id, node)).collect();
        // A datacenter of one node gives its mirrors to nobody: they lie on it.
        let own = self.config.local.node;
        let given: BTreeMap<VolumeId, NodeId> = if self.siblings.is_empty() {
            let states = self.volumes.states();
            states.iter().filter(|state| state.mirror).map(|state| (state.header.volume, own)).collect()
        } else {
            self.control.mirrors()
        };
        let mirrors = given.into_iter().filter(|(volume, _)| volume.datacenter() == owner).map(|(volume, node)| {
            let info = nodes.get(&node).map(|node| &node.info);
            MirrorCopy {
                volume: volume.get(),
                node: info.map_or_else(String::new, |info| info.name.to_string()),
                rack: info.map_or_else(String::new, |info| info.rack.clone()),
                length_bytes: self.length_at(node, volume).unwrap_or(0),
                live: self.control.is_live(node),
            }
        });
        MirrorsReply { mirrors: mirrors.collect() }
    }
}

fn by_volume(reply: MirrorsReply) -> BTreeMap<VolumeId, MirrorCopy> {
    let known = reply.mirrors.into_iter();
    known.filter_map(|copy| Some((fields::volume("volume", copy.volume).ok()?, copy))).collect()
}

fn state_name(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Creating => "creating",
        VolumeState::Open => "open",
        VolumeState::Sealing => "sealing",
        VolumeState::Sealed => "sealed",
    }
}
