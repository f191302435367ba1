//! The volumes that this node writes to, grown ahead of need, and the ones that it retires.
//!
//! What it is for: `lease_volume` without a round trip, the files of volumes that were registered for this node, and
//! the sealing of full and failed ones. What it does not do: append; decide where copies go (`place` and `topology` do).
//!
//! The primary of a volume is this node wherever the code can be met around it; else the volume is one that another node
//! leads, and appends go there. The leader of the control group also ends replicated volumes whose primary is gone.
//!
//! Invariants: a volume is writable here only once its registration and its `OpenVolume` are committed and its files are
//! there (rule 13); a file is created only for a volume that is still `Creating`, never in place of one that was lost; a
//! retired volume never becomes writable again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use meridian_replica::{PeerError, Refusal as PeerRefusal, ReplicaError, Replicas};
use meridian_topology::Policy;
use meridian_types::{NodeId, ReplicaCode, VolumeId};
use meridian_volume::{VolumeSet, VolumeStatus};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::directory::placement;
use crate::place::Place;
use crate::proposing::Proposing;
use crate::{Command, ControlError, VolumeRecord, VolumeState};

/// Open volumes that are kept ready for each code in use: one to write, one to take over when it fills or fails.
pub const VOLUMES_OPEN_TARGET: usize = 2;

/// Tries to make the files of one volume, or to place it, before a writer is told that there is none.
const PLACE_ATTEMPTS_MAX: usize = 4;
/// A node that was not yet told of a new volume is asked again after this pause, for so long.
const TOLD_PAUSE: Duration = Duration::from_millis(20);
const TOLD_WAIT: Duration = Duration::from_secs(3);
/// Silent for so long, a primary has its replicated volumes sealed by the leader.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);

pub(crate) struct Writable {
    pub(crate) place: Place,
    proposing: Arc<Proposing>,
    replicas: Replicas,
    files: Arc<VolumeSet>,
    hand: Mutex<Hand>,
    /// Since when nodes have been silent, as this node's leader saw it.
    silent: Mutex<BTreeMap<NodeId, Instant>>,
    /// One grower at a time, so that many waiting writers make one volume.
    growing: tokio::sync::Mutex<()>,
}

/// The volumes of this node that are not sealed yet. Each stands in at most one of the two.
#[derive(Default)]
struct Hand {
    /// By code, the first one in use. A code stays once it had a volume, and so has them grown ahead.
    open: BTreeMap<ReplicaCode, Vec<VolumeId>>,
    /// Not writable any more, and not yet sealed.
    retiring: BTreeSet<VolumeId>,
}

impl Hand {
    fn holds(&self, volume: VolumeId) -> bool {
        self.retiring.contains(&volume) || self.open.values().any(|volumes| volumes.contains(&volume))
    }
}

impl Writable {
    pub(crate) fn new(place: Place, code: ReplicaCode, proposing: Arc<Proposing>, replicas: Replicas) -> Self {
        let hand = Hand { open: BTreeMap::from([(code, Vec::new())]), retiring: BTreeSet::new() };
        let (hand, silent, growing) = (Mutex::new(hand), Mutex::default(), tokio::sync::Mutex::default());
        let files = Arc::clone(replicas.volumes());
        Self { place, proposing, replicas, files, hand, silent, growing }
    }

    /// The volume to write now: open, with all its nodes there as far as is known.
    pub(crate) fn first(&self, code: ReplicaCode) -> Option<VolumeId> {
        let hand = self.hand.lock();
        let open = hand.open.get(&code)?;
        if code.other_racks() == 0 && code.same_rack() == 0 {
            return open.first().copied();
        }
        let registry = self.proposing.cache.get();
        let is_usable = |volume: &&VolumeId| {
            let record = registry.volume(**volume);
            record.is_some_and(|record| record.state == VolumeState::Open && self.place.can_append(record))
        };
        open.iter().find(is_usable).copied()
    }

    /// Makes the volume to write now, unless somebody else just did.
    pub(crate) async fn make_first(&self, code: ReplicaCode) -> Result<VolumeId, ControlError> {
        self.grow(code, 1).await?;
        let reason = || "the volume that was made has failed at once".to_owned();
        self.first(code).ok_or_else(|| ControlError::NoWritableVolume { code, reason: reason() })
    }

    /// Takes a volume out of use at once, for it failed or is full; `seal_retired` does the rest. Which node failed is known
    /// to the links between replicas (`Place::is_usable`).
    pub(crate) fn retire(&self, volume: VolumeId) {
        let mut hand = self.hand.lock();
        for volumes in hand.open.values_mut() {
            if let Some(place) = volumes.iter().position(|other| *other == volume) {
                volumes.remove(place);
                hand.retiring.insert(volume);
                return;
            }
        }
    }

    /// For the leader: replicated volumes whose primary has been silent for long are to be sealed by the others. One with a
    /// single replica waits for its node: nobody else has its bytes.
    pub(crate) fn retire_orphans(&self) {
        let registry = self.proposing.cache.get();
        let mut silent = self.silent.lock();
        silent.retain(|node, _| !self.place.liveness.is_live(*node));
        for node in registry.nodes.iter().map(|node| node.id) {
            if node != self.place.node && !self.place.liveness.is_live(node) {
                silent.entry(node).or_insert_with(Instant::now);
            }
        }
        let is_orphan = |record: &&VolumeRecord| {
            let since = silent.get(&record.primary);
            record.state != VolumeState::Sealed
                && !record.secondaries.is_empty()
                && since.is_some_and(|since| since.elapsed() >= ORPHANED_AFTER)
        };
        let orphans: Vec<VolumeId> = registry.volumes.iter().filter(is_orphan).map(|record| record.id).collect();
        drop(silent);
        let mut hand = self.hand.lock();
        for volume in orphans {
            hand.open.values_mut().for_each(|volumes| volumes.retain(|other| *other != volume));
            hand.retiring.insert(volume);
        }
    }

    /// Brings the replicas on this node to what the registry says of sealed volumes (rule 2). An open volume whose file is
    /// gone here is ended, so that what the others hold of it is copied.
    pub(crate) async fn reconcile(&self) {
        let registry = self.proposing.cache.get();
        for record in registry.volumes.iter().filter(|record| record.secondaries.contains(&self.place.node)) {
            let status = self.files.state(record.id);
            if record.state == VolumeState::Open && status.is_none() {
                tracing::error!(volume = %record.id, "the file of an open volume is gone here; the volume is ended");
                self.hand.lock().retiring.insert(record.id);
            }
            if record.state != VolumeState::Sealed || status.is_some_and(|status| status.sealed) {
                continue;
            }
            if let Err(error) = self.replicas.reconcile(record.id).await {
                tracing::warn!(volume = %record.id, %error, "a replica is not complete yet");
            }
        }
    }

    /// Seals what was retired. A volume that gives no length stays *sealing* and is asked again (rule 1).
    pub(crate) async fn seal_retired(&self) {
        let retiring: Vec<_> = self.hand.lock().retiring.iter().copied().collect();
        for volume in retiring {
            match self.seal(volume).await {
                Ok(()) => {
                    self.hand.lock().retiring.remove(&volume);
                }
                Err(error) => tracing::warn!(%volume, %error, "a volume is not sealed yet"),
            }
        }
    }

    /// Brings every code in use up to its open volumes; one that can't be met holds back no other.
    pub(crate) async fn grow_all(&self) -> Result<(), ControlError> {
        let codes: Vec<_> = self.hand.lock().open.keys().copied().collect();
        let mut failed = None;
        for code in codes {
            failed = self.grow(code, VOLUMES_OPEN_TARGET).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes volumes of `code` until `target` can be written to, first those that are registered already.
    async fn grow(&self, code: ReplicaCode, target: usize) -> Result<(), ControlError> {
        let _growing = self.growing.lock().await;
        self.adopt().await?;
        let mut attempts = 0;
        while self.usable_count(code) < target {
            let record = match self.another_nodes(code) {
                Some(record) => {
                    self.add(&record);
                    continue;
                }
                None => self.register(code).await?,
            };
            attempts += 1;
            match self.make(&record).await {
                Ok(()) => attempts = 0,
                // Another set of nodes may do it; the files that were made are ended.
                Err(error) if attempts < PLACE_ATTEMPTS_MAX && !record.secondaries.is_empty() => {
                    tracing::warn!(volume = %record.id, %error, "a volume could not be made; trying elsewhere");
                    self.hand.lock().retiring.insert(record.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn usable_count(&self, code: ReplicaCode) -> usize {
        let registry = self.proposing.cache.get();
        let hand = self.hand.lock();
        let records = hand.open.get(&code).into_iter().flatten().filter_map(|volume| registry.volume(*volume));
        records.filter(|record| record.state == VolumeState::Open && self.place.can_append(record)).count()
    }

    /// An open volume that another node leads, for a code that can't be met around this one.
    fn another_nodes(&self, code: ReplicaCode) -> Option<VolumeRecord> {
        let registry = self.proposing.cache.get();
        let set = self.place.select(&registry, code).ok()?;
        if set.primary == self.place.node {
            return None;
        }
        let hand = self.hand.lock();
        let open = registry.volumes.iter().filter(|record| record.code == code && record.state == VolumeState::Open);
        let mut fitting = open.filter(|record| !hand.holds(record.id) && self.place.can_append(record));
        fitting.next().cloned()
    }

    /// Takes every volume of this node that the registry knows to where its state says it belongs. A cancelled or failed
    /// creation is finished here, so that it is not followed by another one.
    async fn adopt(&self) -> Result<(), ControlError> {
        let registry = self.proposing.cache.get();
        let mut unmade = None;
        for volumes in self.hand.lock().open.values_mut() {
            // Another node may have ended one.
            volumes.retain(|volume| registry.volume(*volume).is_some_and(|record| record.state <= VolumeState::Open));
        }
        for record in registry.primaries_of(self.place.node) {
            let in_hand = self.hand.lock().holds(record.id);
            match record.state {
                VolumeState::Creating if in_hand => {}
                VolumeState::Creating => match self.make(record).await {
                    Ok(()) => {}
                    Err(error) if record.secondaries.is_empty() => unmade = unmade.or(Some(error)),
                    Err(error) => {
                        tracing::warn!(volume = %record.id, %error, "a volume could not be made");
                        self.hand.lock().retiring.insert(record.id);
                    }
                },
                VolumeState::Open if in_hand => {}
                VolumeState::Open => match self.files.state(record.id) {
                    Some(status) if !status.sealed && !status.fenced && status.failed.is_none() => self.add(record),
                    found => {
                        // It may have held acknowledged bytes: never created anew, for ever sealing if it is lost.
                        let reason = found.map_or("its file is missing", |_| "it is fenced, sealed or failed here");
                        tracing::error!(volume = %record.id, reason, "an open volume takes no more appends");
                        self.hand.lock().retiring.insert(record.id);
                    }
                },
                VolumeState::Sealing => {
                    self.hand.lock().retiring.insert(record.id);
                }
                VolumeState::Sealed => {
                    // A crash may have come between the registry's word and the file's end.
                    if self.files.state(record.id).is_some_and(|status| !status.sealed) {
                        self.hand.lock().retiring.insert(record.id);
                    }
                }
            }
        }
        unmade.map_or(Ok(()), Err)
    }

    fn add(&self, record: &VolumeRecord) {
        self.proposing.clock.observe(record.created); // rule 13: every needle in it is stamped above
        let mut hand = self.hand.lock();
        if !hand.holds(record.id) {
            hand.open.entry(record.code).or_default().push(record.id);
        }
    }

    /// Registers a volume of `code`, led by this node if it can be.
    async fn register(&self, code: ReplicaCode) -> Result<VolumeRecord, ControlError> {
        let registry = self.proposing.cache.get();
        let set =
            self.place.select(&registry, code).map_err(|missing| match self.place.could_meet(&registry, code) {
                // With every node there it could: it is worth asking again.
                true => ControlError::NoWritableVolume { code, reason: missing.to_string() },
                false => missing.into(),
            })?;
        let (owner, policy) = (self.place.datacenter.0, Policy::new(code, 0));
        let mirrors = policy.select_mirrors(&self.place.members, owner, registry.state.next_volume)?;
        let command = |created| Command::CreateVolume {
            code,
            primary: set.primary,
            secondaries: set.secondaries.clone(),
            mirrors: mirrors.clone(),
            created,
        };
        self.proposing.propose_stamped(command).await
    }

    /// Makes the files of a registered volume on all its nodes and opens it for appends.
    async fn make(&self, record: &VolumeRecord) -> Result<(), ControlError> {
        let volume = record.id;
        self.proposing.clock.observe(record.created); // rule 13: before its first needle is stamped
        let made = join_all(record.replicas().map(|node| self.make_on(record, node))).await;
        made.into_iter().collect::<Result<Vec<()>, ControlError>>()?;
        let record = self.proposing.propose_volume(Command::OpenVolume { volume }).await?;
        self.add(&record);
        Ok(())
    }

    async fn make_on(&self, record: &VolumeRecord, node: NodeId) -> Result<(), ControlError> {
        let (placement, deadline) = (placement(record), Instant::now() + TOLD_WAIT);
        loop {
            match self.replicas.create_on(&placement, node).await {
                Ok(()) => return Ok(()),
                Err(ReplicaError::Peer(PeerError::Refused { refusal: PeerRefusal::NoSuchVolume(_), .. }))
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(TOLD_PAUSE).await; // it has not applied the registration yet
                }
                Err(error) => {
                    self.place.suspect(node);
                    return Err(replica_error(error));
                }
            }
        }
    }

    async fn seal(&self, volume: VolumeId) -> Result<(), ControlError> {
        let registry = self.proposing.cache.get();
        let record = registry.volume(volume).ok_or(ControlError::NoSuchVolume { volume })?;
        let record = match record.state {
            VolumeState::Creating | VolumeState::Open => {
                let command = Command::BeginSeal { volume, epoch: record.epoch };
                self.proposing.propose_volume(command).await?
            }
            VolumeState::Sealing | VolumeState::Sealed => record.clone(),
        };
        // Rule 1: each replica makes the new epoch durable, refusing appends under the old one, and only then says how
        // long it is; the registry decides the length; then the replicas end there.
        let epoch = record.epoch;
        let is_sole = record.secondaries.is_empty() && record.primary == self.place.node;
        let length = match record.sealed_length {
            Some(length) => length,
            None => {
                let length = match is_sole {
                    true => self.files.fence(volume, epoch).await?,
                    false => self.replicas.seal(volume, epoch, 0).await.map_err(replica_error)?.length,
                };
                let command = Command::FinishSeal { volume, epoch, length };
                let sealed = self.proposing.propose_volume(command).await?;
                sealed.sealed_length.unwrap_or(length)
            }
        };
        if is_sole {
            return Ok(self.files.seal_at(volume, epoch, length).await?);
        }
        for (node, reason) in self.replicas.end(volume).await.map_err(replica_error)? {
            tracing::info!(%volume, %node, reason, "a replica does not end yet; it will by itself");
        }
        if record.primary == self.place.node {
            self.replicas.reconcile(volume).await.map_err(replica_error)?;
        }
        Ok(())
    }

    /// The files here whose volumes this datacenter registers.
    pub(crate) fn own_files(&self) -> Vec<VolumeStatus> {
        let own = |volume: VolumeId| volume.datacenter() == self.place.datacenter.0;
        self.files.states().into_iter().filter(|status| !status.mirror && own(status.header.volume)).collect()
    }

    /// Rules 3, 7: a file of ours that the registry does not account for means that the registry went back in time, and
    /// would issue ids and offsets again. Call before anything is created, with the files as they were before this node
    /// registered itself: another one may seal a volume at any time, and its new epoch is in our file as soon as in the
    /// registry, so that files looked at later could be ahead of a registry looked at earlier.
    pub(crate) fn check_files(&self, files: &[VolumeStatus]) -> Result<(), ControlError> {
        let registry = self.proposing.cache.get();
        for status in files {
            let volume = status.header.volume;
            let reason = match registry.volume(volume) {
                None => "it was never registered",
                Some(record) if record.epoch < status.header.epoch => "its epoch is above the registered one",
                Some(record) if record.state == VolumeState::Creating && status.needles > 0 => "it has needles already",
                Some(_) => continue,
            };
            return Err(ControlError::RegistryWentBack { volume, reason });
        }
        Ok(())
    }
}

fn replica_error(error: ReplicaError) -> ControlError {
    match error {
        ReplicaError::Volume(error) => ControlError::Volume(error),
        error => ControlError::Replica(error),
    }
}
