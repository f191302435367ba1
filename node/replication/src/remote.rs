//! What object operations ask of other datacenters: bytes that are not here, and fences for a bucket's deletion.
//!
//! Invariants: a fetch reaches only bytes that lie at the asked node (it is never proxied again); a fence is reported
//! by every other member, or the call fails naming the one that can't be asked.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use meridian_object::{FencePosition, FenceReport, RemoteBuckets, RemoteBytes, RemoteError};
use meridian_types::{BucketId, Fid, LogPosition, PartitionId};
use meridian_wire::call;
use meridian_wire::replication::FenceRequest;

use crate::bulk_client::BulkError;
use crate::bulk_server::needle_path;
use crate::driver::Replication;
use crate::error::reason_of;
use crate::sources::{LaneState, Source};

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
        let mut holders: Vec<&Arc<Source>> = self.inner.sources.values().collect();
        // The owner first, and those that do not answer last: they are still asked, but nobody waits for them first.
        holders.sort_by_cached_key(|source| {
            let failing = matches!(source.facts.lock().blob_lane, LaneState::Failing { .. });
            (failing, source.id() != fid.volume.datacenter())
        });
        let length = (range.end - range.start) as usize;
        let path = needle_path(fid, range.start, range.end);
        let mut waiting: VecDeque<&Arc<Source>> = holders.into();
        let mut asked = FuturesUnordered::new();
        let mut unreachable = Vec::new();
        loop {
            if let Some(source) = waiting.pop_front() {
                let path = &path;
                asked.push(async move { (source, source.link().bulk.get(path, length, FETCH_DEADLINE).await) });
            }
            let (source, answer) = tokio::select! {
                answered = asked.next() => match answered {
                    Some(answered) => answered,
                    None => break, // all have answered
                },
                () = tokio::time::sleep(HEDGE_AFTER), if !waiting.is_empty() => continue, // slow: ask the next one too
            };
            match answer {
                Ok(bytes) if bytes.len() == length => return Ok(bytes),
                Ok(bytes) => tracing::warn!(?fid, got = bytes.len(), length, "a proxied read has the wrong length"),
                Err(BulkError::Status { status: StatusCode::NOT_FOUND, .. }) => {}
                Err(error) => {
                    source.prefer_another();
                    unreachable.push((source.peer.name.to_string(), error.to_string()));
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
    async fn fence(&self, bucket: BucketId, raised: bool) -> Result<Vec<FenceReport>, RemoteError> {
        // All are asked to the end: a member that can't be reached must not keep another one's fence from being lifted.
        let asked = self.inner.sources.values().map(|source| self.fence_at(source, bucket, raised));
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

impl Replication {
    async fn fence_at(&self, source: &Source, bucket: BucketId, raised: bool) -> Result<FenceReport, RemoteError> {
        let unreachable =
            |reason: String| RemoteError::Unreachable { datacenter: source.peer.name.to_string(), reason };
        let request = FenceRequest {
            caller: self.inner.config.local.caller(),
            bucket: Bytes::copy_from_slice(&bucket.0),
            raised,
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
