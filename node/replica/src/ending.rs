//! The end of a volume: sealing it over all replicas, and bringing those up that were not there.
//!
//! Control runs it in three steps, each of which may be repeated after a crash: `seal` fences the replicas and says which
//! length they have to end at; control commits that to the registry; `end` tells the replicas. A replica that was away
//! learns it by `reconcile`: it cuts what is behind (rule 2), or copies what it lacks.
//!
//! Invariants: rule 1, by `protocol::sealing`; no replica is cut before the registry has the length; a copy in the making
//! never counts.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use meridian_types::{Epoch, NodeId, VolumeId};
use meridian_volume::{FenceReport, NEEDLE_SPAN_MAX, VolumeError, VolumeStatus};

use crate::call::Verb;
use crate::directory::{Placement, Stage};
use crate::error::{PeerError, Refusal, ReplicaError};
use crate::protocol::sealing::{Answer, Decision, Sealing};
use crate::replicas::{Inner, Replicas};

/// Bytes of one piece of a copy; it holds the largest needle.
const PIECE_SIZE_MAX: usize = 2 * NEEDLE_SPAN_MAX as usize;

impl Replicas {
    /// Fences every replica of a volume at `epoch`, the registry's raised one, and decides where it ends (rule 1).
    /// `known_committed` is the greatest committed length that others know of, such as its mirrors.
    ///
    /// Nothing is cut yet: the length is to be committed to the registry, and then given to `end`.
    ///
    /// # Errors
    /// `Sealing` when no complete replica has answered: the volume stays *sealing* and is asked again.
    pub async fn seal(&self, volume: VolumeId, epoch: Epoch, known_committed: u64) -> Result<Decision, ReplicaError> {
        let inner = &self.inner;
        let placement = inner.peers.placement(volume).ok_or(ReplicaError::NoSuchVolume(volume))?;
        let placement = Placement { epoch, ..placement };
        let mut sealing = Sealing::new(epoch, placement.replicas(), known_committed);
        let answers = join_all(placement.replicas().map(|node| inner.fence_at(&placement, node))).await;
        for (node, answer) in placement.replicas().zip(answers) {
            sealing.answered(node, answer);
        }
        sealing.decide().map_err(|source| ReplicaError::Sealing { volume, source })
    }

    /// Tells every replica of a sealed volume where it ends, by the registry; returns those that have not ended there.
    /// They reconcile themselves when they can.
    ///
    /// # Errors
    /// `NoSuchVolume` unless the registry has it sealed.
    pub async fn end(&self, volume: VolumeId) -> Result<Vec<(NodeId, String)>, ReplicaError> {
        let inner = &self.inner;
        let placement = inner.peers.placement(volume).ok_or(ReplicaError::NoSuchVolume(volume))?;
        let Stage::Sealed { length } = placement.stage else { return Err(ReplicaError::NoSuchVolume(volume)) };
        let ended = placement.replicas().map(|node| {
            let placement = &placement;
            async move {
                if node == inner.config.local.node {
                    return inner.end_here(placement, length).await.map_err(|error| (node, error.to_string()));
                }
                let (verb, deadline) = (Verb::End { length }, inner.config.timings.fence_max);
                let told: Result<(), PeerError> = inner.peers.ask_for(node, placement, verb, &[], deadline).await;
                told.map_err(|error| (node, error.to_string()))
            }
        });
        Ok(join_all(ended).await.into_iter().filter_map(Result::err).collect())
    }

    /// Brings this node's replica of a volume to what the registry says: ends it where it is sealed, and copies what it
    /// lacks from the others. Returns whether it is complete now. May be repeated.
    ///
    /// # Errors
    /// Why not: `Unreadable` when no other replica has the bytes; `Volume`.
    pub async fn reconcile(&self, volume: VolumeId) -> Result<bool, ReplicaError> {
        let inner = &self.inner;
        let placement = inner.peers.placement(volume).ok_or(ReplicaError::NoSuchVolume(volume))?;
        let Stage::Sealed { length } = placement.stage else { return Ok(false) };
        if !placement.replicas().any(|node| node == inner.config.local.node) {
            return Ok(false);
        }
        if inner.volumes.state(volume).is_some_and(|status| status.sealed) {
            return Ok(true);
        }
        match inner.end_here(&placement, length).await {
            Ok(()) => return Ok(true),
            Err(VolumeError::Incomplete { .. } | VolumeError::NoSuchVolume(_) | VolumeError::Filling(_)) => {}
            Err(error) => return Err(error.into()),
        }
        inner.copy(&placement, length).await?;
        Ok(true)
    }

    /// `reconcile` for every volume with a replica on this node; what fails is tried again with the next call.
    pub async fn reconcile_all(&self) {
        let Some(directory) = self.inner.peers.directory().cloned() else { return };
        for placement in directory.volumes_on(self.inner.config.local.node) {
            if let Err(error) = self.reconcile(placement.volume).await {
                tracing::warn!(volume = %placement.volume, %error, "a replica is not complete yet");
            }
        }
    }
}

impl Inner {
    async fn fence_at(&self, placement: &Placement, node: NodeId) -> Answer {
        let deadline = self.config.timings.fence_max;
        let report = if node == self.config.local.node {
            match tokio::time::timeout(deadline, self.fence_here(placement.volume, placement.epoch)).await {
                Ok(report) => report.map_err(|error| Refusal::from(&error)),
                Err(_) => return Answer::Unreachable { reason: "its disk does not answer".to_owned() },
            }
        } else {
            match self.peers.ask_for::<FenceReport>(node, placement, Verb::Fence, &[], deadline).await {
                Ok(report) => Ok(report),
                Err(PeerError::Refused { refusal, .. }) => Err(refusal),
                Err(error) => return Answer::Unreachable { reason: error.to_string() },
            }
        };
        match report {
            Ok(FenceReport { epoch, length, committed }) => Answer::Report { epoch, length, committed },
            Err(refusal) => Answer::Incomplete { reason: refusal.to_string() },
        }
    }

    /// Makes `epoch` durable on the replica here, and ends whoever appends to it.
    pub(crate) async fn fence_here(&self, volume: VolumeId, epoch: Epoch) -> Result<FenceReport, VolumeError> {
        let report = self.volumes.fence_report(volume, epoch).await?;
        self.fenced(volume, epoch);
        Ok(report)
    }

    /// Ends the replica here at `length`; fences it first if it missed that.
    pub(crate) async fn end_here(&self, placement: &Placement, length: u64) -> Result<(), VolumeError> {
        let Placement { volume, epoch, .. } = *placement;
        let status = self.volumes.state(volume).ok_or(VolumeError::NoSuchVolume(volume))?;
        if !status.sealed && !status.filling {
            self.fence_here(volume, epoch).await?;
        }
        self.volumes.seal_at(volume, epoch, length).await
    }

    /// Copies a sealed volume to this node, from where its replica here ends.
    async fn copy(&self, placement: &Placement, length: u64) -> Result<(), ReplicaError> {
        let Placement { volume, epoch, generation, .. } = *placement;
        let (volumes, header) = (Arc::clone(&self.volumes), placement.header());
        let begun = tokio::task::spawn_blocking(move || volumes.begin_filling(header)).await;
        let mut offset = begun.map_err(|_| VolumeError::ShuttingDown)??;
        self.fenced(volume, epoch);
        tracing::info!(%volume, from = offset, length, "copying a replica from the others");
        let mut reasons = Vec::new();
        let mut sources = self.others(placement).into_iter().peekable();
        while offset < length {
            let Some(node) = sources.peek().copied() else {
                return Err(ReplicaError::Unreadable { volume, reason: reasons.join("; ") });
            };
            let size = (length - offset).min(PIECE_SIZE_MAX as u64);
            let limits = (size as usize, self.config.timings.call_max + Duration::from_secs(20));
            let asked = self.peers.ask(node, placement, Verb::Range { offset, length: size }, &[], limits).await;
            let progress = match asked {
                Ok(bytes) => self.volumes.fill(volume, generation, offset, bytes).await.map_err(ReplicaError::from),
                Err(error) => Err(error.into()),
            };
            match progress {
                Ok(end) if end > offset => offset = end,
                Ok(_) => {
                    reasons.push(format!("node {node} has no more than {offset} bytes"));
                    sources.next();
                }
                Err(error) => {
                    reasons.push(error.to_string());
                    sources.next();
                    // The needles before a corrupt one were kept.
                    offset = self.volumes.state(volume).map_or(offset, |status: VolumeStatus| status.durable);
                }
            }
        }
        Ok(self.volumes.seal_at(volume, epoch, length).await?)
    }
}

impl From<&VolumeError> for Refusal {
    fn from(error: &VolumeError) -> Self {
        match error {
            VolumeError::NoSuchVolume(volume) => Self::NoSuchVolume(*volume),
            VolumeError::WrongGeneration { current, .. } => Self::WrongGeneration { current: *current },
            VolumeError::StaleEpoch { current, asked, .. } => Self::WrongEpoch { current: *current, asked: *asked },
            VolumeError::Incomplete { .. } | VolumeError::Filling(_) => Self::Incomplete(error.to_string()),
            error if error.take_another() => Self::TakeAnother(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}
