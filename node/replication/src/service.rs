//! The gRPC service `Replication`: what the other datacenters ask of this one.
//!
//! Invariants: the caller is checked before anything else; a wait is bounded here whatever the caller asks; an
//! answer never holds more than the named limits.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use meridian_control::{PeerRecord, RememberedBoot};
use meridian_env::HybridClock;
use meridian_index::{FenceAttempt, queries};
use meridian_replicator::{PullDecision, decide_pull};
use meridian_types::limits::{LOG_BATCH_ENTRIES_MAX, LOG_BATCH_SIZE_MAX};
use meridian_types::{BucketName, DatacenterId, Incarnation, PartitionId, RequestId, Timestamp};
use meridian_wire::common::Caller;
use meridian_wire::replication::replication_server::Replication as ReplicationRpc;
use meridian_wire::replication::{
    AwaitReply, AwaitRequest, BootReply, BootRequest, CloseNodeRequest, CloseReply, CloseRequest, ConflictsReply,
    ConflictsRequest, ExplainReply, ExplainRequest, FenceReply, FenceRequest, HelloReply, HelloRequest, MirrorsReply,
    MirrorsRequest, NodeVolume, NodeVolumesReply, PartitionBatch, PartitionCursor, PullLogsReply, PullLogsRequest,
    Refusal, StatusReply, StatusRequest, VolumeInfo, VolumesReply, VolumesRequest,
};
use meridian_wire::{LocalNode, Members, Peer, Shown, fields, pack_entries};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::driver::{Inner, Replication};
use crate::{ConflictQuery, ReplicationError, explain, report};

/// Longest time that a pull or a list is kept open.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest time that a watermark is waited for.
const AWAIT_MAX: Duration = Duration::from_secs(100);
/// A datacenter that waits is answered at once, but not sooner than this after its last answer: a commit every
/// millisecond shall not cost an exchange each. On a link whose round trip takes longer nothing ever waits for it.
const PULL_INTERVAL_MIN: Duration = Duration::from_millis(4);
/// How long a list of volumes waits for more news: the bytes themselves are followed by waiting ranges.
const LIST_LINGER: Duration = Duration::from_millis(20);
/// Most cursors in one pull: every partition and the catalog.
const CURSORS_MAX: usize = meridian_types::limits::PARTITIONS_MAX as usize + 1;

/// The service over a driver that may start later: the port serves raft before anything can be replicated.
#[derive(Clone)]
pub struct ReplicationService {
    local: LocalNode,
    members: Members,
    clock: Arc<HybridClock>,
    memory: BootMemory,
    driver: Arc<OnceLock<Replication>>,
}

/// The last boot of a node that this datacenter remembers.
pub type BootMemory = Arc<dyn Fn(Peer) -> Option<RememberedBoot> + Send + Sync>;

impl ReplicationService {
    /// Tells whoever boots of `clock` and `memory`, and nothing else before `set`.
    pub fn new(local: LocalNode, members: Members, clock: Arc<HybridClock>, memory: BootMemory) -> Self {
        Self { local, members, clock, memory, driver: Arc::default() }
    }

    /// From now on calls are answered by `replication`; before, they are told to come again.
    ///
    /// # Panics
    /// When it has been set before.
    pub fn set(&self, replication: Replication) {
        assert!(self.driver.set(replication).is_ok(), "a node has one replication driver");
    }

    #[allow(clippy::result_large_err)] // tonic's own error type
    fn inner(&self, shown: &Shown, caller: Option<&Caller>) -> Result<(&Arc<Inner>, Peer), Status> {
        let peer = self.peer(shown, caller)?;
        let driver = self.driver.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        Ok((&driver.inner, peer))
    }

    /// Who calls, by its word and by its certificate.
    #[allow(clippy::result_large_err)] // tonic's own error type
    fn peer(&self, shown: &Shown, caller: Option<&Caller>) -> Result<Peer, Status> {
        let peer = self.local.check(caller)?;
        self.members.check(shown, peer)?;
        Ok(peer)
    }

    /// For calls that only a node of the same datacenter may make.
    #[allow(clippy::result_large_err)] // tonic's own error type
    fn sibling(&self, shown: &Shown, caller: Option<&Caller>) -> Result<&Arc<Inner>, Status> {
        let (inner, peer) = self.inner(shown, caller)?;
        if peer.datacenter != inner.own() {
            let ours = inner.own();
            return Err(Status::failed_precondition(format!("only nodes of datacenter {ours} may ask this")));
        }
        Ok(inner)
    }
}

/// How far a volume of this datacenter is by its primary's word, and whether that was never heard.
fn own_volume(inner: &Inner, record: &meridian_control::VolumeRecord) -> (Option<NodeVolumeState>, bool) {
    if record.primary == inner.config.local.node {
        let state = inner.volumes.state(record.id).filter(|state| !state.mirror);
        return (state.map(|state| NodeVolumeState { committed: state.committed, closed: state.closed }), false);
    }
    let Some(sibling) = inner.siblings.get(record.primary) else { return (None, true) };
    let state = sibling.volume(record.id).filter(|state| !state.mirror);
    (state.map(|state| NodeVolumeState { committed: state.committed, closed: state.closed }), !sibling.is_known())
}

/// What a peer may be told of a volume's primary.
#[derive(Clone, Copy)]
struct NodeVolumeState {
    committed: u64,
    closed: Timestamp,
}

#[async_trait]
impl ReplicationRpc for ReplicationService {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, peer) = self.inner(&shown, request.caller.as_ref())?;
        if peer.datacenter == inner.own() || !inner.sources.contains_key(&peer.datacenter) {
            return Err(Status::failed_precondition(format!("datacenter {} is no other member here", peer.datacenter)));
        }
        // A refused counter still gets its answer: the caller must learn that its disks went back (rule 7).
        let record = PeerRecord {
            datacenter: peer.datacenter,
            node: peer.node,
            boot_counter: request.boot_counter,
            session: name_of("session", &request.session)?,
            incarnation: Incarnation(request.incarnation),
        };
        let (remembered_boot_counter, went_back) = match inner.control.register_peer(record).await {
            Ok(record) => (record.boot_counter.min(request.boot_counter), false),
            Err(meridian_control::ControlError::PeerWentBack { registered, .. }) => {
                tracing::error!(datacenter = %peer.datacenter, node = %peer.node, registered,
                    given = request.boot_counter, "a node's disk went back in time; its log is refused");
                (registered, true)
            }
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        Ok(Response::new(HelloReply {
            datacenter: u32::from(inner.own().get()),
            node: inner.config.local.node.0,
            boot_counter: inner.config.boot_counter,
            incarnation: inner.own_incarnation().0,
            partitions: u32::from(inner.meta.partition_count()),
            datacenter_name: inner.config.datacenter_name.to_string(),
            wall: inner.clock.wall().raw(),
            remembered_boot_counter,
            remembered_incarnation: request.incarnation,
            session: inner.session.0.to_vec().into(),
            went_back,
        }))
    }

    async fn pull_logs(&self, request: Request<PullLogsRequest>) -> Result<Response<PullLogsReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, peer) = self.inner(&shown, request.caller.as_ref())?;
        if request.cursors.len() > CURSORS_MAX {
            return Err(Status::invalid_argument(format!("at most {CURSORS_MAX} cursors in one pull")));
        }
        inner.hear_lag(peer.datacenter, request.durable_through);
        let until = Instant::now() + Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
        let mut advanced = inner.meta.advanced();
        let mut seen = BTreeMap::new();
        advanced.borrow_and_update();
        while !has_news(inner, &request, &mut seen)? {
            let woken = tokio::select! {
                woken = tokio::time::timeout_at(until, advanced.changed()) => woken,
                () = inner.stopping() => return Err(stopping()),
            };
            match woken {
                Ok(Ok(())) => {
                    let answered = inner.answered.lock().get(&peer.datacenter).copied();
                    if let Some(answered) = answered {
                        tokio::time::sleep_until(until.min(answered + PULL_INTERVAL_MIN)).await;
                    }
                }
                Ok(Err(_)) => return Err(stopping()),
                Err(_) => break,
            }
            advanced.borrow_and_update();
        }
        let batches = collect_batches(inner, &request)?;
        inner.answered.lock().insert(peer.datacenter, Instant::now());
        Ok(Response::new(PullLogsReply { batches, source_wall: inner.clock.wall().raw() }))
    }

    async fn list_volumes(&self, request: Request<VolumesRequest>) -> Result<Response<VolumesReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, peer) = self.inner(&shown, request.caller.as_ref())?;
        inner.hear_lag(peer.datacenter, request.durable_through);
        let until = Instant::now() + Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
        let mut moved = inner.volumes_moved.subscribe();
        while *moved.borrow_and_update() == request.known_version {
            let woken = tokio::select! {
                woken = tokio::time::timeout_at(until, moved.changed()) => woken,
                () = inner.stopping() => return Err(stopping()),
            };
            match woken {
                // A group commit every millisecond shall not cost a list each.
                Ok(Ok(())) => tokio::time::sleep_until(until.min(Instant::now() + LIST_LINGER)).await,
                Ok(Err(_)) => return Err(stopping()),
                Err(_) => break,
            }
        }
        // The version first: what moves between these lines is told again, never missed.
        let version = *moved.borrow_and_update();
        let (records, registry_closed) = inner.registry();
        let volumes = records
            .into_iter()
            .map(|record| {
                let (state, unreported) = own_volume(inner, &record);
                VolumeInfo {
                    volume: record.id.get(),
                    generation: record.generation.0,
                    epoch: record.epoch.0,
                    code: record.code.to_string(),
                    // A sealed volume has its sealed length whatever its file here has left (rules 2, 13).
                    committed_bytes: record.sealed_length.unwrap_or_else(|| state.map_or(0, |state| state.committed)),
                    // Nothing in a volume is stamped at or below its creation, also while it has no file yet.
                    closed: state.map_or(record.created, |state| state.closed.max(record.created)).raw(),
                    sealed: record.sealed_length.is_some(),
                    mirrored_here: record.mirrors.contains(&peer.datacenter),
                    primary: record.primary.0,
                    unreported: unreported && record.sealed_length.is_none(),
                }
            })
            .collect();
        Ok(Response::new(VolumesReply { version, registry_closed: registry_closed.raw(), volumes }))
    }

    async fn close(&self, request: Request<CloseRequest>) -> Result<Response<CloseReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, _) = self.inner(&shown, request.caller.as_ref())?;
        let timestamp = inner.close_now().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(CloseReply { timestamp: timestamp.raw() }))
    }

    async fn node_volumes(&self, request: Request<VolumesRequest>) -> Result<Response<NodeVolumesReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let inner = self.sibling(&shown, request.caller.as_ref())?;
        let until = Instant::now() + Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
        let mut moved = inner.node_volumes_moved.subscribe();
        while *moved.borrow_and_update() == request.known_version {
            match tokio::time::timeout_at(until, moved.changed()).await {
                Ok(Ok(())) => tokio::time::sleep_until(until.min(Instant::now() + LIST_LINGER)).await,
                Ok(Err(_)) => return Err(Status::unavailable("this node is stopping")),
                Err(_) => break,
            }
        }
        let version = *moved.borrow_and_update(); // before the states, as in `list_volumes`
        let volumes = inner.volumes.states().into_iter().map(|state| NodeVolume {
            volume: state.header.volume.get(),
            generation: state.header.generation.0,
            committed_bytes: state.committed,
            closed: state.closed.raw(),
            mirror: state.mirror,
        });
        Ok(Response::new(NodeVolumesReply { version, volumes: volumes.collect() }))
    }

    async fn list_mirrors(&self, request: Request<MirrorsRequest>) -> Result<Response<MirrorsReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, peer) = self.inner(&shown, request.caller.as_ref())?;
        Ok(Response::new(inner.mirrors_of(peer.datacenter)))
    }

    async fn close_node(&self, request: Request<CloseNodeRequest>) -> Result<Response<CloseReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let inner = self.sibling(&shown, request.caller.as_ref())?;
        let at = Timestamp::from_raw(request.timestamp);
        if at > Timestamp::ZERO {
            inner.clock.observe(at); // what is stamped from now on lies above it
            inner.close_own_volumes(at);
            return Ok(Response::new(CloseReply { timestamp: at.raw() }));
        }
        let now = inner.clock.next_waiting().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(CloseReply { timestamp: now.raw() }))
    }

    async fn await_watermark(&self, request: Request<AwaitRequest>) -> Result<Response<AwaitReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, _) = self.inner(&shown, request.caller.as_ref())?;
        let source = fields::datacenter("source", request.source)?;
        let timeout = Duration::from_millis(u64::from(request.timeout_ms)).min(AWAIT_MAX);
        let wanted = Timestamp::from_raw(request.timestamp);
        Ok(Response::new(await_watermark(inner, source, wanted, timeout, request.meta_only).await?))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, _) = self.inner(&shown, request.caller.as_ref())?;
        Ok(Response::new(match request.node_only {
            true => report::node_report(inner),
            false => report::own_report(inner).await,
        }))
    }

    async fn fence_bucket(&self, request: Request<FenceRequest>) -> Result<Response<FenceReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, peer) = self.inner(&shown, request.caller.as_ref())?;
        let bucket = fields::bucket("bucket", &request.bucket)?;
        let attempt = name_of("attempt", &request.attempt)?;
        let attempt = FenceAttempt { datacenter: peer.datacenter, attempt };
        let report = meridian_object::fence_bucket(&inner.meta, inner.own(), bucket, attempt, request.raised)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        // Behind the fence no mutation of the bucket follows, so heads read now cover all that came before it.
        let mut positions = Vec::new();
        for partition in inner.meta.partitions().filter(|partition| !partition.is_catalog()) {
            let unavailable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
            let view = inner.meta.read(partition).await.map_err(|error| unavailable(&error))?;
            let head = queries::log_head(&view, inner.own()).map_err(|error| unavailable(&error))?;
            positions.push((partition, head.position).into());
        }
        let reply = FenceReply { empty: report.empty, positions };
        Ok(Response::new(reply))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let (inner, _) = self.inner(&shown, request.caller.as_ref())?;
        let bucket = fields::bucket("bucket", &request.bucket)?;
        let key = request.key.parse().map_err(|error| Status::invalid_argument(format!("key: {error}")))?;
        let version = explain::own_version(inner, bucket, &key).await;
        Ok(Response::new(version.map_err(|error| Status::internal(error.to_string()))?))
    }

    async fn conflicts(&self, request: Request<ConflictsRequest>) -> Result<Response<ConflictsReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        self.inner(&shown, request.caller.as_ref())?;
        let replication = self.driver.get().ok_or_else(stopping)?;
        let bucket = match request.bucket.as_str() {
            "" => None,
            name => {
                let parsed = name.parse::<BucketName>();
                Some(parsed.map_err(|error| Status::invalid_argument(format!("bucket: {error}")))?)
            }
        };
        let query = ConflictQuery {
            bucket,
            since_ms: (request.since_ms > 0).then_some(request.since_ms),
            after: Some(request.after).filter(|after| !after.is_empty()),
            limit: request.limit as usize,
        };
        let told = replication.told_conflicts(&query).await;
        told.map(Response::new).map_err(|error| match error {
            ReplicationError::BadToken { .. } => Status::invalid_argument(error.to_string()),
            error => Status::unavailable(error.to_string()),
        })
    }

    async fn boot(&self, request: Request<BootRequest>) -> Result<Response<BootReply>, Status> {
        let (shown, request) = (Shown::of(&request), request.into_inner());
        let peer = self.peer(&shown, request.caller.as_ref())?;
        let remembered = (self.memory)(peer);
        Ok(Response::new(BootReply {
            wall: self.clock.wall().raw(),
            remembered_boot_counter: remembered.map_or(0, |boot| boot.boot_counter),
            remembered_incarnation: remembered.map_or(0, |boot| boot.incarnation.0),
        }))
    }
}

/// 16 bytes that name something: a node's start, an attempt.
#[allow(clippy::result_large_err)] // tonic's own error type
pub(crate) fn name_of(field: &'static str, bytes: &[u8]) -> Result<RequestId, Status> {
    let bytes = <[u8; 16]>::try_from(bytes);
    bytes.map(RequestId).map_err(|_| Status::invalid_argument(format!("{field}: 16 bytes are needed")))
}

fn stopping() -> Status {
    Status::unavailable("this node is stopping")
}

/// Waits until both watermarks of `source` have reached `wanted`, or says what holds them back.
pub(crate) async fn await_watermark(
    inner: &Inner,
    source: DatacenterId,
    wanted: Timestamp,
    timeout: Duration,
    meta_only: bool,
) -> Result<AwaitReply, Status> {
    let source = inner
        .sources
        .get(&source)
        .ok_or_else(|| Status::invalid_argument(format!("datacenter {source} is no other member here")))?;
    let until = Instant::now() + timeout;
    // Among several nodes the reports of all count, and those move with control.
    let (mut moved, mut committed) = (source.moved(), inner.control.changed());
    loop {
        moved.borrow_and_update();
        committed.borrow_and_update();
        let (meta, data) = inner.watermarks(source);
        let met = meta >= wanted && (meta_only || data >= wanted);
        if met {
            inner.report_now.notify_one();
        }
        let changed = async {
            tokio::select! {
                _ = moved.changed() => true,
                _ = committed.changed() => true,
                () = inner.stopping() => false,
            }
        };
        if met || !tokio::time::timeout_at(until, changed).await.unwrap_or(false) {
            let reason = if met { String::new() } else { report::held_back_by(inner, source, wanted) };
            return Ok(AwaitReply { met, meta: meta.raw(), data: data.raw(), reason });
        }
    }
}

/// Whether any of the asked partitions has something the caller lacks. `seen` holds how far each had applied when it had
/// no news: a partition is looked at again only when that has moved, so that one's commits don't cost a look at all.
fn has_news(inner: &Inner, request: &PullLogsRequest, seen: &mut BTreeMap<u32, u64>) -> Result<bool, Status> {
    for cursor in &request.cursors {
        let partition = fields::partition("partition", cursor.partition)?;
        // Read before the look: what is applied between the two is looked at again, never missed.
        let applied = inner.meta.applied(partition).ok().filter(|_| is_served(inner, partition));
        if applied.is_some() && seen.get(&cursor.partition) == applied.as_ref() {
            continue;
        }
        if !matches!(look(inner, cursor)?, Look::NoNews) {
            return Ok(true);
        }
        if let Some(applied) = applied {
            seen.insert(cursor.partition, applied);
        }
    }
    Ok(false)
}

fn collect_batches(inner: &Inner, request: &PullLogsRequest) -> Result<Vec<PartitionBatch>, Status> {
    let mut budget = (request.bytes_max as usize).min(LOG_BATCH_SIZE_MAX);
    let mut batches = Vec::new();
    for cursor in &request.cursors {
        match look(inner, cursor)? {
            Look::NoNews => {}
            Look::Refused(refusal, detail) => batches.push(PartitionBatch {
                partition: cursor.partition,
                after: cursor.position.clone(),
                refusal: refusal as i32,
                refusal_detail: detail,
                ..PartitionBatch::default()
            }),
            Look::News(news) => {
                // Once the budget is spent the rest waits for the next pull; the first partition always gets through.
                if budget == 0 {
                    continue;
                }
                let batch = news.batch(inner, cursor, budget, request.accept_zstd)?;
                budget = budget.saturating_sub(batch.entries_size_bytes.max(1) as usize);
                batches.push(batch);
            }
        }
    }
    Ok(batches)
}

enum Look {
    NoNews,
    News(News),
    Refused(Refusal, String),
}

struct News {
    view: meridian_store::GroupView,
    head: meridian_replicator::LogHead,
    from: Option<meridian_types::Sequence>,
}

fn look(inner: &Inner, cursor: &PartitionCursor) -> Result<Look, Status> {
    let partition = fields::partition("partition", cursor.partition)?;
    let position = fields::position("position", cursor.position.as_ref())?;
    if position.origin != inner.own() {
        let detail = format!("datacenter {} passes on no other log than its own", inner.own());
        return Ok(Look::Refused(Refusal::NoSuchOrigin, detail));
    }
    if !is_known(inner, partition) {
        return Ok(Look::Refused(Refusal::NoSuchPartition, format!("there is no partition {partition}")));
    }
    // Any replica may answer: what it has applied is committed.
    if !is_served(inner, partition) {
        return Ok(Look::Refused(Refusal::NotServing, format!("partition {partition} is not served by this node")));
    }
    let damaged = |error: &dyn std::fmt::Display| Status::internal(format!("partition {partition}: {error}"));
    let view = inner.meta.local_view(partition).map_err(|error| damaged(&error))?;
    let head = queries::log_head(&view, inner.own()).map_err(|error| damaged(&error))?;
    // By far the most frequent case, without a look into the log: the caller has everything.
    if head.position == position && head.closed.raw() <= cursor.applied_through {
        return Ok(Look::NoNews);
    }
    let oldest = queries::oldest_kept(&view, inner.own()).map_err(|error| damaged(&error))?;
    let hash = queries::entry_hash_at(&view, position.origin, position.incarnation, position.sequence)
        .map_err(|error| damaged(&error))?;
    Ok(match decide_pull(&head, oldest, &position, hash) {
        PullDecision::Serve { from } => Look::News(News { view, head, from: Some(from) }),
        PullDecision::UpToDate if head.closed.raw() > cursor.applied_through => {
            Look::News(News { view, head, from: None })
        }
        PullDecision::UpToDate => Look::NoNews,
        PullDecision::NeedsFullSync => {
            Look::Refused(Refusal::NeedsFullSync, format!("the log of partition {partition} starts at {oldest}"))
        }
        PullDecision::Refuse(refusal) => {
            let kind = match refusal {
                meridian_replicator::PullRefusal::WrongOrigin { .. } => Refusal::NoSuchOrigin,
                meridian_replicator::PullRefusal::BeyondHead { .. } => Refusal::AheadOfSource,
                meridian_replicator::PullRefusal::UnknownPosition { .. } => Refusal::UnknownIncarnation,
                meridian_replicator::PullRefusal::HashMismatch { .. } => Refusal::HistoryDiffers,
            };
            Look::Refused(kind, refusal.to_string())
        }
    })
}

impl News {
    fn batch(
        &self,
        inner: &Inner,
        cursor: &PartitionCursor,
        bytes_max: usize,
        accept_zstd: bool,
    ) -> Result<PartitionBatch, Status> {
        let failed =
            |error: &dyn std::fmt::Display| Status::internal(format!("partition {}: {error}", cursor.partition));
        let incarnation = fields::position("position", cursor.position.as_ref())?.incarnation;
        let entries = match self.from {
            Some(from) => {
                queries::log_entries(&self.view, inner.own(), incarnation, from, LOG_BATCH_ENTRIES_MAX, bytes_max)
                    .map_err(|error| failed(&error))?
            }
            None => Vec::new(),
        };
        let last = self.from.map_or(self.head.position.sequence.0, |from| from.0 + entries.len() as u64 - 1);
        let reaches_head = last == self.head.position.sequence.0;
        let mut batch = PartitionBatch {
            partition: cursor.partition,
            after: cursor.position.clone(),
            closed: if reaches_head { self.head.closed.raw() } else { 0 },
            head_sequence: self.head.position.sequence.0,
            ..PartitionBatch::default()
        };
        pack_entries(entries, accept_zstd).map_err(|error| failed(&error))?.fill(&mut batch);
        Ok(batch)
    }
}

/// A replica that hears of a leader: one that does not may be cut off.
fn is_served(inner: &Inner, partition: PartitionId) -> bool {
    inner.meta.is_here(partition) && inner.meta.leader(partition).is_some()
}

fn is_known(inner: &Inner, partition: PartitionId) -> bool {
    partition.is_catalog() || partition.0 < inner.meta.partition_count()
}
