//! The metadata lane: one task a source datacenter pulls the logs of all partitions that this node leads, in one
//! long poll for all that have nothing to do, and proposes what comes to their raft groups.
//!
//! What to do when is decided by `replicator::Stream`, one a partition; this shell performs its effects and feeds
//! the completions back. It keeps nothing: after a restart each stream starts at its committed cursor.
//!
//! Pulls run ahead of proposals: a stream asks for what follows what it has received (`replicator::Stream`).
//!
//! Invariants: a stream is in at most one pull, and its batches are proposed in the order in which they came; at most
//! `PULLS_MAX` calls are under way, each with a deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use meridian_control::{PeerRecord, RememberedBoot};
use meridian_index::RemoteOutcome;
use meridian_meta::MetaError;
use meridian_replicator::{Batch, Cursor, Effect, Event, Stream, StreamState};
use meridian_types::limits::LOG_BATCH_SIZE_MAX;
use meridian_types::{NodeId, PartitionId, Timestamp};
use meridian_wire::replication::{
    HelloReply, HelloRequest, PartitionBatch, PartitionCursor, PullLogsReply, PullLogsRequest, Refusal,
};
use meridian_wire::{call, fields, unpack_entries};
use tokio::time::MissedTickBehavior;

use crate::driver::Inner;
use crate::error::reason_of;
use crate::link_limits::Backoff;
use crate::service::name_of;
use crate::sources::{ClockOffset, LaneState, Source};

/// How often this node looks which partitions it leads.
const LEADERSHIP_INTERVAL: Duration = Duration::from_millis(500);

/// Smallest answer that is asked for on a link that is too slow for more.
const BATCH_BYTES_MIN: usize = 16 << 10;

/// Calls under way at one source. Partitions whose turn comes at different moments share the next one.
const PULLS_MAX: usize = 4;

/// Nothing more is pulled while so many bytes of entries wait for their commit here, over all partitions. With what
/// `PULLS_MAX` calls may bring, this is the metadata lane's byte budget of the link.
const PROPOSED_BYTES_MAX: usize = 16 << 20;

/// What a task under way has come to.
enum Completion {
    Pulled {
        node: NodeId,
        call: u64,
        asked: Vec<PartitionId>,
        reply: Result<PullLogsReply, tonic::Status>,
    },
    Event {
        partition: PartitionId,
        event: Event,
    },
    /// As `Event`, for a batch of so many bytes.
    Proposed {
        partition: PartitionId,
        event: Event,
        bytes: usize,
    },
}

/// Pulls from one source until the driver stops.
pub(crate) async fn run(inner: Arc<Inner>, source: Arc<Source>) {
    introduce(&inner, &source).await;
    let mut lane = MetadataLane {
        streams: BTreeMap::new(),
        wanted: BTreeMap::new(),
        calls: BTreeMap::new(),
        last_call: 0,
        pulls: 0,
        proposed_bytes: 0,
        bytes_max: LOG_BATCH_SIZE_MAX,
        running: FuturesUnordered::new(),
        inner,
        source,
    };
    lane.pull().await;
}

struct MetadataLane {
    inner: Arc<Inner>,
    source: Arc<Source>,
    streams: BTreeMap<PartitionId, Stream>,
    /// Streams that want a pull and are in none.
    wanted: BTreeMap<PartitionId, Cursor>,
    /// The call that each stream's pull is in: the answer to an older one is not for it any more.
    calls: BTreeMap<PartitionId, u64>,
    last_call: u64,
    /// Calls under way.
    pulls: usize,
    /// Bytes of entries in proposals under way.
    proposed_bytes: usize,
    /// Bytes asked for in one answer: halved while answers do not arrive in time, so that a slow link gets through.
    bytes_max: usize,
    running: FuturesUnordered<BoxFuture<'static, Completion>>,
}

impl MetadataLane {
    async fn pull(&mut self) {
        let mut leadership = tokio::time::interval(LEADERSHIP_INTERVAL);
        leadership.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.pulls < PULLS_MAX && self.proposed_bytes < PROPOSED_BYTES_MAX;
            if has_room && !self.wanted.is_empty() {
                // One pull for all partitions that the same node is asked for.
                let mut pulls: BTreeMap<NodeId, BTreeMap<PartitionId, Cursor>> = BTreeMap::new();
                for (partition, cursor) in std::mem::take(&mut self.wanted) {
                    pulls.entry(self.source.link_for(partition).node).or_default().insert(partition, cursor);
                }
                for (node, wanted) in pulls {
                    let pull = self.start_pull(node, wanted);
                    self.running.push(pull);
                }
            }
            tokio::select! {
                biased;
                Some(completion) = self.running.next(), if !self.running.is_empty() => {
                    self.complete(completion);
                    // All that has ended by now, so that partitions which want a pull again share one.
                    while let Some(Some(completion)) = self.running.next().now_or_never() {
                        self.complete(completion);
                    }
                }
                _ = leadership.tick() => self.follow_leadership(),
            }
        }
    }

    fn follow_leadership(&mut self) {
        for partition in self.inner.meta.partitions() {
            let leads = self.inner.meta.serving(partition);
            let known = self.streams.get(&partition).is_some_and(|stream| *stream.state() != StreamState::Stopped);
            if leads && !known {
                match self.inner.cursor(partition, self.source.id()) {
                    Ok(cursor) => self.step(partition, Event::Started { cursor }),
                    Err(error) => tracing::error!(%partition, %error, "read a cursor"),
                }
            } else if !leads && known {
                self.step(partition, Event::LeadershipLost);
            }
        }
    }

    fn step(&mut self, partition: PartitionId, event: Event) {
        let mut effects = Vec::new();
        let now_ms = self.inner.monotonic_ms();
        self.streams.entry(partition).or_default().step(now_ms, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Pull { cursor } => {
                    self.wanted.insert(partition, cursor);
                }
                // Polled first in the order in which they are pushed, and so queued in that order.
                Effect::Propose { number, batch } => {
                    self.proposed_bytes += batch.size_bytes();
                    self.running.push(self.start_apply(partition, number, batch));
                }
                Effect::Retry { after_ms } => self.running.push(Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                    Completion::Event { partition, event: Event::Tick }
                })),
                Effect::Report(state) => {
                    if let StreamState::Held { reason, .. } = &state {
                        tracing::warn!(source = %self.source.peer.name, %partition, %reason, "a stream is held");
                    }
                    self.source.update(|facts| facts.streams.insert(partition, state));
                }
            }
        }
    }

    fn start_pull(&mut self, node: NodeId, wanted: BTreeMap<PartitionId, Cursor>) -> BoxFuture<'static, Completion> {
        let limits = self.inner.config.limits.clone();
        let request = PullLogsRequest {
            caller: self.inner.config.local.caller(),
            cursors: wanted.iter().map(|(partition, cursor)| cursor_message(*partition, cursor)).collect(),
            bytes_max: self.bytes_max as u32,
            wait_ms: limits.long_poll.as_millis() as u32,
            accept_zstd: true,
            durable_through: self.inner.lag_told(&self.source),
        };
        self.last_call += 1;
        self.pulls += 1;
        let call_id = self.last_call;
        let asked: Vec<PartitionId> = wanted.into_keys().collect();
        self.calls.extend(asked.iter().map(|partition| (*partition, call_id)));
        let source = Arc::clone(&self.source);
        let mut client = self.source.link_of(node).client();
        Box::pin(async move {
            source.rate.admit().await;
            let deadline = limits.long_poll + limits.call_grace;
            let reply = call(deadline, request, |request| async move { client.pull_logs(request).await }).await;
            Completion::Pulled { node, call: call_id, asked, reply }
        })
    }

    fn start_apply(&self, partition: PartitionId, number: u64, batch: Batch) -> BoxFuture<'static, Completion> {
        let inner = Arc::clone(&self.inner);
        let source = Arc::clone(&self.source);
        let bytes = batch.size_bytes();
        Box::pin(async move {
            let event = match inner.meta.apply_remote(partition, batch).await {
                Ok(RemoteOutcome::Applied(cursor) | RemoteOutcome::Ignored(cursor)) => {
                    Event::Applied { number, cursor }
                }
                Ok(RemoteOutcome::Rejected { reason, .. }) => Event::Rejected { number, reason },
                Err(MetaError::Skewed { ahead_ms }) => Event::Skewed { number, ahead_ms },
                Err(error) => Event::ApplyFailed { number, reason: error.to_string() },
            };
            source.update(|_| ()); // whoever waits for a watermark looks again
            Completion::Proposed { partition, event, bytes }
        })
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Event { partition, event } => self.step(partition, event),
            Completion::Proposed { partition, event, bytes } => {
                self.proposed_bytes -= bytes;
                self.step(partition, event);
            }
            Completion::Pulled { node, call, mut asked, reply } => {
                self.pulls -= 1;
                asked.retain(|partition| self.calls.get(partition) == Some(&call));
                match reply {
                    Ok(reply) => {
                        self.source.link_of(node).answered();
                        self.take_reply(asked, reply);
                    }
                    Err(status) => self.take_failure(node, asked, &status),
                }
            }
        }
    }

    fn take_failure(&mut self, node: NodeId, asked: Vec<PartitionId>, status: &tonic::Status) {
        self.source.failed(node);
        if status.code() == tonic::Code::DeadlineExceeded {
            self.bytes_max = (self.bytes_max / 2).max(BATCH_BYTES_MIN);
        }
        let reason = reason_of(status);
        self.source.update(|facts| {
            facts.metadata_lane = LaneState::Failing { reason: reason.clone() };
            facts.clock = ClockOffset::default(); // it may come back with its clock set
        });
        for partition in asked {
            self.step(partition, Event::PullFailed { reason: reason.clone() });
        }
    }

    fn take_reply(&mut self, asked: Vec<PartitionId>, reply: PullLogsReply) {
        self.bytes_max = (self.bytes_max * 2).min(LOG_BATCH_SIZE_MAX);
        let now_ms = self.inner.monotonic_ms();
        let source_wall = Timestamp::from_raw(reply.source_wall);
        let mut batches: BTreeMap<u32, PartitionBatch> =
            reply.batches.into_iter().map(|batch| (batch.partition, batch)).collect();
        self.source.rate.spend(batches.values().map(|batch| batch.entries.len()).sum());
        self.source.update(|facts| {
            facts.metadata_lane = LaneState::Answered;
            facts.clock.read(now_ms, source_wall.unix_ms());
            for (partition, batch) in batches.iter().filter(|(_, batch)| batch.refusal == Refusal::None as i32) {
                facts.heads.insert(PartitionId(*partition as u16), batch.head_sequence);
            }
        });
        for partition in asked {
            match batches.remove(&u32::from(partition.0)) {
                Some(batch) => {
                    let event = self.batch_event(batch);
                    self.step(partition, event);
                }
                // No news: the stream still waits for its pull, which is asked again.
                None => {
                    if let Some(cursor) = self.streams.get(&partition).and_then(Stream::pulling) {
                        self.wanted.insert(partition, *cursor);
                    }
                }
            }
        }
    }

    fn batch_event(&self, batch: PartitionBatch) -> Event {
        let detail = || fields::detail(&batch.refusal_detail);
        match Refusal::try_from(batch.refusal) {
            Ok(Refusal::None) => {}
            Ok(Refusal::NeedsFullSync) => return Event::NeedsFullSync,
            Ok(Refusal::NotServing) => {
                self.source.prefer_another();
                return Event::PullFailed { reason: detail() };
            }
            _ => return Event::Refused { reason: detail() },
        }
        let opened = fields::position("after", batch.after.as_ref())
            .map_err(|error| error.to_string())
            .and_then(|after| Ok((after, unpack_entries(&batch).map_err(|error| error.to_string())?)));
        match opened {
            Ok((after, entries)) => Event::Pulled(Batch {
                source: self.source.id(),
                after,
                entries,
                closed: Timestamp::from_raw(batch.closed),
            }),
            Err(reason) => Event::PullFailed { reason },
        }
    }
}

/// Says hello until the source has answered: boot counters are told before anything is pulled (rule 7).
async fn introduce(inner: &Inner, source: &Source) {
    let limits = &inner.config.limits;
    let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
    loop {
        let link = source.link();
        let mut client = link.client();
        let answer =
            call(limits.call_deadline, hello(inner), |request| async move { client.hello(request).await }).await;
        let problem = match answer {
            Ok(reply) => match check_hello(inner, source, &reply).await {
                Ok(()) => {
                    link.answered();
                    source.update(|facts| facts.metadata_lane = LaneState::Answered);
                    return;
                }
                Err(problem) => {
                    tracing::error!(source = %source.peer.name, problem, "a datacenter is not taken as a source");
                    problem
                }
            },
            Err(status) => {
                source.failed(link.node);
                status.message().to_owned()
            }
        };
        source.update(|facts| facts.metadata_lane = LaneState::Failing { reason: problem });
        backoff.pause().await;
    }
}

fn hello(inner: &Inner) -> HelloRequest {
    let config = &inner.config;
    HelloRequest {
        caller: config.local.caller(),
        boot_counter: config.boot_counter,
        incarnation: inner.own_incarnation().0,
        partitions: u32::from(inner.meta.partition_count()),
        datacenter_name: config.datacenter_name.to_string(),
        wall: inner.clock.wall().raw(),
        session: inner.session.0.to_vec().into(),
    }
}

async fn check_hello(inner: &Inner, source: &Source, reply: &HelloReply) -> Result<(), String> {
    let id = fields::datacenter("datacenter", reply.datacenter).map_err(|error| error.to_string())?;
    if id != source.id() {
        return Err(format!("it says that it is datacenter {id}, expected was {}", source.id()));
    }
    if reply.partitions != u32::from(inner.meta.partition_count()) {
        let ours = inner.meta.partition_count();
        return Err(format!("it has {} partitions, this datacenter has {ours}", reply.partitions));
    }
    if reply.went_back {
        // It could not be asked while this node booted, so what this disk holds has been taken for the present. From here
        // on nothing is stamped, neither entry nor needle, until a restart has renewed the log and the volumes.
        inner.clock.forbid();
        let (boot_counter, incarnation) = (reply.remembered_boot_counter, reply.remembered_incarnation);
        let incarnation = meridian_types::Incarnation(incarnation);
        inner.went_back.send_replace(Some(RememberedBoot { boot_counter, incarnation }));
        return Err(format!(
            "it remembers boot {} of this node, which is at {}: our disk went back in time; writes are refused, restart \
             this node",
            reply.remembered_boot_counter, inner.config.boot_counter
        ));
    }
    let session = name_of("session", &reply.session).map_err(|status| status.message().to_owned())?;
    let (node, boot_counter) = (NodeId(reply.node), reply.boot_counter);
    let incarnation = meridian_types::Incarnation(reply.incarnation);
    let record = PeerRecord { datacenter: id, node, boot_counter, session, incarnation };
    inner.control.register_peer(record).await.map(drop).map_err(|error| error.to_string())
}

fn cursor_message(partition: PartitionId, cursor: &Cursor) -> PartitionCursor {
    PartitionCursor {
        partition: u32::from(partition.0),
        position: Some(cursor.position.into()),
        applied_through: cursor.applied_through.raw(),
    }
}
