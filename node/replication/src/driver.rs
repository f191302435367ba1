//! The driver: starts both lanes for each source, closes this datacenter's volumes and registry, commits watermark
//! reports, and answers what the gateways ask (status, wait, remote bytes, fences).
//!
//! Invariants: W_meta is read from committed cursors and W_data from durable mirrors, so both survive a restart;
//! nothing here waits for ever on a peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_control::{Control, NodeReport, RememberedBoot, VolumeRecord};
use meridian_env::HybridClock;
use meridian_index::queries;
use meridian_meta::Meta;
use meridian_replicator::{Cursor, StableView, StreamState, WriteDelay, WritePressure, meta_watermark};
use meridian_types::{DatacenterId, Incarnation, PartitionId, RequestId, Timestamp};
use meridian_volume::VolumeSet;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::report::{Observed, read_rates};
use crate::siblings::Siblings;
use crate::sources::Source;
use crate::status::follow_reports;
use crate::{ReplicationConfig, ReplicationError, blob_lane, closing, metadata_lane, siblings, stable};

/// Clocks of peers that are needed to call our own wrong.
pub(crate) const PEERS_TO_JUDGE_MIN: usize = 2;

/// The running driver; clones share it.
#[derive(Clone)]
pub struct Replication {
    pub(crate) inner: Arc<Inner>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

pub(crate) struct Inner {
    pub config: ReplicationConfig,
    pub meta: Meta,
    pub control: Control,
    pub volumes: Arc<VolumeSet>,
    pub clock: Arc<HybridClock>,
    pub sources: BTreeMap<DatacenterId, Arc<Source>>,
    pub siblings: Siblings,
    /// Wakes the reporter before its time.
    pub report_now: Notify,
    /// Bumped when this datacenter's volumes or registry have news for peers.
    pub volumes_moved: watch::Sender<u64>,
    /// When each datacenter's last pull was answered with what it had waited for.
    pub answered: Mutex<BTreeMap<DatacenterId, tokio::time::Instant>>,
    /// Bumped when a volume of this node has news for the other nodes of this datacenter.
    pub node_volumes_moved: watch::Sender<u64>,
    pub observed: Observed,
    /// What was reported last, without its times.
    reported: Mutex<Vec<NodeReport>>,
    /// Set when the node stops: what waits here for news is answered at once.
    pub stopping: watch::Sender<bool>,
    /// What the destinations of our own writes say of their lag.
    pub pressure: Mutex<WritePressure>,
    /// A raw timestamp: by it the bytes of this node's volumes had moved last.
    pub bytes_moved_at: AtomicU64,
    /// What every member has, as far as is known here.
    pub stable: Mutex<StableView>,
    /// Names this start of the node (rule 7).
    pub session: RequestId,
    /// Set when a peer remembers a later life of this node than its disk does.
    pub went_back: watch::Sender<Option<RememberedBoot>>,
    /// Through where this datacenter was closed for writes whose clients wait for others; held while that is done.
    pub closed_for_acks: tokio::sync::Mutex<Timestamp>,
    pub forwards: crate::forward::Forwards,
}

impl Replication {
    /// Starts pulling from every other datacenter.
    ///
    /// # Errors
    /// When a peer's address or name is not usable; a peer that can't be reached is no error.
    pub fn start(
        config: ReplicationConfig,
        identity: &Identity,
        meta: Meta,
        control: Control,
        volumes: Arc<VolumeSet>,
        clock: Arc<HybridClock>,
    ) -> Result<Self, ReplicationError> {
        // Among several nodes the committed figure is everybody's and says nothing of this one's mirrors.
        let alone = config.siblings.is_empty();
        let committed = control.watermarks().into_iter().filter(|_| alone);
        let committed: BTreeMap<DatacenterId, Timestamp> =
            committed.map(|report| (report.source, report.data)).collect();
        let sources = config
            .peers
            .iter()
            .map(|peer| {
                let data = committed.get(&peer.id).copied().unwrap_or(Timestamp::ZERO);
                let source = Source::new(
                    peer.clone(),
                    identity,
                    (&config.dialer, &config.timings),
                    &config.limits,
                    Arc::clone(&clock),
                    data,
                    meta.partition_count(),
                )?;
                Ok((peer.id, Arc::new(source)))
            })
            .collect::<Result<BTreeMap<_, _>, ReplicationError>>()?;
        let siblings = Siblings::new(&config, identity)?;
        let stable = Mutex::new(stable::view(&config, &meta));
        let inner = Arc::new(Inner {
            siblings,
            config,
            meta,
            control,
            volumes,
            clock,
            sources,
            report_now: Notify::new(),
            volumes_moved: watch::Sender::new(1),
            answered: Mutex::default(),
            node_volumes_moved: watch::Sender::new(1),
            observed: Observed::default(),
            reported: Mutex::default(),
            stopping: watch::Sender::new(false),
            pressure: Mutex::default(),
            bytes_moved_at: AtomicU64::new(0),
            stable,
            session: meridian_env::entropy::request_id(),
            went_back: watch::Sender::new(None),
            closed_for_acks: tokio::sync::Mutex::new(Timestamp::ZERO),
            forwards: crate::forward::Forwards::default(),
        });
        let mut tasks = JoinSet::new();
        for source in inner.sources.values() {
            tasks.spawn(metadata_lane::run(Arc::clone(&inner), Arc::clone(source)));
            tasks.spawn(blob_lane::run(Arc::clone(&inner), Arc::clone(source)));
        }
        if !inner.sources.is_empty() {
            tasks.spawn(closing::close_periodically(Arc::clone(&inner)));
            tasks.spawn(report_periodically(Arc::clone(&inner)));
            tasks.spawn(follow_reports(Arc::clone(&inner)));
        }
        tasks.spawn(follow_own_volumes(Arc::clone(&inner)));
        for sibling in inner.siblings.iter() {
            tasks.spawn(siblings::follow(Arc::clone(&inner), Arc::clone(sibling)));
        }
        tasks.spawn(stable::run(Arc::clone(&inner)));
        Ok(Self { inner, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// What writes of this datacenter wait for, if a destination that can be reached does not keep up.
    pub fn write_delay(&self) -> Option<WriteDelay> {
        self.inner.write_delay()
    }

    /// Returns when a peer has told, after the start, that this node's disk went back in time, with what it remembers; never
    /// otherwise. Nothing is stamped from then on, and the next start is to renew volumes and logs (rule 7).
    pub async fn disk_went_back(&self) -> RememberedBoot {
        let mut told = self.inner.went_back.subscribe();
        match told.wait_for(Option::is_some).await.map(|told| *told) {
            Ok(Some(remembered)) => remembered,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// From now on nobody waits here for news: calls that do are answered, so that the port can end at once.
    pub fn end_waits(&self) {
        self.inner.stopping.send_replace(true);
    }

    /// Ends every task of the driver.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

impl Inner {
    /// Counts suspended time too, like the clocks of peers.
    pub fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub fn own(&self) -> DatacenterId {
        self.config.local.datacenter
    }

    /// The incarnation in which this datacenter writes its logs (rule 7).
    pub fn own_incarnation(&self) -> Incarnation {
        self.meta
            .partitions()
            .filter_map(|partition| self.meta.local_view(partition).ok())
            .filter_map(|view| queries::state(&view).ok())
            .map(|state| state.incarnation)
            .max()
            .unwrap_or(Incarnation(0))
    }

    /// The committed cursor of a partition for one origin.
    pub fn cursor(&self, partition: PartitionId, origin: DatacenterId) -> Result<Cursor, ReplicationError> {
        let what = "read a cursor";
        let view = self.meta.local_view(partition).map_err(|source| ReplicationError::Meta {
            what,
            datacenter: self.own(),
            source,
        })?;
        Ok(queries::cursor(&view, origin)?)
    }

    /// W_meta of a source as far as this node knows: the minimum over the partitions that are here and the catalog.
    pub fn meta_watermark(&self, origin: DatacenterId) -> Timestamp {
        let through =
            self.meta.partitions().filter(|partition| self.meta.is_here(*partition)).map(|partition| {
                self.cursor(partition, origin).map_or(Timestamp::ZERO, |cursor| cursor.applied_through)
            });
        meta_watermark(through)
    }

    /// The partition that holds W_meta back, and its cursor.
    pub fn slowest_partition(&self, origin: DatacenterId) -> Option<(PartitionId, Cursor)> {
        self.meta
            .partitions()
            .filter_map(|partition| Some((partition, self.cursor(partition, origin).ok()?)))
            .min_by_key(|(_, cursor)| cursor.applied_through)
    }

    /// Returns when the node stops.
    pub async fn stopping(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// `replication_backpressure`: what a chunk waits now before it is appended.
    pub fn write_delay(&self) -> Option<WriteDelay> {
        self.pressure.lock().delay(self.monotonic_ms())
    }

    /// A destination has told its W_data of this datacenter, zero when it is not slow but stopped.
    pub fn hear_lag(&self, destination: DatacenterId, durable_through: u64) {
        // Behind the last bytes, not behind the clock: idle volumes are closed seldom, and nobody is slow for that.
        let moved_at = Timestamp::from_raw(self.bytes_moved_at.load(Ordering::Relaxed));
        let behind = |raw: u64| moved_at.ms_since(Timestamp::from_raw(raw));
        let lag_ms = (durable_through > 0).then(|| behind(durable_through));
        self.pressure.lock().report(self.monotonic_ms(), destination, lag_ms);
    }

    /// What this datacenter tells a source of its lag: W_data, or zero when it is not speed that holds it back.
    pub fn lag_told(&self, source: &Source) -> u64 {
        let (_, data) = self.watermarks(source);
        let facts = source.facts.lock();
        let is_stopped = !facts.parked.is_empty()
            || !facts.retrying.is_empty()
            || facts
                .streams
                .values()
                .any(|state| matches!(state, StreamState::Held { .. } | StreamState::Backoff { .. }));
        if is_stopped { 0 } else { data.raw() }
    }

    /// Both watermarks of a source. A node alone reads what it has; among several the committed reports of all count,
    /// because no node has everything.
    pub fn watermarks(&self, source: &Source) -> (Timestamp, Timestamp) {
        if !self.siblings.is_empty() {
            let committed = self.control.watermarks().into_iter().find(|report| report.source == source.id());
            return committed.map_or((Timestamp::ZERO, Timestamp::ZERO), |report| (report.meta, report.data));
        }
        let meta = self.meta_watermark(source.id());
        let mut facts = source.facts.lock();
        facts.watermark.set_meta(meta);
        (meta, facts.watermark.value())
    }

    /// The volumes and the registry's closed timestamp, as one peer is told.
    pub fn registry(&self) -> (Vec<VolumeRecord>, Timestamp) {
        self.control.registry()
    }

    async fn report(&self) {
        let reports: Vec<NodeReport> = self.sources.values().map(|source| self.report_on(source)).collect();
        self.check_clock();
        let moved = {
            let mut last = self.reported.lock();
            // The time of a report alone is no news.
            let news: Vec<NodeReport> =
                reports.iter().map(|report| NodeReport { reported_at: Timestamp::ZERO, ..report.clone() }).collect();
            std::mem::replace(&mut *last, news.clone()) != news
        };
        if moved && let Err(error) = self.control.report_watermarks(reports).await {
            self.reported.lock().clear();
            tracing::warn!(%error, "commit a watermark report");
        }
    }

    /// What this node has of one source: of the partitions that it leads, and of the mirrors that it was given.
    fn report_on(&self, source: &Source) -> NodeReport {
        let led = self.meta.partitions().filter(|partition| self.meta.serving(*partition));
        let applied = led.filter_map(|p| Some((p, self.cursor(p, source.id()).ok()?.applied_through))).collect();
        let meta = self.meta_watermark(source.id());
        let mut facts = source.facts.lock();
        // W_meta is the datacenter's and comes in where all reports are put together.
        facts.watermark.set_meta(if self.siblings.is_empty() { meta } else { Timestamp::MAX });
        let held = facts.streams.iter().find_map(|(partition, state)| match state {
            StreamState::Held { reason, .. } => Some(format!("partition {partition}: {reason}")),
            _ => None,
        });
        NodeReport {
            source: source.id(),
            applied,
            data: facts.watermark.value(),
            reported_at: self.clock.wall(),
            parked: facts.parked.len() as u64,
            held,
            moves: facts.mirror_moves,
        }
    }
}

impl Inner {
    /// A source's wall clock minus ours, in milliseconds, if it was read lately.
    pub fn clock_offset_ms(&self, source: &Source) -> Option<i64> {
        source.facts.lock().clock.offset_ms(self.monotonic_ms(), self.clock.wall().unix_ms())
    }

    /// Rule 10: a clock that disagrees with most peers gives no stamps, and says so. One peer is no majority: with two
    /// datacenters nobody can say whose clock is wrong, and the one that is behind holds the other's stream instead
    /// (ADR 0007).
    fn check_clock(&self) {
        let offsets: Vec<i64> = self.sources.values().filter_map(|source| self.clock_offset_ms(source)).collect();
        if offsets.len() < PEERS_TO_JUDGE_MIN {
            return;
        }
        if let Err(error) = self.clock.check_peers(&offsets) {
            tracing::error!(%error, "this node's clock is off; writes are refused until it is right");
        }
    }
}

/// Commits what this datacenter has of the others, at most once an interval and at once when somebody waits (rule 27).
async fn report_periodically(inner: Arc<Inner>) {
    loop {
        let _ = tokio::time::timeout(inner.config.limits.report_interval, inner.report_now.notified()).await;
        read_rates(&inner);
        inner.report().await;
    }
}

/// Tells waiting peers as soon as a committed length or the registry moves.
async fn follow_own_volumes(inner: Arc<Inner>) {
    let mut volumes = inner.volumes.changed();
    let mut registry = inner.control.registry_changed();
    loop {
        let changed = tokio::select! {
            changed = volumes.changed() => {
                inner.node_volumes_moved.send_modify(|version| *version += 1);
                changed
            }
            changed = registry.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        inner.volumes_moved.send_modify(|version| *version += 1);
    }
}
