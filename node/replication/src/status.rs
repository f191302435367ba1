//! The face of replication: how far each datacenter is behind each other one, from every datacenter's own committed
//! report. The same from every region; a datacenter that can't be asked is shown as it last was, marked stale.
//!
//! What a datacenter reports is made in `report`, what would be lost with one is reckoned in `exposure`, the words are
//! found in `verdict`. Invariants: a cell is the destination's own report, with its age; the source never counts more
//! (rule 27). Lag is measured at the asking moment against the source's clock as this node knows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use meridian_types::{DatacenterId, PartitionId, Timestamp};
use meridian_wire::call;
use meridian_wire::replication::{SourceStatus, StatusReply, StatusRequest};
use serde::{Deserialize, Serialize};

use crate::driver::{Inner, Replication};
use crate::exposure::exposed;
use crate::report::own_report;
use crate::verdict::{LagState, Verdict, eta_ms, lag_state, verdict};

/// How long the screen waits for a datacenter's report before it shows its last one as stale.
const STATUS_DEADLINE: Duration = Duration::from_millis(1500);

/// `meridian replication status`; field names are an interface (docs/operations.md).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicationStatus {
    pub cluster: String,
    /// Milliseconds since the Unix epoch, at the answering node.
    pub now_ms: u64,
    /// The answering datacenter.
    pub asked: String,
    pub verdict: Verdict,
    /// The verdict and the worst link, in words.
    pub summary: String,
    pub datacenters: Vec<DatacenterStatus>,
    pub lag: Vec<LagCell>,
    pub links: Vec<LinkStatus>,
    /// What would be lost with each datacenter.
    pub exposure: Vec<Exposure>,
}

/// One line a datacenter, as it reports itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatacenterStatus {
    pub name: String,
    pub id: u8,
    pub control_leader: Option<u32>,
    pub control_term: u64,
    /// Nodes that gossip has heard of lately, and nodes that are registered.
    pub nodes_live: u32,
    pub nodes_registered: u32,
    /// Its clock minus the asked one's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// The replication log that it keeps: bytes, estimated from some of its entries, and the age of its oldest one.
    pub log_bytes: u64,
    pub log_oldest_age_ms: Option<u64>,
    /// The sequence of its catalog's own log, and the entries of all origins that its catalog has applied.
    pub catalog_sequence: u64,
    pub catalog_position: u64,
    /// Concurrent writes that lost there: all that are recorded, and those of the last day.
    pub conflicts: u64,
    pub conflicts_24h: u64,
    /// Reads of its clients that other nodes or datacenters were asked for, in the last minute.
    pub proxied_ok_1m: u64,
    pub proxied_failed_1m: u64,
    /// How old its report is, in milliseconds; None when it never answered this node.
    pub report_age_ms: Option<u64>,
    /// It could not be asked now; the figures are its last ones.
    pub stale: bool,
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
    /// The destination could not be asked now; this is its last report.
    pub stale: bool,
}

/// What one link has to do, as its destination reports it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: String,
    pub to: String,
    pub state: LagState,
    /// Milliseconds since the Unix epoch of W_meta.
    pub applied_through_ms: u64,
    pub durable_ms: Option<u64>,
    pub slowest_partition: String,
    pub pending_entries: u64,
    pub pending_bytes: u64,
    /// Entries added at the source and applied at the destination, and bytes made durable there, a second.
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub bytes_per_s: f64,
    /// Until nothing is pending, as things go; None when it never will be so.
    pub eta_ms: Option<u64>,
    pub parked: u64,
    pub retrying: u32,
    /// What each write at the source waits because this destination does not keep up (`replication_backpressure`).
    #[serde(default)]
    pub backpressure_ms: u64,
    pub reason: String,
    pub stale: bool,
}

/// What would be lost with a datacenter now; upper bounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exposure {
    pub datacenter: String,
    /// Its acknowledged writes that are whole in no other datacenter.
    pub writes_without_copy: u64,
    pub missing: Vec<MissingBytes>,
    /// Bytes that no other datacenter shall have, by their code.
    pub unmirrored_bytes: u64,
    /// Its own report is its last one: what it has acknowledged since is not counted.
    pub stale: bool,
}

/// Bytes of one datacenter that another shall have, and has not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MissingBytes {
    pub datacenter: String,
    pub bytes: u64,
}

/// Asks every other datacenter for its report and keeps it; true for one that did not answer.
async fn ask_others(inner: &Inner) -> Vec<(DatacenterId, bool)> {
    let asked = inner.sources.values().map(|source| async move {
        let mut client = source.client();
        let request = StatusRequest { caller: inner.config.local.caller(), node_only: false };
        let reply = call(STATUS_DEADLINE, request, |request| async move { client.status(request).await }).await.ok();
        let stale = reply.is_none();
        if let Some(reply) = reply {
            inner.observed.cached.lock().insert(source.id(), reply);
        }
        (source.id(), stale)
    });
    join_all(asked).await
}

/// Keeps the reports of the others, so that something is known of a datacenter that dies before anybody asks for it.
pub(crate) async fn follow_reports(inner: Arc<Inner>) {
    loop {
        ask_others(&inner).await;
        tokio::time::sleep(inner.config.limits.status_interval).await;
    }
}

/// A datacenter's report as this node has it.
struct Reported {
    reply: StatusReply,
    stale: bool,
}

impl Replication {
    /// Asks every member, this one included, and puts their reports on one screen.
    pub async fn status(&self) -> ReplicationStatus {
        let inner = &self.inner;
        let mut reports = BTreeMap::new();
        for (id, stale) in ask_others(inner).await {
            let reply = inner.observed.cached.lock().get(&id).cloned().unwrap_or_default();
            reports.insert(id, Reported { reply, stale });
        }
        reports.insert(inner.own(), Reported { reply: own_report(inner).await, stale: false });
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

    fn screen(&self, reports: &BTreeMap<DatacenterId, Reported>) -> ReplicationStatus {
        let mut lag = Vec::new();
        let mut links = Vec::new();
        for (to, reported) in reports {
            for from in reports.keys().filter(|from| *from != to) {
                let (cell, mut link) = self.link(*from, *to, reported);
                let slowed = reports[from].reply.write_delay.as_ref();
                if let Some(delay) = slowed.filter(|delay| delay.destination == u32::from(to.get())) {
                    link.backpressure_ms = delay.delay_ms;
                    let slows =
                        format!("replication_backpressure: each write in {} waits {} ms", link.from, delay.delay_ms);
                    link.reason = if link.reason.is_empty() { slows } else { format!("{slows}; {}", link.reason) };
                }
                lag.push(cell);
                links.push(link);
            }
        }
        let (verdict, summary) = verdict(&links);
        ReplicationStatus {
            cluster: self.inner.config.cluster_name.clone(),
            now_ms: self.inner.clock.wall().unix_ms(),
            asked: self.inner.config.datacenter_name.to_string(),
            verdict,
            summary,
            datacenters: reports.iter().map(|(id, reported)| self.datacenter(*id, reported)).collect(),
            lag,
            links,
            exposure: reports.keys().filter_map(|id| self.exposure(*id, reports)).collect(),
        }
    }

    fn datacenter(&self, id: DatacenterId, reported: &Reported) -> DatacenterStatus {
        let (clock, clock_offset_ms) = self.clock_of(id);
        let age = |at: u64| (at > 0).then(|| clock.ms_since(Timestamp::from_raw(at)));
        let known = &reported.reply;
        DatacenterStatus {
            name: self.name_of(id),
            id: id.get(),
            control_leader: (known.control_leader > 0).then_some(known.control_leader),
            control_term: known.control_term,
            nodes_live: known.nodes_live,
            nodes_registered: known.nodes_registered,
            clock_offset_ms,
            log_bytes: known.log_size_bytes,
            log_oldest_age_ms: age(known.log_oldest),
            catalog_sequence: known.catalog_sequence,
            catalog_position: known.catalog_position,
            conflicts: known.conflicts_count,
            conflicts_24h: known.conflicts_day_count,
            proxied_ok_1m: known.proxied_ok_count,
            proxied_failed_1m: known.proxied_failed_count,
            report_age_ms: age(known.reported_at),
            stale: reported.stale,
        }
    }

    fn link(&self, from: DatacenterId, to: DatacenterId, reported: &Reported) -> (LagCell, LinkStatus) {
        let (from_name, to_name) = (self.name_of(from), self.name_of(to));
        let blank = SourceStatus::default();
        let known = reported.reply.sources.iter().find(|source| source.source == u32::from(from.get()));
        let known = known.unwrap_or(&blank);
        let ((source_clock, _), (clock, _)) = (self.clock_of(from), self.clock_of(to));
        let behind = |raw: u64| (raw > 0).then(|| source_clock.ms_since(Timestamp::from_raw(raw)));
        let (visible_ms, durable_ms) = (behind(known.meta), behind(known.data));
        let stale = reported.stale;
        let state = lag_state(known, durable_ms, stale, &self.inner.config.limits);
        let reported_at = known.reported_at;
        let cell = LagCell {
            from: from_name.clone(),
            to: to_name.clone(),
            state,
            meta: known.meta,
            visible_ms,
            data: known.data,
            durable_ms,
            age_ms: (reported_at > 0).then(|| clock.ms_since(Timestamp::from_raw(reported_at))),
            stale,
        };
        let partition = PartitionId(known.slowest_partition as u16);
        let link = LinkStatus {
            reason: if stale { format!("{to_name} can't be asked") } else { known.reason.clone() },
            from: from_name,
            to: to_name,
            state,
            applied_through_ms: if known.meta == 0 { 0 } else { Timestamp::from_raw(known.meta).unix_ms() },
            durable_ms,
            slowest_partition: if partition.is_catalog() { "catalog".into() } else { format!("p{:02}", partition.0) },
            pending_entries: known.pending_entries,
            pending_bytes: known.pending_bytes,
            in_per_s: known.entries_in_per_s,
            out_per_s: known.entries_out_per_s,
            bytes_per_s: known.bytes_out_per_s,
            eta_ms: if stale { None } else { eta_ms(known) },
            parked: known.parked_ranges_count,
            retrying: known.retrying_count,
            backpressure_ms: 0,
            stale,
        };
        (cell, link)
    }

    /// None for a datacenter that never reported to this node, and where there is no other one.
    fn exposure(&self, id: DatacenterId, reports: &BTreeMap<DatacenterId, Reported>) -> Option<Exposure> {
        let own = reports.get(&id).filter(|own| own.reply.datacenter != 0)?;
        let others: BTreeMap<DatacenterId, &StatusReply> =
            reports.iter().filter(|(other, _)| **other != id).map(|(other, report)| (*other, &report.reply)).collect();
        if others.is_empty() {
            return None;
        }
        let exposed = exposed(&own.reply, &others);
        let missing = exposed.missing_bytes.into_iter();
        Some(Exposure {
            datacenter: self.name_of(id),
            writes_without_copy: exposed.writes_without_copy,
            missing: missing.map(|(to, bytes)| MissingBytes { datacenter: self.name_of(to), bytes }).collect(),
            unmirrored_bytes: exposed.unmirrored_bytes,
            stale: own.stale,
        })
    }
}
