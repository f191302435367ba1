//! Stable times in a node: asks every other member for its committed report, computes what all have (`StableView`), and
//! commits it in the partitions that this node leads, where it releases tombstones and what rows keep to decide
//! concurrency (rules 14, 16).
//!
//! What is computed is durable only in the partitions; the reports are heard anew after a start. Invariants: a member that
//! can't be asked keeps what it last said, which is a lower bound; one that was never heard counts as zero (rule 15); a
//! partition in which nothing is due costs no commit.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use meridian_index::queries;
use meridian_meta::Meta;
use meridian_replicator::{MemberReport, SourceReport, StableTimes, StableView};
use meridian_types::{DatacenterId, PartitionId, Timestamp};
use meridian_wire::call;
use meridian_wire::replication::{StatusReply, StatusRequest};
use serde::{Deserialize, Serialize};

use crate::ReplicationConfig;
use crate::driver::{Inner, Replication};
use crate::error::reason_of;
use crate::report::node_report;

/// Time between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(2);
/// How long a member may take to answer; the next round asks again.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
/// Commands to one partition in one round; what is left is for the next, so that writes get in between.
const COMMANDS_IN_ROUND_MAX: u32 = 8;

/// What every member has; timestamps are raw. Field names are an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StableStatus {
    pub stable_meta: u64,
    pub stable_data: u64,
    /// Tombstones at or below it are gone.
    pub settled: u64,
    /// Whom the oldest tombstone is kept for, as `from` and `to` of the slowest link.
    pub held_by: Option<(String, String)>,
    /// Tombstones in the partitions of this node.
    pub tombstones: u64,
}

/// A view that starts at what the partitions of this node have committed.
pub(crate) fn view(config: &ReplicationConfig, meta: &Meta) -> StableView {
    let views = meta.partitions().filter_map(|partition| meta.local_view(partition).ok());
    let committed = views.filter_map(|view| queries::stable(&view).ok());
    let times = committed.fold(StableTimes::default(), StableTimes::max);
    let members = config.peers.iter().map(|peer| peer.id).chain([config.local.datacenter]);
    StableView::new(members, times)
}

/// Runs until the driver stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(ROUND_INTERVAL).await;
        hear_members(&inner).await;
        let times = inner.stable.lock().times();
        let led = inner.meta.partitions().filter(|partition| inner.meta.serving(*partition));
        join_all(led.map(|partition| commit(&inner, partition, times))).await;
    }
}

async fn hear_members(inner: &Inner) {
    let asked = inner.sources.values().map(|source| async move {
        // Watermarks are committed: every node of a datacenter has the same.
        let request = StatusRequest { caller: inner.config.local.caller(), node_only: true };
        let mut client = source.client();
        let reply = call(REPORT_DEADLINE, request, |request| async move { client.status(request).await }).await;
        (source.id(), reply)
    });
    for (member, reply) in join_all(asked).await {
        match reply {
            Ok(reply) => inner.stable.lock().report(member_report(member, &reply)),
            Err(status) => tracing::debug!(%member, reason = reason_of(&status), "a member was not heard"),
        }
    }
    let own = member_report(inner.own(), &node_report(inner));
    inner.stable.lock().report(own);
}

/// Sources that are no datacenter are left out, and so count as zero.
fn member_report(member: DatacenterId, reply: &StatusReply) -> MemberReport {
    let sources = reply.sources.iter().filter_map(|source| {
        let id = u8::try_from(source.source).ok().and_then(|id| DatacenterId::new(id).ok())?;
        let (meta, data) = (Timestamp::from_raw(source.meta), Timestamp::from_raw(source.data));
        Some(SourceReport { source: id, meta, data })
    });
    MemberReport { member, stamped_through: Timestamp::from_raw(reply.stamped_through), sources: sources.collect() }
}

async fn commit(inner: &Inner, partition: PartitionId, times: StableTimes) {
    for _ in 0..COMMANDS_IN_ROUND_MAX {
        let Ok(view) = inner.meta.local_view(partition) else { return };
        match queries::is_stable_due(&view, inner.own(), times) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%partition, %error, "what is to be released can't be read");
                return;
            }
        }
        match inner.meta.stable(partition, times).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%partition, %error, "stable times were not committed");
                return;
            }
        }
    }
}

impl Replication {
    /// Everything stamped at or below it is durable in every member that shall have it, as this node knows.
    pub fn durable_everywhere(&self) -> Timestamp {
        self.inner.stable.lock().times().data
    }

    /// What every member has, as this node knows it.
    pub fn stable(&self) -> StableStatus {
        let inner = &self.inner;
        let (times, held_by) = {
            let view = inner.stable.lock();
            (view.times(), view.held_by())
        };
        let views = inner.meta.partitions().filter_map(|partition| inner.meta.local_view(partition).ok());
        let states = views.filter_map(|view| queries::state(&view).ok());
        StableStatus {
            stable_meta: times.meta.raw(),
            stable_data: times.data.raw(),
            settled: times.settled.raw(),
            held_by: held_by.map(|(from, to)| (self.name_of(from), self.name_of(to))),
            tombstones: states.map(|state| state.tombstones).sum(),
        }
    }
}
