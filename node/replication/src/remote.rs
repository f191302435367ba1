//! What object operations ask of other datacenters: bytes that are not here, and fences for a bucket's deletion.
//!
//! Invariants: a fetch reaches only bytes that lie at the asked node (it is never proxied again); a fence is reported
//! by every other member, or the call fails naming the one that can't be asked.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use meridian_index::FenceAttempt;
use meridian_object::{FencePosition, FenceReport, RemoteBuckets, RemoteBytes, RemoteError};
use meridian_types::{BucketId, DatacenterId, Fid, LogPosition, PartitionId, Seen, Timestamp};
use meridian_wire::call;
use meridian_wire::replication::FenceRequest;

use crate::bulk_client::{BulkClient, BulkError};
use crate::bulk_server::{PREFIX_LENGTH_SIZE, is_prefix, needle_path, prefix_path};
use crate::driver::Replication;
use crate::error::reason_of;
use crate::seen;
use crate::siblings::Sibling;
use crate::sources::{LaneState, Link, Source};

/// Deadline of one proxied read at one datacenter; a chunk is at most 4 MiB.
const FETCH_DEADLINE: Duration = Duration::from_secs(20);
/// How long one holder may be silent until the next one is asked too.
const HEDGE_AFTER: Duration = Duration::from_millis(300);

/// How long a mirror that is being followed has for bytes that are on their way, before they are asked for a second time:
/// they usually left their source before the row that names them.
const MIRROR_HEAD_START: Duration = Duration::from_millis(10);

#[async_trait]
impl RemoteBytes for Replication {
    async fn fetch(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, RemoteError> {
        tokio::select! {
            biased;
            bytes = self.arrival(fid, range.clone()) => Ok(bytes),
            answer = self.fetch_from_holders(fid, range) => {
                self.inner.observed.count_proxied(self.inner.monotonic_ms(), answer.is_ok());
                answer
            }
        }
    }

    async fn fetch_prefix(&self, fid: Fid, size_max: u32) -> Result<(Bytes, u32), RemoteError> {
        let limit = size_max as usize + PREFIX_LENGTH_SIZE;
        let answer =
            self.ask_holders(fid, &prefix_path(fid, size_max), limit, &|bytes| is_prefix(bytes, size_max)).await;
        self.inner.observed.count_proxied(self.inner.monotonic_ms(), answer.is_ok());
        let mut bytes = answer?;
        let length = bytes.get_u32_le();
        Ok((bytes, length))
    }

    async fn delete_at_owner(&self, fid: Fid) -> Result<(), RemoteError> {
        self.delete_needle_at_owner(fid).await
    }

    async fn delete_at_mirrors(&self, fid: Fid, told: &mut BTreeSet<DatacenterId>) -> bool {
        self.delete_needle_at_mirrors(fid, told).await
    }

    async fn before_append(&self) {
        if let Some(delay) = self.inner.write_delay() {
            tokio::time::sleep(Duration::from_millis(delay.delay_ms)).await;
        }
    }

    async fn await_seen(&self, wanted: &Seen) -> Result<(), RemoteError> {
        seen::await_seen(&self.inner, wanted).await
    }

    async fn await_copies(
        &self,
        through: Timestamp,
        holders: &BTreeSet<DatacenterId>,
        needed: usize,
    ) -> Result<(), RemoteError> {
        self.copies(through, holders, needed).await
    }
}

impl Replication {
    /// Waits until the needle has come by the blob lane; for ever when its volume has no mirror here.
    async fn arrival(&self, fid: Fid, range: Range<u32>) -> Bytes {
        let volumes = &self.inner.volumes;
        let mut changed = volumes.changed();
        loop {
            changed.borrow_and_update();
            if !volumes.state(fid.volume).is_some_and(|state| state.mirror) {
                return std::future::pending().await;
            }
            if let Ok(bytes) = volumes.read(fid, range.clone()).await {
                return bytes;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether the volume is mirrored here by a lane that works: its bytes may be on their way.
    fn is_followed(&self, fid: Fid) -> bool {
        let source = self.inner.sources.get(&fid.volume.datacenter());
        let lane_works = source.is_some_and(|source| source.facts.lock().blob_lane == LaneState::Answered);
        lane_works && self.inner.volumes.state(fid.volume).is_some_and(|state| state.mirror)
    }

    async fn fetch_from_holders(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, RemoteError> {
        if self.is_followed(fid) {
            tokio::time::sleep(MIRROR_HEAD_START).await;
        }
        let length = (range.end - range.start) as usize;
        let path = needle_path(fid, range.start, range.end);
        self.ask_holders(fid, &path, length, &|bytes| bytes.len() == length).await
    }

    /// Asks those who may have the needle, one after the other or side by side when one is slow, for at most `limit` bytes.
    async fn ask_holders(
        &self,
        fid: Fid,
        path: &str,
        limit: usize,
        is_whole: &(dyn Fn(&Bytes) -> bool + Sync),
    ) -> Result<Bytes, RemoteError> {
        let mut waiting = self.holders(fid);
        let mut asked = FuturesUnordered::new();
        let mut unreachable = Vec::new();
        loop {
            if let Some(holder) = waiting.pop_front() {
                asked.push(async move { (holder.bulk().get(path, limit, FETCH_DEADLINE).await, holder) });
            }
            let (answer, holder) = tokio::select! {
                answered = asked.next() => match answered {
                    Some(answered) => answered,
                    None => break, // all have answered
                },
                () = tokio::time::sleep(HEDGE_AFTER), if !waiting.is_empty() => continue, // slow: ask the next one too
            };
            match answer {
                Ok(bytes) if is_whole(&bytes) => return Ok(bytes),
                Ok(bytes) => tracing::warn!(?fid, got = bytes.len(), limit, "a proxied read has the wrong length"),
                Err(BulkError::Status { status: StatusCode::NOT_FOUND, .. }) => {}
                Err(error) => {
                    if let Holder::Here(sibling) = holder {
                        sibling.failed();
                    }
                    unreachable.push((holder.name(), error.to_string()));
                }
            }
        }
        if unreachable.is_empty() {
            return Err(RemoteError::NotFound { reason: format!("no datacenter has the needle {fid:?}") });
        }
        let (names, reasons): (Vec<String>, Vec<String>) = unreachable.into_iter().unzip();
        Err(RemoteError::Unreachable { datacenter: names.join(", "), reason: reasons.join("; ") })
    }
}

#[async_trait]
impl RemoteBuckets for Replication {
    async fn fence(
        &self,
        bucket: BucketId,
        attempt: FenceAttempt,
        raised: bool,
    ) -> Result<Vec<FenceReport>, RemoteError> {
        // All are asked to the end: a member that can't be reached must not keep another one's fence from being lifted.
        let asked = self.inner.sources.values().map(|source| self.fence_at(source, bucket, attempt, raised));
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

/// Who is asked for bytes.
#[derive(Clone, Copy)]
enum Holder<'a> {
    Here(&'a Sibling),
    There(&'a Source, &'a Link),
}

impl Holder<'_> {
    fn bulk(&self) -> Arc<BulkClient> {
        match self {
            Holder::Here(sibling) => Arc::clone(&sibling.bulk),
            Holder::There(_, link) => Arc::clone(&link.bulk),
        }
    }

    fn name(&self) -> String {
        match self {
            Holder::Here(sibling) => sibling.name.to_string(),
            Holder::There(source, _) => source.peer.name.to_string(),
        }
    }
}

impl Replication {
    /// Nodes of this datacenter that hold the volume, then those of the other datacenters: the owner's primary first, and
    /// datacenters and nodes that do not answer last. These are still asked, but nobody waits for them first. A node that
    /// does not hold it says so at once.
    fn holders(&self, fid: Fid) -> VecDeque<Holder<'_>> {
        let inner = &self.inner;
        let volume = inner.control.volume(fid.volume);
        let replicas = volume.iter().flat_map(|volume| inner.siblings.holders(volume));
        let mirror = inner.control.mirror_node(fid.volume).and_then(|node| inner.siblings.get(node));
        let (silent, answering): (Vec<_>, Vec<_>) = replicas.chain(mirror).partition(|sibling| sibling.is_failing());
        let mut others: Vec<&Arc<Source>> = inner.sources.values().collect();
        others.sort_by_cached_key(|source| {
            let failing = matches!(source.facts.lock().blob_lane, LaneState::Failing { .. });
            (failing, source.id() != fid.volume.datacenter())
        });
        let there = others.into_iter().flat_map(|source| {
            let primary = source.facts.lock().primaries.get(&fid.volume).copied();
            let mut links: Vec<&Link> = source.links_in_turn().collect();
            links.sort_by_key(|link| Some(link.node) != primary);
            links.into_iter().map(move |link| Holder::There(source, link))
        });
        let answering = answering.into_iter().map(|sibling| Holder::Here(sibling));
        let silent = silent.into_iter().map(|sibling| Holder::Here(sibling));
        answering.chain(there).chain(silent).collect()
    }

    async fn fence_at(
        &self,
        source: &Source,
        bucket: BucketId,
        attempt: FenceAttempt,
        raised: bool,
    ) -> Result<FenceReport, RemoteError> {
        let unreachable =
            |reason: String| RemoteError::Unreachable { datacenter: source.peer.name.to_string(), reason };
        let request = FenceRequest {
            caller: self.inner.config.local.caller(),
            bucket: Bytes::copy_from_slice(&bucket.0),
            raised,
            attempt: Bytes::copy_from_slice(&attempt.attempt.0),
        };
        let mut client = source.client();
        let deadline = self.inner.config.limits.call_deadline;
        let reply = call(deadline, request, |request| async move { client.fence_bucket(request).await })
            .await
            .map_err(|status| unreachable(reason_of(&status)))?;
        let positions = reply
            .positions
            .iter()
            .map(|position| {
                let (partition, position) = <(PartitionId, LogPosition)>::try_from(position)?;
                Ok(FencePosition { partition, incarnation: position.incarnation, sequence: position.sequence })
            })
            .collect::<Result<_, meridian_wire::FieldError>>()
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(FenceReport { datacenter: source.id(), empty: reply.empty, positions })
    }
}
