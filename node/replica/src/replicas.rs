//! The handle on all replicas of a datacenter's volumes: append, read, delete, whichever node they are on.
//!
//! It does not place volumes, nor decide when one is sealed: control does. A volume without other replicas is written
//! straight to its file, at no cost over that.
//!
//! Invariants: an append goes to the volume's primary and nowhere else; one that was acknowledged is durable on every
//! replica of the datacenter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_types::{Cookie, Epoch, Fid, NeedleKey, NodeId, Timestamp, VolumeId};
use meridian_volume::{Appended, ReplicaRole, VolumeError, VolumeSet, VolumeStatus};
use meridian_wire::LocalNode;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::call::{AppendedAnswer, Verb};
use crate::directory::{Placement, ReplicaDirectory, Stage};
use crate::error::{PeerError, Refusal, ReplicaError};
use crate::peers::Peers;
use crate::primary_replica::PrimaryReplica;
use crate::protocol::Session;
use crate::secondary_replica::SecondaryReplica;

/// Bytes of calls' bodies that may be in memory at the served side, in KiB.
const BODIES_KIB_MAX: usize = 256 << 10;

/// How long others may take.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaTimings {
    /// A secondary that has not made a batch durable in this time ends the volume.
    pub acknowledge_max: Duration,
    /// A replica that has not been read in this time has another one asked beside it.
    pub hedge_after: Duration,
    /// The longest that any other call may take.
    pub call_max: Duration,
    /// A seal waits so long for replicas that do not answer.
    pub fence_max: Duration,
}

impl Default for ReplicaTimings {
    fn default() -> Self {
        Self {
            acknowledge_max: Duration::from_secs(3),
            hedge_after: Duration::from_millis(50),
            call_max: Duration::from_secs(10),
            fence_max: Duration::from_secs(5),
        }
    }
}

/// Who this node is.
#[derive(Debug, Clone, Copy)]
pub struct ReplicasConfig {
    pub local: LocalNode,
    /// Registered with control before the node serves (rule 7): the session of its primaries.
    pub boot_counter: u64,
    pub timings: ReplicaTimings,
}

/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Replicas {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ReplicasConfig,
    pub(crate) volumes: Arc<VolumeSet>,
    pub(crate) peers: Arc<Peers>,
    primaries: Mutex<HashMap<VolumeId, Arc<PrimaryReplica>>>,
    secondaries: Mutex<HashMap<VolumeId, Arc<SecondaryReplica>>>,
    pub(crate) bodies: Arc<Semaphore>,
}

impl Replicas {
    /// Without an identity only what is on this node is reached.
    pub fn new(config: ReplicasConfig, identity: Option<Identity>, volumes: Arc<VolumeSet>) -> Self {
        let peers = Arc::new(Peers::new(config.local, identity));
        let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX));
        let (primaries, secondaries) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { config, volumes, peers, primaries, secondaries, bodies }) }
    }

    /// Names the directory, once; until then only volumes without other replicas are reached.
    pub fn attach(&self, directory: Arc<dyn ReplicaDirectory>) {
        self.inner.peers.attach(directory);
    }

    /// Appends a needle at the volume's primary; durable on every replica of this datacenter on return, together with
    /// everything appended before it.
    ///
    /// # Errors
    /// `take_another` tells whether another volume may take it at once; then the failed one is to be reported to control.
    /// After any error it is not known whether the needle is in the volume.
    pub async fn append(
        &self,
        volume: VolumeId,
        key: NeedleKey,
        cookie: Cookie,
        data: Bytes,
    ) -> Result<Appended, ReplicaError> {
        match self.inner.volumes.role(volume) {
            Some(ReplicaRole::Sole) => Ok(self.inner.volumes.append(volume, key, cookie, data).await?),
            Some(ReplicaRole::Primary) => self.inner.primary(volume)?.append(key, cookie, data).await,
            _ => {
                let placement = self.inner.peers.placement(volume).ok_or(ReplicaError::NoSuchVolume(volume))?;
                self.inner.append_at(&placement, key, cookie, data).await
            }
        }
    }

    /// Deletes a needle on every replica; durable on those that are reached.
    ///
    /// # Errors
    /// That of the first replica that could not; the others have deleted it all the same. `NoSuchVolume` when no node of
    /// this datacenter has the volume.
    pub async fn delete(&self, fid: Fid) -> Result<(), ReplicaError> {
        let Inner { volumes, peers, config, .. } = &*self.inner;
        let role = volumes.role(fid.volume);
        let here = match role {
            Some(_) => volumes.delete(fid).await.map_err(ReplicaError::from),
            None => Ok(()),
        };
        if role.is_some_and(|role| !role.is_replicated()) {
            return here; // there is no other replica
        }
        let Some(placement) = peers.placement(fid.volume) else {
            return if role.is_some() { here } else { Err(ReplicaError::NoSuchVolume(fid.volume)) };
        };
        let mut failed = here.err();
        for node in placement.replicas().filter(|node| *node != config.local.node) {
            let verb = Verb::Delete { key: fid.key, cookie: fid.cookie };
            match peers.ask_for::<()>(node, &placement, verb, &[], config.timings.call_max).await {
                Ok(()) | Err(PeerError::Refused { refusal: Refusal::NoSuchNeedle, .. }) => {}
                Err(error) => failed = failed.or(Some(error.into())),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.config.local.node
    }

    /// Whether a node left a call unanswered or failed an append a short while ago.
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.inner.peers.is_suspect(node)
    }

    /// What is known of a volume's replica on this node.
    pub fn state(&self, volume: VolumeId) -> Option<VolumeStatus> {
        self.inner.volumes.state(volume)
    }

    /// All replicas and mirrors on this node.
    pub fn states(&self) -> Vec<VolumeStatus> {
        self.inner.volumes.states()
    }

    /// The files on this node.
    pub fn volumes(&self) -> &Arc<VolumeSet> {
        &self.inner.volumes
    }

    /// No later append of any volume of this node gets a stamp up to `t` (rule 13).
    pub fn close_through(&self, t: Timestamp) {
        self.inner.volumes.close_through(t);
    }

    /// Makes the file of a volume that is still being created on each of its nodes; durable on return. May be repeated.
    ///
    /// # Errors
    /// That of the first node that has none.
    pub async fn create(&self, placement: &Placement) -> Result<(), ReplicaError> {
        for node in placement.replicas() {
            self.create_on(placement, node).await?;
        }
        Ok(())
    }

    /// Makes the file of a volume that is still being created on one of its nodes; durable on return. May be repeated.
    ///
    /// # Errors
    /// Why there is none; `NoSuchVolume` of a peer that has not yet heard of the registration.
    pub async fn create_on(&self, placement: &Placement, node: NodeId) -> Result<(), ReplicaError> {
        let Inner { peers, config, .. } = &*self.inner;
        if node == config.local.node {
            return Ok(self.inner.create_here(placement).await?);
        }
        let deadline = config.timings.call_max;
        Ok(peers.ask_for::<()>(node, placement, Verb::Create, &[], deadline).await?)
    }
}

impl Inner {
    pub(crate) async fn create_here(&self, placement: &Placement) -> Result<(), VolumeError> {
        let (volumes, header) = (Arc::clone(&self.volumes), placement.header());
        let primary = placement.primary == self.config.local.node;
        let create = move || if primary { volumes.create(header) } else { volumes.create_secondary(header) };
        tokio::task::spawn_blocking(create).await.map_err(|_| VolumeError::ShuttingDown)?
    }

    /// The primary of a volume whose primary replica is here.
    pub(crate) fn primary(&self, volume: VolumeId) -> Result<Arc<PrimaryReplica>, ReplicaError> {
        let mut primaries = self.primaries.lock();
        if let Some(primary) = primaries.get(&volume) {
            return Ok(Arc::clone(primary));
        }
        let refused = |reason: &str| ReplicaError::TakeAnother { volume, reason: reason.to_owned() };
        let placement = self.peers.placement(volume).ok_or(ReplicaError::NoSuchVolume(volume))?;
        let file = self.volumes.replica(volume)?;
        if placement.primary != self.config.local.node {
            return Err(refused("another node is its primary"));
        }
        if placement.stage != Stage::Open || file.ends().0 != placement.epoch {
            return Err(refused("it is not open at this epoch"));
        }
        let session = Session(self.config.boot_counter);
        let deadline = self.config.timings.acknowledge_max;
        let primary = PrimaryReplica::start(placement, session, file, Arc::clone(&self.peers), deadline);
        primaries.insert(volume, Arc::clone(&primary));
        Ok(primary)
    }

    /// The secondary of a volume whose secondary replica is here.
    pub(crate) fn secondary(&self, volume: VolumeId) -> Result<Arc<SecondaryReplica>, VolumeError> {
        let mut secondaries = self.secondaries.lock();
        if let Some(secondary) = secondaries.get(&volume) {
            return Ok(Arc::clone(secondary));
        }
        if self.volumes.role(volume) != Some(ReplicaRole::Secondary) {
            return Err(VolumeError::NoSuchVolume(volume));
        }
        let secondary = SecondaryReplica::new(self.volumes.replica(volume)?);
        secondaries.insert(volume, Arc::clone(&secondary));
        Ok(secondary)
    }

    /// The file of this volume is fenced at `epoch`: whoever appends to it ends.
    pub(crate) fn fenced(&self, volume: VolumeId, epoch: Epoch) {
        if let Some(primary) = self.primaries.lock().remove(&volume) {
            primary.fenced();
        }
        if let Some(secondary) = self.secondaries.lock().remove(&volume) {
            secondary.fenced(epoch);
        }
    }

    async fn append_at(
        &self,
        placement: &Placement,
        key: NeedleKey,
        cookie: Cookie,
        data: Bytes,
    ) -> Result<Appended, ReplicaError> {
        let (volume, node, deadline) = (placement.volume, placement.primary, self.config.timings.call_max);
        if node == self.config.local.node {
            return Err(VolumeError::NoSuchVolume(volume).into()); // its file is gone
        }
        let verb = Verb::Append { key, cookie };
        match self.peers.ask_for::<AppendedAnswer>(node, placement, verb, &[data], deadline).await {
            Ok(AppendedAnswer { end_offset, stamp }) => Ok(Appended { end_offset, stamp: Timestamp::from_raw(stamp) }),
            Err(PeerError::Refused { refusal: Refusal::Failed(reason), .. }) => {
                Err(ReplicaError::Append { volume, reason })
            }
            Err(error) => Err(ReplicaError::TakeAnother { volume, reason: error.to_string() }),
        }
    }

    /// The other nodes with a replica, the primary first, and last those that lately did not answer.
    pub(crate) fn others(&self, placement: &Placement) -> Vec<NodeId> {
        let mut others: Vec<_> = placement.replicas().filter(|node| *node != self.config.local.node).collect();
        others.sort_by_key(|node| self.peers.is_suspect(*node)); // keeps the order but for that
        others
    }
}
