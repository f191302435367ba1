//! The driver: starts both lanes for each source, closes this datacenter's volumes and registry, commits watermark
//! reports, and answers what the gateways ask (status, wait, remote bytes, fences).
//!
//! Invariants: W_meta is read from committed cursors and W_data from durable mirrors, so both survive a restart;
//! nothing here waits for ever on a peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use meridian_control::{Control, VolumeRecord, WatermarkReport};
use meridian_env::HybridClock;
use meridian_index::queries;
use meridian_meta::Meta;
use meridian_replicator::{Cursor, StreamState, meta_watermark};
use meridian_types::{DatacenterId, Incarnation, PartitionId, Timestamp};
use meridian_volume::VolumeSet;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::report::{Observed, read_rates};
use crate::sources::Source;
use crate::status::follow_reports;
use crate::{ReplicationConfig, ReplicationError, blob_lane, metadata_lane};

/// Clocks of peers that are needed to call our own wrong.
const PEERS_TO_JUDGE_MIN: usize = 2;

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
    /// Wakes the reporter before its time.
    pub report_now: Notify,
    /// Bumped when this datacenter's volumes or registry have news for peers.
    pub volumes_moved: watch::Sender<u64>,
    /// When each datacenter's last pull was answered with what it had waited for.
    pub answered: Mutex<BTreeMap<DatacenterId, tokio::time::Instant>>,
    pub observed: Observed,
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
        let committed: BTreeMap<DatacenterId, Timestamp> =
            control.watermarks().into_iter().map(|report| (report.source, report.data)).collect();
        let sources = config
            .peers
            .iter()
            .map(|peer| {
                let data = committed.get(&peer.id).copied().unwrap_or(Timestamp::ZERO);
                let source =
                    Source::new(peer.clone(), identity, &config.timings, &config.limits, Arc::clone(&clock), data)?;
                Ok((peer.id, Arc::new(source)))
            })
            .collect::<Result<BTreeMap<_, _>, ReplicationError>>()?;
        let inner = Arc::new(Inner {
            config,
            meta,
            control,
            volumes,
            clock,
            sources,
            report_now: Notify::new(),
            volumes_moved: watch::Sender::new(1),
            answered: Mutex::default(),
            observed: Observed::default(),
        });
        let mut tasks = JoinSet::new();
        for source in inner.sources.values() {
            tasks.spawn(metadata_lane::run(Arc::clone(&inner), Arc::clone(source)));
            tasks.spawn(blob_lane::run(Arc::clone(&inner), Arc::clone(source)));
        }
        if !inner.sources.is_empty() {
            tasks.spawn(close_periodically(Arc::clone(&inner)));
            tasks.spawn(report_periodically(Arc::clone(&inner)));
            tasks.spawn(follow_reports(Arc::clone(&inner)));
        }
        tasks.spawn(follow_own_volumes(Arc::clone(&inner)));
        Ok(Self { inner, tasks: Arc::new(Mutex::new(tasks)) })
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

    /// W_meta of a source: the minimum over all partitions and the catalog.
    pub fn meta_watermark(&self, origin: DatacenterId) -> Timestamp {
        let through = self
            .meta
            .partitions()
            .map(|partition| self.cursor(partition, origin).map_or(Timestamp::ZERO, |cursor| cursor.applied_through));
        meta_watermark(through)
    }

    /// The partition that holds W_meta back, and its cursor.
    pub fn slowest_partition(&self, origin: DatacenterId) -> Option<(PartitionId, Cursor)> {
        self.meta
            .partitions()
            .filter_map(|partition| Some((partition, self.cursor(partition, origin).ok()?)))
            .min_by_key(|(_, cursor)| cursor.applied_through)
    }

    /// Both watermarks of a source, as durable as they are reported.
    pub fn watermarks(&self, source: &Source) -> (Timestamp, Timestamp) {
        let meta = self.meta_watermark(source.id());
        let mut facts = source.facts.lock();
        facts.watermark.set_meta(meta);
        (meta, facts.watermark.value())
    }

    /// Closes everything of this datacenter at "now": no mutation, no needle and no volume of it is stamped at or
    /// below the answer after this, and everything acknowledged before the call is (rules 9, 13).
    pub async fn close_now(&self) -> Result<Timestamp, ReplicationError> {
        let datacenter = self.own();
        let now = self.clock.next_waiting().await?;
        self.volumes.close_through(now);
        let (meta, registry) = futures::join!(self.meta.close_all(now), self.control.close_registry(now));
        meta.map_err(|source| ReplicationError::Meta { what: "close the partitions", datacenter, source })?;
        registry?;
        self.volumes_moved.send_modify(|version| *version += 1);
        Ok(now)
    }

    /// The volumes and the registry's closed timestamp, as one peer is told.
    pub fn registry(&self) -> (Vec<VolumeRecord>, Timestamp) {
        self.control.registry()
    }

    async fn report(&self) {
        let reported_at = self.clock.wall();
        let reports: Vec<WatermarkReport> = self
            .sources
            .values()
            .map(|source| {
                let (meta, data) = self.watermarks(source);
                let facts = source.facts.lock();
                let held = facts.streams.iter().find_map(|(partition, state)| match state {
                    StreamState::Held { reason, .. } => Some(format!("partition {partition}: {reason}")),
                    _ => None,
                });
                let parked = facts.parked.len() as u64;
                WatermarkReport { source: source.id(), meta, data, reported_at, parked, held }
            })
            .collect();
        self.check_clock();
        let known = self.control.watermarks();
        let moved = reports.iter().any(|report| {
            known.iter().find(|old| old.source == report.source).is_none_or(|old| {
                (old.meta, old.data, old.parked, &old.held) != (report.meta, report.data, report.parked, &report.held)
            })
        });
        if moved && let Err(error) = self.control.report_watermarks(reports).await {
            tracing::warn!(%error, "commit a watermark report");
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

/// Closes this datacenter's volumes and registry, so that silence is not lag (rule 13): soon after bytes moved, seldom
/// while nothing happens.
async fn close_periodically(inner: Arc<Inner>) {
    let limits = &inner.config.limits;
    let committed = |inner: &Inner| inner.volumes.states().iter().map(|v| v.committed).sum::<u64>();
    let mut bytes = committed(&inner);
    let mut closed_at = Instant::now();
    loop {
        tokio::time::sleep(limits.close_interval).await;
        let bytes_now = committed(&inner);
        if bytes_now == bytes && closed_at.elapsed() < limits.close_interval_idle {
            continue;
        }
        (bytes, closed_at) = (bytes_now, Instant::now());
        let now = match inner.clock.next_waiting().await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "the volumes can't be closed");
                continue;
            }
        };
        inner.volumes.close_through(now);
        if let Err(error) = inner.control.close_registry(now).await {
            tracing::debug!(%error, "close the volume registry");
        }
        inner.volumes_moved.send_modify(|version| *version += 1);
    }
}

/// Tells waiting peers as soon as a committed length or the registry moves.
async fn follow_own_volumes(inner: Arc<Inner>) {
    let mut volumes = inner.volumes.changed();
    let mut registry = inner.control.registry_changed();
    loop {
        let changed = tokio::select! {
            changed = volumes.changed() => changed,
            changed = registry.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        inner.volumes_moved.send_modify(|version| *version += 1);
    }
}
