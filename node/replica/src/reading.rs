//! Reads: from the replica here if it can, else from another node, with a second one asked when the first is slow.
//!
//! Invariants: bytes that fail their checksum are never handed out: they are read elsewhere, and put right here; absence is
//! believed only of a replica that has all there is.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meridian_types::{Fid, NodeId, VolumeId};
use meridian_volume::{DamagedRange, NEEDLE_SPAN_MAX, ReplicaRole, VOLUME_HEADER_SIZE, VolumeError, VolumeStatus};

use crate::call::Verb;
use crate::directory::Placement;
use crate::error::{PeerError, Refusal, ReplicaError};
use crate::peers::SMALL_ANSWER_SIZE_MAX;
use crate::replicas::{Inner, Replicas};

/// Longest damaged range that is repaired in one piece; a longer one waits for a copy of the whole volume.
const REPAIR_SIZE_MAX: u64 = 2 * NEEDLE_SPAN_MAX;

impl Replicas {
    /// The bytes `range` of a needle's data, checked.
    ///
    /// # Errors
    /// `is_no_such_needle` when that is certain, also for a wrong cookie; else ask another datacenter, or later.
    pub async fn read(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, ReplicaError> {
        let inner = &self.inner;
        let error = match inner.volumes.read(fid, range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let Some(placement) = inner.elsewhere(fid, &error) else { return Err(error.into()) };
        let Range { start, end } = range;
        let verb = Verb::Read { key: fid.key, cookie: fid.cookie, start, end };
        let bytes = inner.ask_hedged(fid, &placement, verb, range.len()).await?;
        if bytes.len() != range.len() {
            let reason = format!("{} bytes came where {} are due", bytes.len(), range.len());
            return Err(ReplicaError::Unreadable { volume: fid.volume, reason });
        }
        if let VolumeError::CorruptNeedle { .. } | VolumeError::MaybeDamaged(_) = error {
            let replicas = self.clone();
            tokio::spawn(async move { replicas.repair(fid.volume).await });
        }
        Ok(bytes)
    }

    /// The first bytes of a needle's data, checked, at most `size_max` of them, and the size of all its data.
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_prefix(&self, fid: Fid, size_max: u32) -> Result<(Bytes, u32), ReplicaError> {
        if let Ok(found) = self.inner.volumes.read_prefix(fid, size_max).await {
            return Ok(found);
        }
        let length = self.needle_size(fid).await?;
        Ok((self.read(fid, 0..length.min(size_max)).await?, length))
    }

    /// The size of a needle's data in bytes, once its cookie is checked.
    ///
    /// # Errors
    /// As `read`.
    pub async fn needle_size(&self, fid: Fid) -> Result<u32, ReplicaError> {
        let error = match self.inner.volumes.needle_size(fid) {
            Ok(size) => return Ok(size),
            Err(error) => error,
        };
        let Some(placement) = self.inner.elsewhere(fid, &error) else { return Err(error.into()) };
        let verb = Verb::Size { key: fid.key, cookie: fid.cookie };
        let answer = self.inner.ask_hedged(fid, &placement, verb, SMALL_ANSWER_SIZE_MAX).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| ReplicaError::Unreadable { volume: fid.volume, reason: error.to_string() })
    }

    /// Whether the bytes of a volume up to `end_offset` can be read on this node.
    pub fn is_here(&self, volume: VolumeId, end_offset: u64) -> bool {
        self.inner.volumes.state(volume).is_some_and(|state| state.committed >= end_offset)
    }

    /// Copies from other replicas what is damaged here; returns how many ranges are whole again. What can't be had stays
    /// listed as damaged.
    pub async fn repair(&self, volume: VolumeId) -> usize {
        let Some(status) = self.inner.volumes.state(volume) else { return 0 };
        let Some(placement) = self.inner.peers.placement(volume) else { return 0 };
        let mut repaired = 0;
        for range in &status.damaged {
            if range.offset >= VOLUME_HEADER_SIZE && range.length <= REPAIR_SIZE_MAX {
                repaired += usize::from(self.inner.repair_range(&placement, &status, range).await);
            }
        }
        repaired
    }
}

impl Inner {
    /// Where else to ask after this error, if that can help.
    fn elsewhere(&self, fid: Fid, error: &VolumeError) -> Option<Placement> {
        let status = self.volumes.state(fid.volume);
        if status.as_ref().is_some_and(|status| !status.role.is_replicated()) {
            return None; // a sole replica, or a mirror: other datacenters know more
        }
        let useless = match error {
            VolumeError::NoSuchNeedle(_) => status.is_some_and(|status| has_all(&status)),
            VolumeError::RangeOutside { .. } => true,
            _ => false,
        };
        if useless { None } else { self.peers.placement(fid.volume) }
    }

    /// Asks the other replicas, the next one when the one before fails or is slow; the first good answer counts.
    async fn ask_hedged(
        &self,
        fid: Fid,
        placement: &Placement,
        verb: Verb,
        size_max: usize,
    ) -> Result<Bytes, ReplicaError> {
        let timings = self.config.timings;
        let mut next = self.others(placement).into_iter();
        let mut asked = FuturesUnordered::new();
        let mut reasons = Vec::new();
        let ask = |node: NodeId| async move {
            self.peers.ask(node, placement, verb, &[], (size_max, timings.call_max)).await
        };
        asked.extend(next.next().map(ask));
        loop {
            let wait = if next.len() > 0 { timings.hedge_after } else { timings.call_max + Duration::from_secs(1) };
            match tokio::time::timeout(wait, asked.next()).await {
                Ok(Some(Ok(bytes))) => return Ok(bytes),
                Ok(Some(Err(PeerError::Refused { refusal: Refusal::NoSuchNeedle, .. }))) => {
                    return Err(ReplicaError::NoSuchNeedle(fid));
                }
                Ok(Some(Err(error))) => {
                    reasons.push(error.to_string());
                    asked.extend(next.next().map(ask));
                }
                Ok(None) => {
                    if reasons.is_empty() {
                        reasons.push("it has no other replica".to_owned());
                    }
                    return Err(ReplicaError::Unreadable { volume: fid.volume, reason: reasons.join("; ") });
                }
                Err(_) => asked.extend(next.next().map(ask)),
            }
        }
    }

    async fn repair_range(&self, placement: &Placement, status: &VolumeStatus, range: &DamagedRange) -> bool {
        let &DamagedRange { offset, length, .. } = range;
        for node in self.others(placement) {
            let verb = Verb::Range { offset, length };
            let limits = (length as usize, self.config.timings.call_max);
            let bytes = match self.peers.ask(node, placement, verb, &[], limits).await {
                Ok(bytes) if bytes.len() as u64 == length => bytes,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(volume = %placement.volume, offset, %error, "no bytes to repair with");
                    continue;
                }
            };
            match self.volumes.repair(placement.volume, status.header.generation, offset, bytes).await {
                Ok(()) => return true,
                Err(error) => tracing::warn!(volume = %placement.volume, offset, %node, %error, "not repaired"),
            }
        }
        false
    }
}

/// Whether a needle that this replica does not have does not exist.
pub(crate) fn has_all(status: &VolumeStatus) -> bool {
    match status.role {
        ReplicaRole::Sole => true,
        ReplicaRole::Mirror => false,
        ReplicaRole::Primary => !status.filling && (status.sealed || status.committed == status.durable),
        ReplicaRole::Secondary => !status.filling && status.sealed,
    }
}
