//! The face of replication: how far each datacenter is behind each other one, from every datacenter's own committed
//! report. The same from every region; a datacenter that can't be asked is shown as it last was, marked stale.
//!
//! Invariants: a cell is the destination's own report, with its age; the source never counts more (rule 27). Lag is
//! measured at the asking moment against the source's clock as this node knows it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use meridian_control::WatermarkReport;
use meridian_index::queries;
use meridian_replicator::{HoldReason, StreamState};
use meridian_types::{DatacenterId, PartitionId, Timestamp};
use meridian_wire::call;
use meridian_wire::fields::detail;
use meridian_wire::replication::{LinkState, SourceStatus, StatusReply, StatusRequest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::driver::{Inner, Replication};
use crate::sources::{LaneState, Source, SourceFacts};

/// Behind by more than this is worth a look, by more than the second worth a call.
const LAG_WARN_MS: u64 = 10_000;
const LAG_CRITICAL_MS: u64 = 60_000;

/// How long the screen waits for a datacenter's report before it shows its last one as stale.
const STATUS_DEADLINE: Duration = Duration::from_millis(1500);

/// How long a datacenter's report waits for its own nodes.
const SIBLING_DEADLINE: Duration = Duration::from_millis(700);

/// The last answer of each other datacenter.
#[derive(Default)]
pub struct CachedReports(Mutex<BTreeMap<DatacenterId, StatusReply>>);

/// `meridian replication status`; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicationStatus {
    pub cluster: String,
    /// Milliseconds since the Unix epoch, at the answering node.
    pub now_ms: u64,
    /// The answering datacenter.
    pub asked: String,
    pub verdict: Verdict,
    pub summary: String,
    pub datacenters: Vec<DatacenterStatus>,
    pub lag: Vec<LagCell>,
    pub links: Vec<LinkStatus>,
}

/// Also the exit code: 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Critical,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatacenterStatus {
    pub name: String,
    pub id: u8,
    pub control_leader: Option<u32>,
    pub control_term: u64,
    pub nodes_live: u32,
    pub nodes_registered: u32,
    /// Its clock minus the asked one's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    pub catalog_sequence: u64,
    pub conflicts: u64,
    /// How old its report is, in milliseconds; None when it never answered this node.
    pub report_age_ms: Option<u64>,
    /// It could not be asked now; the figures are its last ones.
    pub stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LagState {
    Ok,
    Warn,
    Unknown,
    Critical,
    Down,
    Clock,
    Held,
    FullSync,
}

/// How far one destination is behind one source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LagCell {
    pub from: String,
    pub to: String,
    pub state: LagState,
    /// W_meta as a raw timestamp, and how long ago that was.
    pub meta: u64,
    pub visible_ms: Option<u64>,
    /// W_data likewise.
    pub data: u64,
    pub durable_ms: Option<u64>,
    /// How old the destination's report is.
    pub age_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: String,
    pub to: String,
    pub state: LagState,
    /// Milliseconds since the Unix epoch of W_meta.
    pub applied_through_ms: u64,
    pub slowest_partition: String,
    pub pending_entries: u64,
    pub pending_bytes: u64,
    pub parked: u64,
    pub retrying: u32,
    /// What each write at the source waits because this destination does not keep up (`replication_backpressure`).
    #[serde(default)]
    pub backpressure_ms: u64,
    pub reason: String,
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
    report.conflicts_count += other.conflicts_count;
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
    let catalog_sequence = inner
        .meta
        .local_view(PartitionId::CATALOG)
        .ok()
        .and_then(|view| queries::log_head(&view, inner.own()).ok())
        .map_or(0, |head| head.position.sequence.0);
    let conflicts_count = inner
        .meta
        .partitions()
        .filter(|partition| inner.meta.serving(*partition)) // each is counted by its leader
        .filter_map(|partition| inner.meta.local_view(partition).ok())
        .filter_map(|view| queries::state(&view).ok())
        .map(|state| state.conflicts)
        .sum();
    StatusReply {
        datacenter: u32::from(inner.own().get()),
        datacenter_name: inner.config.datacenter_name.to_string(),
        reported_at: inner.clock.wall().raw(),
        control_leader: leader,
        control_term: term,
        nodes_live: inner.control.nodes().iter().filter(|node| inner.control.is_live(node.id)).count() as u32,
        nodes_registered: inner.control.nodes().len() as u32,
        log_size_bytes: 0,
        log_oldest: 0,
        catalog_sequence,
        conflicts_count,
        sources: inner.sources.values().map(|source| source_status(inner, source, &committed)).collect(),
        write_delay: inner.write_delay().map(|delay| meridian_wire::replication::WriteDelay {
            destination: u32::from(delay.destination.get()),
            delay_ms: delay.delay_ms,
            lag_ms: delay.lag_ms,
        }),
        stamped_through: inner.clock.stamped_through().raw(),
    }
}

fn source_status(inner: &Inner, source: &Source, committed: &[WatermarkReport]) -> SourceStatus {
    let report = committed.iter().find(|report| report.source == source.id());
    let slowest = inner.slowest_partition(source.id());
    let applied: BTreeMap<PartitionId, u64> = inner
        .meta
        .partitions()
        .filter_map(|p| Some((p, inner.cursor(p, source.id()).ok()?.position.sequence.0)))
        .collect();
    let clock_offset_ms = inner.clock_offset_ms(source).unwrap_or(0);
    let facts = source.facts.lock();
    let pending_entries = facts
        .heads
        .iter()
        .map(|(partition, head)| head.saturating_sub(applied.get(partition).copied().unwrap_or(0)))
        .sum();
    let (state, reason) = link_state(&facts, pending_entries);
    let backing_off = facts.streams.values().filter(|s| matches!(s, StreamState::Backoff { .. })).count();
    SourceStatus {
        source: u32::from(source.id().get()),
        meta: report.map_or(0, |report| report.meta.raw()),
        data: report.map_or(0, |report| report.data.raw()),
        reported_at: report.map_or(0, |report| report.reported_at.raw()),
        state: state as i32,
        reason: detail(&reason),
        slowest_partition: slowest.map_or(0, |(partition, _)| u32::from(partition.0)),
        pending_entries,
        pending_bytes: facts.watermark.pending_bytes(),
        parked_ranges_count: facts.parked.len() as u64,
        retrying_count: (backing_off + facts.retrying.len()) as u32,
        clock_offset_ms,
    }
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

impl Replication {
    /// Asks every member, this one included, and puts their reports on one screen.
    pub async fn status(&self) -> ReplicationStatus {
        let inner = &self.inner;
        let asked = inner.sources.values().map(|source| async move {
            let mut client = source.client();
            let request = StatusRequest { caller: inner.config.local.caller(), node_only: false };
            let reply =
                call(STATUS_DEADLINE, request, |request| async move { client.status(request).await }).await.ok();
            (source.id(), reply)
        });
        let mut reports: BTreeMap<DatacenterId, (Option<StatusReply>, bool)> = BTreeMap::new();
        for (id, reply) in join_all(asked).await {
            let mut cached = inner.cached.0.lock();
            let stale = reply.is_none();
            if let Some(reply) = reply {
                cached.insert(id, reply);
            }
            reports.insert(id, (cached.get(&id).cloned(), stale));
        }
        reports.insert(inner.own(), (Some(own_report(inner).await), false));
        self.screen(&reports)
    }

    pub(crate) fn name_of(&self, id: DatacenterId) -> String {
        let inner = &self.inner;
        inner
            .sources
            .get(&id)
            .map_or_else(|| inner.config.datacenter_name.to_string(), |source| source.peer.name.to_string())
    }

    /// What a datacenter's clock shows now, as this node knows it.
    fn clock_of(&self, id: DatacenterId) -> (Timestamp, Option<i64>) {
        let wall = self.inner.clock.wall();
        match self.inner.sources.get(&id) {
            None => (wall, Some(0)),
            Some(source) => {
                let offset_ms = self.inner.clock_offset_ms(source);
                let there = Timestamp::from_unix_ms(wall.unix_ms().saturating_add_signed(offset_ms.unwrap_or(0)));
                (there, offset_ms)
            }
        }
    }

    fn screen(&self, reports: &BTreeMap<DatacenterId, (Option<StatusReply>, bool)>) -> ReplicationStatus {
        let mut datacenters = Vec::new();
        let mut lag = Vec::new();
        let mut links = Vec::new();
        for (id, (report, stale)) in reports {
            let (clock, clock_offset_ms) = self.clock_of(*id);
            let age = |at: u64| (at > 0).then(|| clock.ms_since(Timestamp::from_raw(at)));
            let blank = StatusReply::default();
            let known = report.as_ref().unwrap_or(&blank);
            datacenters.push(DatacenterStatus {
                name: self.name_of(*id),
                id: id.get(),
                control_leader: (known.control_leader > 0).then_some(known.control_leader),
                control_term: known.control_term,
                nodes_live: known.nodes_live,
                nodes_registered: known.nodes_registered,
                clock_offset_ms,
                catalog_sequence: known.catalog_sequence,
                conflicts: known.conflicts_count,
                report_age_ms: age(known.reported_at),
                stale: *stale,
            });
            for other in reports.keys().filter(|other| *other != id) {
                let cell = known.sources.iter().find(|source| source.source == u32::from(other.get()));
                let (cell, mut link) = self.cell(*other, *id, cell, *stale, &age);
                let slowed = reports[other].0.as_ref().and_then(|report| report.write_delay.as_ref());
                if let Some(delay) = slowed.filter(|delay| delay.destination == u32::from(id.get())) {
                    link.backpressure_ms = delay.delay_ms;
                    let from = &link.from;
                    let slows = format!("replication_backpressure: each write in {from} waits {} ms", delay.delay_ms);
                    link.reason = if link.reason.is_empty() { slows } else { format!("{slows}; {}", link.reason) };
                }
                lag.push(cell);
                links.push(link);
            }
        }
        let (verdict, summary) = verdict(&lag);
        ReplicationStatus {
            cluster: self.inner.config.cluster_name.clone(),
            now_ms: self.inner.clock.wall().unix_ms(),
            asked: self.inner.config.datacenter_name.to_string(),
            verdict,
            summary,
            datacenters,
            lag,
            links,
        }
    }

    fn cell(
        &self,
        from: DatacenterId,
        to: DatacenterId,
        status: Option<&SourceStatus>,
        stale: bool,
        age: &impl Fn(u64) -> Option<u64>,
    ) -> (LagCell, LinkStatus) {
        let (from_name, to_name) = (self.name_of(from), self.name_of(to));
        let blank = SourceStatus::default();
        let known = status.unwrap_or(&blank);
        let (source_clock, _) = self.clock_of(from);
        let behind = |raw: u64| (raw > 0).then(|| source_clock.ms_since(Timestamp::from_raw(raw)));
        let (visible_ms, durable_ms) = (behind(known.meta), behind(known.data));
        let state = lag_state(known, durable_ms, stale);
        let cell = LagCell {
            from: from_name.clone(),
            to: to_name.clone(),
            state,
            meta: known.meta,
            visible_ms,
            data: known.data,
            durable_ms,
            age_ms: age(known.reported_at),
        };
        let partition = PartitionId(known.slowest_partition as u16);
        let link = LinkStatus {
            from: from_name,
            to: to_name,
            state,
            applied_through_ms: if known.meta == 0 { 0 } else { Timestamp::from_raw(known.meta).unix_ms() },
            slowest_partition: if partition.is_catalog() { "catalog".into() } else { format!("p{:02}", partition.0) },
            pending_entries: known.pending_entries,
            pending_bytes: known.pending_bytes,
            parked: known.parked_ranges_count,
            retrying: known.retrying_count,
            backpressure_ms: 0,
            reason: known.reason.clone(),
        };
        (cell, link)
    }
}

fn lag_state(status: &SourceStatus, durable_ms: Option<u64>, stale: bool) -> LagState {
    match status.state() {
        _ if stale => LagState::Down,
        LinkState::Down => LagState::Down,
        LinkState::Held => LagState::Held,
        LinkState::ClockSkewed => LagState::Clock,
        LinkState::NeedsFullSync => LagState::FullSync,
        _ => match durable_ms {
            None => LagState::Unknown,
            Some(ms) if ms >= LAG_CRITICAL_MS => LagState::Critical,
            Some(ms) if ms >= LAG_WARN_MS => LagState::Warn,
            Some(_) => LagState::Ok,
        },
    }
}

fn verdict(lag: &[LagCell]) -> (Verdict, String) {
    let Some(worst) = lag.iter().max_by_key(|cell| (cell.state, cell.durable_ms)) else {
        return (Verdict::Ok, "OK: one datacenter, nothing to replicate".to_owned());
    };
    let pair = format!("{}→{}", worst.from, worst.to);
    let behind = worst.durable_ms.map_or_else(|| "an unknown time".to_owned(), |ms| format!("{:.1}s", ms as f64 / 1e3));
    match worst.state {
        LagState::Ok => (Verdict::Ok, format!("OK: no datacenter is more than {behind} behind")),
        LagState::Warn => (Verdict::Warn, format!("DEGRADED: {pair} is {behind} behind")),
        LagState::Unknown => (Verdict::Warn, format!("DEGRADED: {pair} has reported nothing yet")),
        LagState::Critical => (Verdict::Critical, format!("CRITICAL: {pair} is {behind} behind")),
        LagState::Down => (Verdict::Critical, format!("CRITICAL: {pair} is down, {behind} behind")),
        LagState::Clock => (Verdict::Critical, format!("CRITICAL: {pair} is held by a wrong clock")),
        LagState::Held => (Verdict::Critical, format!("CRITICAL: {pair} is held")),
        LagState::FullSync => (Verdict::Critical, format!("CRITICAL: {pair} needs full sync")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(state: LagState, durable_ms: Option<u64>) -> LagCell {
        let (from, to) = ("dc-a".to_owned(), "dc-b".to_owned());
        LagCell { from, to, state, meta: 0, visible_ms: durable_ms, data: 0, durable_ms, age_ms: None }
    }

    #[test]
    fn the_worst_cell_decides_the_verdict() {
        assert_eq!(verdict(&[]).0, Verdict::Ok);
        assert_eq!(verdict(&[cell(LagState::Ok, Some(3))]).0, Verdict::Ok);
        let (worst, words) = verdict(&[cell(LagState::Ok, Some(3)), cell(LagState::Warn, Some(12_000))]);
        assert!(worst == Verdict::Warn && words.contains("dc-a→dc-b is 12.0s behind"), "{words}");
        assert_eq!(verdict(&[cell(LagState::Warn, Some(12_000)), cell(LagState::Down, None)]).0, Verdict::Critical);
    }

    #[test]
    fn lag_is_judged_by_what_is_durable() {
        let status = |state: LinkState| SourceStatus { state: state as i32, ..SourceStatus::default() };
        assert_eq!(lag_state(&status(LinkState::Ok), Some(9_999), false), LagState::Ok);
        assert_eq!(lag_state(&status(LinkState::CatchingUp), Some(10_000), false), LagState::Warn);
        assert_eq!(lag_state(&status(LinkState::Ok), Some(60_000), false), LagState::Critical);
        assert_eq!(lag_state(&status(LinkState::Ok), None, false), LagState::Unknown);
        assert_eq!(lag_state(&status(LinkState::ClockSkewed), Some(1), false), LagState::Clock);
        assert_eq!(lag_state(&status(LinkState::Ok), Some(1), true), LagState::Down);
    }
}
