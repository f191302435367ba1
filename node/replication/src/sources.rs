//! The other datacenters as this node sees them: links to their nodes, and what is known of each as a source.
//!
//! Link facts are derived anew from each call, so that no stale "offline" outlives a recovered peer. Nothing here is
//! durable: cursors live in the partitions, mirrors in the volumes, reports in control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_replicator::{DataWatermark, StreamState};
use meridian_types::{DatacenterId, PartitionId, Timestamp, VolumeId};
use meridian_wire::replication::replication_client::ReplicationClient;
use meridian_wire::tls::{Identity, server_name};
use meridian_wire::{LinkTimings, channel, replication_client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::bulk_client::BulkClient;
use crate::{PeerDatacenter, ReplicationError};

/// One node of another datacenter.
pub struct Link {
    channel: Channel,
    pub bulk: Arc<BulkClient>,
}

/// Another datacenter: what it is asked through, and what is known of it.
pub struct Source {
    pub peer: PeerDatacenter,
    links: Vec<Link>,
    preferred: AtomicUsize,
    pub facts: Mutex<SourceFacts>,
    /// Bumped when `facts` may have moved a watermark.
    moved: watch::Sender<u64>,
}

/// What this node knows of a source at this moment.
#[derive(Default)]
pub struct SourceFacts {
    pub watermark: DataWatermark,
    pub streams: BTreeMap<PartitionId, StreamState>,
    /// The source's last sequence of each partition, as it told it.
    pub heads: BTreeMap<PartitionId, u64>,
    /// Whether the last call of either lane was answered.
    pub metadata_lane: LaneState,
    pub blob_lane: LaneState,
    /// The source's wall clock minus ours when they last spoke, in milliseconds.
    pub clock_offset_ms: i64,
    /// Volumes whose next range could not be had, with the reason; listed and retried (rule 5).
    pub parked: BTreeMap<VolumeId, String>,
    /// Volumes whose fetch is in back-off.
    pub retrying: BTreeMap<VolumeId, String>,
}

/// One lane of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LaneState {
    #[default]
    Untried,
    Answered,
    Failing {
        reason: String,
    },
}

impl Source {
    /// # Errors
    /// When an address or a name of the configuration is not one.
    pub fn new(
        peer: PeerDatacenter,
        identity: &Identity,
        timings: &LinkTimings,
        committed: Timestamp,
    ) -> Result<Self, ReplicationError> {
        let links = peer
            .nodes
            .iter()
            .map(|node| {
                let name = server_name(&node.name, &peer.name);
                let channel = channel(&node.grpc, identity, &name, timings)?;
                let bulk = BulkClient::new(node.bulk.clone(), name, identity, timings.connect_timeout)?;
                Ok(Link { channel, bulk: Arc::new(bulk) })
            })
            .collect::<Result<Vec<_>, ReplicationError>>()?;
        let facts = SourceFacts { watermark: DataWatermark::new(committed), ..SourceFacts::default() };
        Ok(Self { peer, links, preferred: AtomicUsize::new(0), facts: Mutex::new(facts), moved: watch::Sender::new(0) })
    }

    pub fn id(&self) -> DatacenterId {
        self.peer.id
    }

    /// The node that answered last; `prefer_another` after a failure.
    pub fn link(&self) -> &Link {
        &self.links[self.preferred.load(Ordering::Relaxed) % self.links.len()]
    }

    pub fn client(&self) -> ReplicationClient<Channel> {
        replication_client(self.link().channel.clone())
    }

    pub fn prefer_another(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes the facts and tells those who wait for a watermark.
    pub fn update<R>(&self, change: impl FnOnce(&mut SourceFacts) -> R) -> R {
        let result = change(&mut self.facts.lock());
        self.moved.send_modify(|version| *version += 1);
        result
    }

    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}
