//! A datacenter's own report: what its destinations' cells, and its own line, are made of.
//!
//! Invariants: W_meta and W_data are the last committed ones (rule 27), and what is called whole here is what they
//! cover; heads and bytes of the own log and volumes are what has been acknowledged. Nothing here waits.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use meridian_control::WatermarkReport;
use meridian_index::{IndexError, queries};
use meridian_replicator::{HoldReason, LogEntry, StreamState};
use meridian_store::GroupView;
use meridian_types::{DatacenterId, Incarnation, LogPosition, PartitionId, Sequence, Stamp, Timestamp};
use meridian_wire::call;
use meridian_wire::fields::detail;
use meridian_wire::replication::{
    DatacenterBytes, LinkState, PartitionSequence, SourceStatus, StatusReply, StatusRequest,
};
use parking_lot::Mutex;

use crate::driver::{Inner, Replication};
use crate::rates::{MinuteCount, Rates, Totals};
use crate::sources::{LaneState, Source, SourceFacts};

/// Conflicts of the last day are those whose loser is this young.
const CONFLICTS_AGE_MS: u64 = 24 * 60 * 60 * 1000;
/// Conflicts of one partition that are counted; more are shown as this many.
const CONFLICTS_COUNTED_MAX: usize = 10_000;
/// Entries from whose size that of the log is estimated: so many from its start, and as many from its end.
const LOG_SAMPLE_ENTRIES: usize = 16;

/// How long a datacenter's report waits for its own nodes.
const SIBLING_DEADLINE: Duration = Duration::from_millis(700);

/// How many nodes of this datacenter gossip has heard of lately, this one included.
pub type LiveNodes = Arc<dyn Fn() -> u32 + Send + Sync>;

/// What is kept for the screen alone.
#[derive(Default)]
pub(crate) struct Observed {
    /// The last answer of each other datacenter.
    pub cached: Mutex<BTreeMap<DatacenterId, StatusReply>>,
    live_nodes: OnceLock<LiveNodes>,
    rates: Mutex<BTreeMap<DatacenterId, Rates>>,
    /// Reads that were proxied, served and failed.
    proxied: Mutex<(MinuteCount, MinuteCount)>,
}

impl Observed {
    pub fn count_proxied(&self, now_ms: u64, served: bool) {
        let (ok, failed) = &mut *self.proxied.lock();
        if served { ok } else { failed }.add(now_ms);
    }
}

impl Replication {
    /// Lets status show how many nodes are alive; until then the registered ones are taken for it.
    pub fn count_live_nodes(&self, live_nodes: LiveNodes) {
        let _ = self.inner.observed.live_nodes.set(live_nodes);
    }
}

/// Reads the totals of every link, for its rates; called with each watermark report.
pub(crate) fn read_rates(inner: &Inner) {
    let now_ms = inner.monotonic_ms();
    for source in inner.sources.values() {
        let entries_here = inner
            .meta
            .partitions()
            .filter_map(|partition| inner.cursor(partition, source.id()).ok())
            .map(|cursor| cursor.position.sequence.0)
            .sum();
        let totals = {
            let facts = source.facts.lock();
            let entries_there = facts.heads.values().sum::<u64>().max(entries_here);
            Totals { entries_there, entries_here, bytes_here: facts.watermark.durable_bytes() }
        };
        inner.observed.rates.lock().entry(source.id()).or_default().read(now_ms, totals);
    }
}

/// This datacenter's own report: what this node knows, put together with what its siblings do.
pub(crate) async fn own_report(inner: &Inner) -> StatusReply {
    let asked = inner.siblings.iter().map(|sibling| async move {
        let mut client = sibling.client();
        let request = StatusRequest { caller: inner.config.local.caller(), node_only: true };
        call(SIBLING_DEADLINE, request, |request| async move { client.status(request).await }).await.ok()
    });
    let mut report = node_report(inner);
    for other in join_all(asked).await.into_iter().flatten() {
        add_report(&mut report, other);
    }
    report
}

/// Adds what another node of the datacenter knows. Watermarks are the same everywhere: they are committed.
fn add_report(report: &mut StatusReply, other: StatusReply) {
    report.log_size_bytes += other.log_size_bytes;
    report.log_oldest = [report.log_oldest, other.log_oldest].into_iter().filter(|at| *at > 0).min().unwrap_or(0);
    report.conflicts_count += other.conflicts_count;
    report.conflicts_day_count += other.conflicts_day_count;
    report.catalog_sequence = report.catalog_sequence.max(other.catalog_sequence);
    report.catalog_position = report.catalog_position.max(other.catalog_position);
    report.unmirrored_bytes += other.unmirrored_bytes;
    report.proxied_ok_count += other.proxied_ok_count;
    report.proxied_failed_count += other.proxied_failed_count;
    add_sequences(&mut report.heads, other.heads);
    for theirs in other.mirrored_to {
        match report.mirrored_to.iter_mut().find(|ours| ours.datacenter == theirs.datacenter) {
            Some(ours) => ours.bytes += theirs.bytes,
            None => report.mirrored_to.push(theirs),
        }
    }
    for theirs in other.sources {
        let Some(ours) = report.sources.iter_mut().find(|ours| ours.source == theirs.source) else { continue };
        if severity(theirs.state()) > severity(ours.state()) {
            (ours.state, ours.reason) = (theirs.state, theirs.reason.clone());
        } else if ours.reason.is_empty() && theirs.state == ours.state {
            ours.reason = theirs.reason.clone();
        }
        ours.pending_entries += theirs.pending_entries;
        ours.pending_bytes += theirs.pending_bytes;
        ours.parked_ranges_count += theirs.parked_ranges_count;
        ours.retrying_count += theirs.retrying_count;
        ours.entries_in_per_s += theirs.entries_in_per_s;
        ours.entries_out_per_s += theirs.entries_out_per_s;
        ours.bytes_out_per_s += theirs.bytes_out_per_s;
        ours.mirrored_bytes += theirs.mirrored_bytes;
        add_sequences(&mut ours.durable, theirs.durable);
    }
}

/// Several nodes have a replica of one partition: the one that is furthest counts.
fn add_sequences(ours: &mut Vec<PartitionSequence>, theirs: Vec<PartitionSequence>) {
    for other in theirs {
        match ours.iter_mut().find(|known| known.partition == other.partition) {
            Some(known) => known.sequence = known.sequence.max(other.sequence),
            None => ours.push(other),
        }
    }
}

fn severity(state: LinkState) -> u8 {
    match state {
        LinkState::Ok => 0,
        LinkState::Unspecified => 1,
        LinkState::CatchingUp => 2,
        LinkState::Down => 3,
        LinkState::Held => 4,
        LinkState::ClockSkewed => 5,
        LinkState::NeedsFullSync => 6,
    }
}

/// What this node knows by itself.
pub(crate) fn node_report(inner: &Inner) -> StatusReply {
    let (leader, term) = inner.control.leader().map_or((0, 0), |(node, term)| (node.0, term));
    let committed = inner.control.watermarks();
    let nodes_registered = inner.control.nodes().len() as u32;
    let own = own_log(inner);
    let (mirrored_to, unmirrored_bytes) = own_volumes(inner);
    let now_ms = inner.monotonic_ms();
    let (proxied_ok_count, proxied_failed_count) = {
        let (ok, failed) = &*inner.observed.proxied.lock();
        (ok.sum(now_ms), failed.sum(now_ms))
    };
    StatusReply {
        datacenter: u32::from(inner.own().get()),
        datacenter_name: inner.config.datacenter_name.to_string(),
        reported_at: inner.clock.wall().raw(),
        control_leader: leader,
        control_term: term,
        nodes_live: inner.observed.live_nodes.get().map_or(nodes_registered, |live_nodes| live_nodes()),
        nodes_registered,
        log_size_bytes: own.size_bytes,
        log_oldest: own.oldest.map_or(0, Timestamp::raw),
        catalog_sequence: own.heads.iter().find(|head| is_catalog(head)).map_or(0, |head| head.sequence),
        conflicts_count: own.conflicts,
        sources: inner.sources.values().map(|source| source_status(inner, source, &committed)).collect(),
        heads: own.heads,
        mirrored_to,
        unmirrored_bytes,
        catalog_position: catalog_position(inner),
        conflicts_day_count: own.conflicts_of_the_day,
        proxied_ok_count,
        proxied_failed_count,
        write_delay: inner.write_delay().map(|delay| meridian_wire::replication::WriteDelay {
            destination: u32::from(delay.destination.get()),
            delay_ms: delay.delay_ms,
            lag_ms: delay.lag_ms,
        }),
        stamped_through: inner.clock.stamped_through().raw(),
    }
}

fn is_catalog(at: &PartitionSequence) -> bool {
    at.partition == u32::from(PartitionId::CATALOG.0)
}

/// What the partitions say of the own log.
#[derive(Default)]
struct OwnLog {
    heads: Vec<PartitionSequence>,
    size_bytes: u64,
    oldest: Option<Timestamp>,
    conflicts: u64,
    conflicts_of_the_day: u64,
}

fn own_log(inner: &Inner) -> OwnLog {
    let mut own = OwnLog::default();
    let yesterday = Timestamp::from_unix_ms(inner.clock.wall().unix_ms().saturating_sub(CONFLICTS_AGE_MS));
    let yesterday = Stamp::new(yesterday, inner.own());
    for partition in inner.meta.partitions() {
        let Ok(view) = inner.meta.local_view(partition) else { continue };
        let is_led_here = inner.meta.serving(partition);
        if let Ok(head) = queries::log_head(&view, inner.own()) {
            let sequence = head.position.sequence.0;
            own.heads.push(PartitionSequence { partition: u32::from(partition.0), sequence });
            if is_led_here && let Ok(kept) = kept_log(&view, &head.position) {
                own.size_bytes += kept.0;
                own.oldest = own.oldest.into_iter().chain(kept.1).min();
            }
        }
        if !is_led_here {
            continue; // each is counted by its leader
        }
        own.conflicts += queries::state(&view).map_or(0, |state| state.conflicts);
        let of_the_day = queries::conflicts(&view, Some(yesterday), CONFLICTS_COUNTED_MAX);
        own.conflicts_of_the_day += of_the_day.map_or(0, |rows| rows.len() as u64);
    }
    own
}

/// The size of a log, estimated from some of its entries, and the stamp of its oldest one.
fn kept_log(view: &GroupView, head: &LogPosition) -> Result<(u64, Option<Timestamp>), IndexError> {
    let oldest = queries::oldest_kept(view, head.origin)?;
    let count = (head.sequence.0 + 1).saturating_sub(oldest.0);
    if count == 0 {
        return Ok((0, None));
    }
    let some =
        |incarnation, from| queries::log_entries(view, head.origin, incarnation, from, LOG_SAMPLE_ENTRIES, usize::MAX);
    let first = some(Incarnation(0), oldest)?;
    let near_end = Sequence(head.sequence.0.saturating_sub(LOG_SAMPLE_ENTRIES as u64 - 1).max(oldest.0));
    let last = some(head.incarnation, near_end)?;
    let stamp = first.first().and_then(|entry| LogEntry::decode(entry).ok()).map(|entry| entry.stamp.timestamp);
    let sampled: u64 = first.iter().chain(&last).map(|entry| entry.len() as u64).sum();
    let of_sample = (first.len() + last.len()).max(1) as u64;
    Ok((sampled * count / of_sample, stamp))
}

/// Entries that the catalog has applied, of all origins.
fn catalog_position(inner: &Inner) -> u64 {
    let Ok(view) = inner.meta.local_view(PartitionId::CATALOG) else { return 0 };
    let own = queries::log_head(&view, inner.own()).map_or(0, |head| head.position.sequence.0);
    let others = queries::cursors(&view).unwrap_or_default();
    let others = others.iter().filter(|cursor| cursor.position.origin != inner.own());
    own + others.map(|cursor| cursor.position.sequence.0).sum::<u64>()
}

/// Committed bytes of the volumes that this node is the primary of, by who shall mirror them, and those that nobody shall.
fn own_volumes(inner: &Inner) -> (Vec<DatacenterBytes>, u64) {
    let mut mirrored_to: BTreeMap<u32, u64> =
        inner.sources.keys().map(|datacenter| (u32::from(datacenter.get()), 0)).collect();
    let mut unmirrored_bytes = 0;
    for record in inner.registry().0.into_iter().filter(|record| record.primary == inner.config.local.node) {
        let committed = || inner.volumes.state(record.id).map_or(0, |state| state.committed);
        let bytes = record.sealed_length.unwrap_or_else(committed);
        for datacenter in &record.mirrors {
            *mirrored_to.entry(u32::from(datacenter.get())).or_default() += bytes;
        }
        if record.mirrors.is_empty() {
            unmirrored_bytes += bytes;
        }
    }
    let mirrored_to = mirrored_to.into_iter().map(|(datacenter, bytes)| DatacenterBytes { datacenter, bytes });
    (mirrored_to.collect(), unmirrored_bytes)
}

fn source_status(inner: &Inner, source: &Source, committed: &[WatermarkReport]) -> SourceStatus {
    let report = committed.iter().find(|report| report.source == source.id());
    let slowest = inner.slowest_partition(source.id());
    let data = report.map_or(Timestamp::ZERO, |report| report.data);
    let mut applied = BTreeMap::new();
    let mut durable = Vec::new();
    for partition in inner.meta.partitions() {
        let Ok(cursor) = inner.cursor(partition, source.id()) else { continue };
        applied.insert(partition, cursor.position.sequence.0);
        let whole =
            inner.meta.local_view(partition).ok().and_then(|view| whole_through(&view, &cursor.position, data).ok());
        let sequence = whole.map_or(0, |sequence| sequence.0);
        durable.push(PartitionSequence { partition: u32::from(partition.0), sequence });
    }
    let clock_offset_ms = inner.clock_offset_ms(source).unwrap_or(0);
    let rates = inner.observed.rates.lock().get(&source.id()).map(Rates::per_second).unwrap_or_default();
    let facts = source.facts.lock();
    let pending_entries = facts
        .heads
        .iter()
        .map(|(partition, head)| head.saturating_sub(applied.get(partition).copied().unwrap_or(0)))
        .sum();
    let (state, reason) = match link_state(&facts, pending_entries) {
        // It may give no stamps at all, as it should, and then nothing of it is held.
        (LinkState::Ok | LinkState::CatchingUp, _) if inner.clock.is_too_far_ahead(clock_offset_ms) => {
            (LinkState::ClockSkewed, format!("its clock is {clock_offset_ms} ms ahead"))
        }
        shown => shown,
    };
    let backing_off = facts.streams.values().filter(|s| matches!(s, StreamState::Backoff { .. })).count();
    SourceStatus {
        source: u32::from(source.id().get()),
        meta: report.map_or(0, |report| report.meta.raw()),
        data: data.raw(),
        reported_at: report.map_or(0, |report| report.reported_at.raw()),
        state: state as i32,
        reason: detail(&reason),
        slowest_partition: slowest.map_or(0, |(partition, _)| u32::from(partition.0)),
        pending_entries,
        pending_bytes: facts.watermark.pending_bytes(),
        parked_ranges_count: facts.parked.len() as u64,
        retrying_count: (backing_off + facts.retrying.len()) as u32,
        clock_offset_ms,
        entries_in_per_s: rates.entries_in,
        entries_out_per_s: rates.entries_out,
        bytes_out_per_s: rates.bytes_out,
        durable,
        mirrored_bytes: facts.watermark.durable_bytes(),
    }
}

/// The last sequence of an origin's log, of those applied here, that is stamped at or below a watermark: stamps rise
/// with sequences (rule 9), so it is found by halving. Entries that are no longer kept are below it.
fn whole_through(view: &GroupView, applied: &LogPosition, watermark: Timestamp) -> Result<Sequence, IndexError> {
    let is_whole = |sequence: u64| -> Result<bool, IndexError> {
        let from = Sequence(sequence);
        let entries = queries::log_entries(view, applied.origin, applied.incarnation, from, 1, usize::MAX)?;
        let entry = entries.first().and_then(|entry| LogEntry::decode(entry).ok());
        Ok(entry.is_some_and(|entry| entry.sequence.0 <= sequence && entry.stamp.timestamp <= watermark))
    };
    let last = applied.sequence.0;
    if last == 0 || is_whole(last)? {
        return Ok(applied.sequence);
    }
    // Whole through `whole`, and not at `missing`.
    let (mut whole, mut missing) = (queries::oldest_kept(view, applied.origin)?.0.saturating_sub(1), last);
    while whole + 1 < missing {
        let middle = whole + (missing - whole) / 2;
        if is_whole(middle)? {
            whole = middle;
        } else {
            missing = middle;
        }
    }
    Ok(Sequence(whole))
}

fn link_state(facts: &SourceFacts, pending_entries: u64) -> (LinkState, String) {
    for (partition, state) in &facts.streams {
        if let StreamState::Held { reason, .. } = state {
            let state = match reason {
                HoldReason::Skewed { .. } => LinkState::ClockSkewed,
                HoldReason::NeedsFullSync => LinkState::NeedsFullSync,
                _ => LinkState::Held,
            };
            return (state, format!("partition {partition}: {reason}"));
        }
    }
    match (&facts.metadata_lane, &facts.blob_lane) {
        (LaneState::Failing { reason }, _) => (LinkState::Down, format!("metadata lane: {reason}")),
        (_, LaneState::Failing { reason }) => (LinkState::Down, format!("blob lane: {reason}")),
        (LaneState::Untried, _) => (LinkState::Unspecified, "not connected yet".to_owned()),
        _ => {
            let backing_off = facts.streams.iter().find_map(|(partition, state)| match state {
                StreamState::Backoff { reason, .. } => Some(format!("partition {partition} is retried: {reason}")),
                _ => None,
            });
            let parked = || facts.parked.iter().next().map(|(volume, why)| format!("volume {volume} is parked: {why}"));
            let retrying = || facts.retrying.iter().next().map(|(volume, why)| format!("volume {volume}: {why}"));
            let reason = backing_off.or_else(parked).or_else(retrying).unwrap_or_default();
            (if pending_entries > 0 { LinkState::CatchingUp } else { LinkState::Ok }, reason)
        }
    }
}

/// What keeps a wait from ending, in words.
pub(crate) fn held_back_by(inner: &Inner, source: &Source, wanted: Timestamp) -> String {
    let (meta, data) = inner.watermarks(source);
    let facts = source.facts.lock();
    let (state, reason) = link_state(&facts, 0);
    let what = if meta < wanted {
        let partition = inner.slowest_partition(source.id()).map_or(PartitionId(0), |(partition, _)| partition);
        format!("metadata is {} ms behind (partition {partition})", wanted.ms_since(meta))
    } else {
        let by = facts.watermark.held_by();
        format!("data is {} ms behind ({by:?}, {} bytes to go)", wanted.ms_since(data), facts.watermark.pending_bytes())
    };
    detail(&if reason.is_empty() { what } else { format!("{what}; {state:?}: {reason}") })
}
