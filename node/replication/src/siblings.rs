//! The other nodes of this datacenter, as this one asks them: for bytes, and for how far their volumes are.
//!
//! Each node follows all others in a long poll, so that any of them can tell another datacenter of every volume. What a
//! node said last is kept while it is silent: it was true, and only stands still.
//!
//! Invariants: a figure of a volume is its primary's own word; a node is asked only for what lies on its own disks; which
//! node holds a volume is read from control and never guessed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meridian_control::VolumeRecord;
use meridian_types::{FileGeneration, NodeId, NodeName, Timestamp, VolumeId};
use meridian_wire::replication::replication_client::ReplicationClient;
use meridian_wire::replication::{NodeVolumesReply, VolumesRequest};
use meridian_wire::tls::{Identity, server_name};
use meridian_wire::{call, fields, replication_client};
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::bulk_client::BulkClient;
use crate::driver::Inner;
use crate::error::reason_of;
use crate::{ReplicationConfig, ReplicationError};

/// A file on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeVolume {
    pub generation: FileGeneration,
    pub committed: u64,
    pub closed: Timestamp,
    pub mirror: bool,
}

/// One other node of this datacenter.
pub struct Sibling {
    pub name: NodeName,
    pub bulk: Arc<BulkClient>,
    channel: Channel,
    /// What lies there, once it has said so.
    volumes: Mutex<Option<BTreeMap<VolumeId, NodeVolume>>>,
    /// The last question was not answered: reads ask others first. The next answer that `follow` gets ends it.
    failing: AtomicBool,
}

impl Sibling {
    pub fn client(&self) -> ReplicationClient<Channel> {
        replication_client(self.channel.clone())
    }

    /// How far its file of a volume is; None before it was heard, or without such a file.
    pub fn volume(&self, volume: VolumeId) -> Option<NodeVolume> {
        self.volumes.lock().as_ref()?.get(&volume).copied()
    }

    pub fn failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Whether it has been heard since this node started.
    pub fn is_known(&self) -> bool {
        self.volumes.lock().is_some()
    }
}

/// All of them.
pub struct Siblings(BTreeMap<NodeId, Arc<Sibling>>);

impl Siblings {
    /// # Errors
    /// When an address or a name of the configuration is not one.
    pub fn new(
        ReplicationConfig { siblings, datacenter_name, timings, dialer, .. }: &ReplicationConfig,
        identity: &Identity,
    ) -> Result<Self, ReplicationError> {
        let siblings = siblings
            .iter()
            .map(|node| {
                let name = server_name(&node.name, datacenter_name);
                let channel = dialer.channel(&node.grpc, identity, &name, timings)?;
                let bulk = BulkClient::new(node.bulk.clone(), name, (dialer, identity), timings.connect_timeout)?;
                let (name, bulk, volumes) = (node.name.clone(), Arc::new(bulk), Mutex::default());
                Ok((node.node, Arc::new(Sibling { name, bulk, channel, volumes, failing: AtomicBool::new(false) })))
            })
            .collect::<Result<_, ReplicationError>>()?;
        Ok(Self(siblings))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sibling>> {
        self.0.values()
    }

    pub fn get(&self, node: NodeId) -> Option<&Arc<Sibling>> {
        self.0.get(&node)
    }

    /// Who else holds a replica of a volume of this datacenter, the primary first.
    pub fn holders(&self, volume: &VolumeRecord) -> Vec<&Arc<Sibling>> {
        let replicas = [volume.primary].into_iter().chain(volume.secondaries.iter().copied());
        replicas.filter_map(|node| self.get(node)).collect()
    }
}

/// Follows what lies on one other node until the driver stops.
pub(crate) async fn follow(inner: Arc<Inner>, sibling: Arc<Sibling>) {
    let limits = inner.config.limits.clone();
    let (mut known_version, mut pause) = (0, limits.backoff_min);
    loop {
        let wait_ms = limits.long_poll.as_millis() as u32;
        // Only another datacenter mirrors volumes, and so has a lag to tell.
        let caller = inner.config.local.caller();
        let request = VolumesRequest { caller, known_version, wait_ms, durable_through: 0 };
        let mut client = sibling.client();
        let deadline = limits.long_poll + limits.call_grace;
        let reply = call(deadline, request, |request| async move { client.node_volumes(request).await }).await;
        let reason =
            match reply.map_err(|status| reason_of(&status)).and_then(|reply| check(&reply).map(|v| (reply, v))) {
                Ok((reply, volumes)) => {
                    (known_version, pause) = (reply.version, limits.backoff_min);
                    sibling.failing.store(false, Ordering::Relaxed);
                    let changed = sibling.volumes.lock().replace(volumes.clone()) != Some(volumes);
                    if changed {
                        inner.volumes_moved.send_modify(|version| *version += 1);
                    }
                    continue;
                }
                Err(reason) => reason,
            };
        tracing::debug!(node = %sibling.name, reason, "a node of this datacenter does not say what it has");
        sibling.failed();
        known_version = 0; // versions of another life of the node say nothing
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(limits.backoff_max);
    }
}

fn check(reply: &NodeVolumesReply) -> Result<BTreeMap<VolumeId, NodeVolume>, String> {
    let checked = reply.volumes.iter().map(|volume| {
        let state = NodeVolume {
            generation: FileGeneration(volume.generation),
            committed: volume.committed_bytes,
            closed: Timestamp::from_raw(volume.closed),
            mirror: volume.mirror,
        };
        Ok((fields::volume("volume", volume.volume).map_err(|error| error.to_string())?, state))
    });
    checked.collect()
}
