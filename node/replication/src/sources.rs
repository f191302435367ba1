//! The other datacenters as this node sees them: links to their nodes, and what is known of each as a source.
//!
//! Link facts are derived anew from each call, so that no stale "offline" outlives a recovered peer. Nothing here is
//! durable: cursors live in the partitions, mirrors in the volumes, reports in control.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use meridian_env::HybridClock;
use meridian_replicator::{DataWatermark, RangeSize, StreamState};
use meridian_topology::{Group, Member, partition_groups};
use meridian_types::{DatacenterId, NodeId, PartitionId, Timestamp, VolumeId};
use meridian_wire::replication::replication_client::ReplicationClient;
use meridian_wire::tls::{Identity, server_name};
use meridian_wire::{Dialer, LinkTimings, replication_client};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tonic::transport::Channel;

use crate::bulk_client::BulkClient;
use crate::link_limits::{Backoff, LinkBudget, LinkRate};
use crate::{PeerDatacenter, ReplicationError, ReplicationLimits};

/// One node of another datacenter.
pub struct Link {
    pub node: NodeId,
    channel: Channel,
    /// For reads that somebody waits for.
    pub bulk: Arc<BulkClient>,
    /// For mirrors, which may wait at the node: connections of their own, so that they keep no read waiting.
    pub mirrors: Arc<BulkClient>,
    /// The last call was not answered: others are asked as long as there are any.
    failing: AtomicBool,
}

impl Link {
    pub fn client(&self) -> ReplicationClient<Channel> {
        replication_client(self.channel.clone())
    }

    pub fn answered(&self) {
        self.failing.store(false, Ordering::Relaxed);
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// Another datacenter: what it is asked through, and what is known of it.
pub struct Source {
    pub peer: PeerDatacenter,
    links: Vec<Link>,
    preferred: AtomicUsize,
    /// Who has a replica of each partition there: computed as its own nodes do.
    groups: Vec<Group>,
    pub facts: Mutex<SourceFacts>,
    pub budget: LinkBudget,
    pub rate: LinkRate,
    /// What ranges of mirrors ask for.
    pub range_size: Mutex<RangeSize>,
    /// Requests of mirrors that may wait for bytes that are not yet written.
    pub waits: Semaphore,
    /// Bumped when `facts` may have moved a watermark.
    moved: watch::Sender<u64>,
    /// Ends the pauses of mirrors in back-off.
    retry: Notify,
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
    pub clock: ClockOffset,
    /// Volumes whose next range could not be had, with the reason; listed and retried (rule 5).
    pub parked: BTreeMap<VolumeId, String>,
    /// `Control::mirror_moves` as of the last report that `watermark` took.
    pub mirror_moves: u64,
    /// The node over there that orders each volume's appends.
    pub primaries: BTreeMap<VolumeId, NodeId>,
    /// Volumes whose fetch is in back-off.
    pub retrying: BTreeMap<VolumeId, String>,
}

/// The source's wall clock, held against our monotonic one: a jump of our own wall clock then shows at once, and is not
/// vouched for by what was read before it.
///
/// A reply's transit makes the source look behind and never ahead, so the greatest reading of the last minute is the
/// best: on a slow link the others would hide lag.
#[derive(Debug, Default)]
pub struct ClockOffset {
    /// When each reading was taken, and how far the source's wall clock was above our monotonic one; in milliseconds.
    readings: VecDeque<(u64, i64)>,
}

/// How long a reading counts, and how many are kept.
const CLOCK_READING_AGE_MS_MAX: u64 = 60_000;
const CLOCK_READINGS_MAX: usize = 64;

impl ClockOffset {
    /// `now_ms` is our monotonic clock's, `source_unix_ms` the source's wall clock's.
    pub fn read(&mut self, now_ms: u64, source_unix_ms: u64) {
        while self.readings.front().is_some_and(|(at, _)| !is_fresh(*at, now_ms))
            || self.readings.len() >= CLOCK_READINGS_MAX
        {
            self.readings.pop_front();
        }
        self.readings.push_back((now_ms, source_unix_ms as i64 - now_ms as i64));
    }

    /// The source's wall clock minus ours, in milliseconds; None without a fresh reading.
    pub fn offset_ms(&self, now_ms: u64, wall_unix_ms: u64) -> Option<i64> {
        let fresh = self.readings.iter().filter(|(at, _)| is_fresh(*at, now_ms));
        fresh.map(|(_, above)| above + now_ms as i64 - wall_unix_ms as i64).max()
    }
}

fn is_fresh(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) <= CLOCK_READING_AGE_MS_MAX
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
        (dialer, timings): (&Dialer, &LinkTimings),
        limits: &ReplicationLimits,
        clock: Arc<HybridClock>,
        committed: Timestamp,
        partitions: u16,
    ) -> Result<Self, ReplicationError> {
        let links = peer
            .nodes
            .iter()
            .map(|node| {
                let name = server_name(&node.name, &peer.name);
                let channel = dialer.channel(&node.grpc, identity, &name, timings)?;
                let bulk =
                    || BulkClient::new(node.bulk.clone(), name.clone(), (dialer, identity), timings.connect_timeout);
                Ok(Link {
                    node: node.node,
                    channel,
                    bulk: Arc::new(bulk()?),
                    mirrors: Arc::new(bulk()?),
                    failing: AtomicBool::new(false),
                })
            })
            .collect::<Result<Vec<_>, ReplicationError>>()?;
        let member = |node: &crate::PeerNode| Member { node: node.node, rack: node.rack.clone() };
        let groups = partition_groups(&peer.nodes.iter().map(member).collect::<Vec<_>>(), partitions);
        let facts = SourceFacts { watermark: DataWatermark::new(committed), ..SourceFacts::default() };
        Ok(Self {
            peer,
            links,
            preferred: AtomicUsize::new(0),
            groups,
            facts: Mutex::new(facts),
            budget: LinkBudget::new(limits.link_bytes_max),
            rate: LinkRate::new(clock, limits.link_bytes_per_second_max),
            range_size: Mutex::new(RangeSize::new(limits.mirror_range_bytes)),
            waits: Semaphore::new(limits.mirror_waits_max),
            moved: watch::Sender::new(0),
            retry: Notify::new(),
        })
    }

    pub fn id(&self) -> DatacenterId {
        self.peer.id
    }

    /// The node that answered last; `prefer_another` after a failure.
    pub fn link(&self) -> &Link {
        let mut links = self.links_in_turn();
        let first = links.next().expect("a datacenter has a node");
        if !first.is_failing() {
            return first;
        }
        links.find(|link| !link.is_failing()).unwrap_or(first)
    }

    /// All nodes, the preferred one first.
    pub fn links_in_turn(&self) -> impl Iterator<Item = &Link> {
        let first = self.preferred.load(Ordering::Relaxed) % self.links.len();
        self.links[first..].iter().chain(&self.links[..first])
    }

    /// A certain node; the preferred one when there is no such node.
    pub fn link_of(&self, node: NodeId) -> &Link {
        self.links.iter().find(|link| link.node == node).unwrap_or_else(|| self.link())
    }

    /// A certain node, and after failures the others in turn: any of them may have a replica of what it has.
    pub fn link_of_or_another(&self, node: NodeId, failures: usize) -> &Link {
        let others = self.links.iter().filter(|link| link.node != node);
        let in_order: Vec<&Link> = std::iter::once(self.link_of(node)).chain(others).collect();
        in_order[failures % in_order.len()]
    }

    /// Whom to ask for a partition's log: the preferred node if it has a replica, else one that has.
    pub fn link_for(&self, partition: PartitionId) -> &Link {
        let Some(group) = self.groups.get(usize::from(partition.0)).filter(|_| !partition.is_catalog()) else {
            return self.link(); // every node has the catalog
        };
        let mut holders = self.links_in_turn().filter(|link| group.replicas.contains(&link.node));
        let Some(first) = holders.next() else { return self.link() };
        if !first.is_failing() {
            return first;
        }
        holders.find(|link| !link.is_failing()).unwrap_or(first)
    }

    pub fn client(&self) -> ReplicationClient<Channel> {
        self.link().client()
    }

    pub fn prefer_another(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// A call to that node was not answered.
    pub fn failed(&self, node: NodeId) {
        if let Some(link) = self.links.iter().find(|link| link.node == node) {
            link.failing.store(true, Ordering::Relaxed);
        }
        self.prefer_another();
    }

    /// Changes the facts and tells those who wait for a watermark.
    pub fn update<R>(&self, change: impl FnOnce(&mut SourceFacts) -> R) -> R {
        let result = change(&mut self.facts.lock());
        self.moved.send_modify(|version| *version += 1);
        result
    }

    /// A mirror's pause after a failure; `retry_now` ends it.
    pub async fn pause(&self, backoff: &mut Backoff) {
        tokio::select! {
            () = backoff.pause() => {}
            () = self.retry.notified() => {}
        }
    }

    pub fn retry_now(&self) {
        self.retry.notify_waiters();
    }

    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_does_not_make_the_source_look_behind() {
        let mut clock = ClockOffset::default();
        clock.read(1_000, 501_000); // the source is 500 s above our monotonic clock
        clock.read(13_000, 501_000); // the same, 12 s on the way
        assert_eq!(clock.offset_ms(13_000, 513_000), Some(0));
    }

    #[test]
    fn a_jump_of_our_own_clock_shows_at_once_and_old_readings_end() {
        let mut clock = ClockOffset::default();
        clock.read(1_000, 501_000);
        assert_eq!(clock.offset_ms(2_000, 502_000 + 57_000), Some(-57_000));
        assert_eq!(clock.offset_ms(1_001 + CLOCK_READING_AGE_MS_MAX, 502_000), None);
    }
}
