//! The volumes that this node may append to, grown ahead of need, and the ones that it retires.
//!
//! What it is for: `lease_volume` without a round trip, the files of volumes that were registered for this node, and
//! the sealing of full and failed ones. What it does not do: append; decide where copies go (`topology` does).
//!
//! Invariants: a volume is writable here only once its registration and its `OpenVolume` are committed and its file is
//! there (rule 13); a file is created only for a volume that is still `Creating`, never in place of one that was lost; a
//! retired volume never becomes writable again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_topology::{Node, Policy, Tree};
use meridian_types::{DatacenterId, DatacenterName, NodeId, ReplicaCode, VolumeId};
use meridian_volume::{VolumeHeader, VolumeSet};
use parking_lot::Mutex;

use crate::proposing::Proposing;
use crate::registry::Registry;
use crate::{Command, ControlError, VolumeRecord, VolumeState};

/// Open volumes that are kept ready for each code in use: one to write, one to take over when it fills or fails.
pub const VOLUMES_OPEN_TARGET: usize = 2;

pub(crate) struct Writable {
    pub(crate) datacenter: DatacenterId,
    pub(crate) datacenter_name: DatacenterName,
    pub(crate) node: NodeId,
    /// All member datacenters.
    pub(crate) members: BTreeSet<DatacenterId>,
    pub(crate) proposing: Arc<Proposing>,
    pub(crate) files: Arc<VolumeSet>,
    hand: Mutex<Hand>,
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
    pub(crate) fn new(
        (datacenter, datacenter_name): (DatacenterId, DatacenterName),
        node: NodeId,
        members: BTreeSet<DatacenterId>,
        code: ReplicaCode,
        proposing: Arc<Proposing>,
        files: Arc<VolumeSet>,
    ) -> Self {
        let hand = Hand { open: BTreeMap::from([(code, Vec::new())]), retiring: BTreeSet::new() };
        let (hand, growing) = (Mutex::new(hand), tokio::sync::Mutex::default());
        Self { datacenter, datacenter_name, node, members, proposing, files, hand, growing }
    }

    /// The volume to write now.
    pub(crate) fn first(&self, code: ReplicaCode) -> Option<VolumeId> {
        self.hand.lock().open.get(&code)?.first().copied()
    }

    /// Makes the volume to write now, unless somebody else just did.
    pub(crate) async fn make_first(&self, code: ReplicaCode) -> Result<VolumeId, ControlError> {
        self.grow(code, 1).await?;
        let reason = || "the volume that was made has failed at once".to_owned();
        self.first(code).ok_or_else(|| ControlError::NoWritableVolume { code, reason: reason() })
    }

    /// Takes a volume out of use at once; `seal_retired` does the rest.
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

    /// Makes volumes of `code` until `target` are open, first those that are registered already.
    async fn grow(&self, code: ReplicaCode, target: usize) -> Result<(), ControlError> {
        let _growing = self.growing.lock().await;
        self.adopt().await?;
        loop {
            if self.hand.lock().open.get(&code).map_or(0, Vec::len) >= target {
                return Ok(());
            }
            let record = self.register(code).await?;
            self.make(&record).await?;
        }
    }

    /// Takes every volume of this node that the registry knows to where its state says it belongs. A cancelled or failed
    /// creation is finished here, so that it is not followed by another one.
    async fn adopt(&self) -> Result<(), ControlError> {
        let registry = self.proposing.cache.get();
        let mut unmade = None;
        for record in registry.primaries_of(self.node) {
            let in_hand = self.hand.lock().holds(record.id);
            match record.state {
                VolumeState::Creating => unmade = self.make(record).await.err().or(unmade),
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

    /// Registers a volume of `code` whose primary is this node.
    async fn register(&self, code: ReplicaCode) -> Result<VolumeRecord, ControlError> {
        let registry = self.proposing.cache.get();
        let policy = Policy::new(code, 0);
        let set = policy.select_local(&self.tree(&registry)?, self.datacenter, Some(self.node))?;
        if !set.secondaries.is_empty() {
            // Appends go to one replica yet; a code that promises more in this datacenter is refused, not degraded.
            let reason = "copies on other nodes of the datacenter are not written yet".to_owned();
            return Err(ControlError::NoWritableVolume { code, reason });
        }
        let mirrors = policy.select_mirrors(&self.members, self.datacenter, registry.state.next_volume)?;
        let command = |created| Command::CreateVolume {
            code,
            primary: set.primary,
            secondaries: set.secondaries.clone(),
            mirrors: mirrors.clone(),
            created,
        };
        self.proposing.propose_stamped(command).await
    }

    /// Makes the file of a registered volume and opens it for appends.
    async fn make(&self, record: &VolumeRecord) -> Result<(), ControlError> {
        let VolumeRecord { id: volume, generation, epoch, code, .. } = *record;
        self.proposing.clock.observe(record.created); // rule 13: before its first needle is stamped
        let files = self.files.clone();
        let header = VolumeHeader { volume, generation, epoch, code };
        let made = tokio::task::spawn_blocking(move || files.create(header)).await;
        made.map_err(|_| ControlError::Stopped)??;
        let record = self.proposing.propose_volume(Command::OpenVolume { volume }).await?;
        self.add(&record);
        Ok(())
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
        // Rule 1: the replica makes the new epoch durable, refusing appends under the old one, and only then says how
        // long it is; the registry decides the length; then the replica ends there.
        let epoch = record.epoch;
        let length = match record.sealed_length {
            Some(length) => length,
            None => {
                let length = self.files.fence(volume, epoch).await?;
                self.proposing.propose_volume(Command::FinishSeal { volume, epoch, length }).await?;
                length
            }
        };
        Ok(self.files.seal_at(volume, epoch, length).await?)
    }

    /// This datacenter as placement sees it. Registered nodes count as live until gossip says more.
    fn tree(&self, registry: &Registry) -> Result<Tree, ControlError> {
        let mut tree = Tree::default();
        tree.add_datacenter(self.datacenter, self.datacenter_name.clone());
        for node in &registry.nodes {
            tree.add_node(self.datacenter, &node.info.rack, node.id, Node { live: true, free_bytes: 0 })?;
        }
        Ok(tree)
    }

    /// Rules 3, 7: a file of ours that the registry does not account for means that the registry went back in time, and
    /// would issue ids and offsets again. Call before anything is created.
    pub(crate) fn check_files(&self) -> Result<(), ControlError> {
        let registry = self.proposing.cache.get();
        let own = |volume: VolumeId| volume.datacenter() == self.datacenter;
        for status in self.files.states().into_iter().filter(|status| !status.mirror && own(status.header.volume)) {
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
