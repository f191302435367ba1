//! `Control`: the control group of this node behind one handle.
//!
//! What it is for: starting the group in the order that keeps rule 7, the public calls, and the background task that
//! keeps volumes and keys ready. What a command changes is `machine`'s, which volumes are writable `writable`'s business.
//!
//! Invariants: `start` returns only once this node is registered with a boot counter above all before it, and before
//! that nothing is created or issued; the background tasks end with `shutdown`, or with the last handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meridian_env::{HybridClock, entropy};
use meridian_raft::{ForwardHandler, GroupMembers, Leadership, RaftHost};
use meridian_replica::Replicas;
use meridian_store::GroupId;
use meridian_types::{
    DatacenterId, DatacenterName, Fid, Incarnation, NeedleKey, NodeId, ReplicaCode, Timestamp, VolumeId,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::directory::Directory;
use crate::keys::KeyLeases;
use crate::mirrors::{LostMirrors, share_out};
use crate::place::Place;
use crate::proposing::{CommandsOfOthers, Proposing, senseless};
use crate::registry::{Registry, RegistryCache};
use crate::writable::Writable;
use crate::{
    Command, ControlError, ControlMachine, HELD_REASON_LENGTH_MAX, KEYS_IN_LEASE_MAX, Liveness, MIRRORS_IN_COMMAND_MAX,
    NodeInfo, NodeRecord, NodeReport, PeerRecord, Refusal, Response, VolumeRecord, WatermarkReport,
};

/// A good `wait_ms_max`: longer than an election.
pub const WAIT_MS_MAX_DEFAULT: u64 = 10_000;
/// Most needle keys that are given out in a row: a fraction of a lease, so that little is passed over.
pub const KEYS_IN_ROW_MAX: u64 = KEYS_IN_LEASE_MAX / 16;
/// A good `repair_after`: longer than a restart.
pub const REPAIR_AFTER_DEFAULT: Duration = Duration::from_secs(60);
/// How often volumes and keys are looked after when nobody asks.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(3);
/// The pause before a registration of unknown outcome is tried again.
const REGISTER_PAUSE: Duration = Duration::from_millis(100);

/// How this node takes part in its control group.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    pub datacenter: DatacenterId,
    /// For messages such as "110 needs a second rack in dc-a".
    pub datacenter_name: DatacenterName,
    pub node: NodeId,
    /// The voters of the control group, and the other nodes of the datacenter as learners.
    pub members: GroupMembers,
    pub node_info: NodeInfo,
    /// From the node's identity file; raised before each start.
    pub boot_counter: u64,
    /// The cluster's P, without the catalog.
    pub partitions: u16,
    /// What gossip says of the nodes.
    pub liveness: Liveness,
    /// The other member datacenters, in any order.
    pub mirrors_to: Vec<DatacenterId>,
    /// The cluster's default code: its volumes are grown at start.
    pub code: ReplicaCode,
    /// Set when this datacenter's disks went back in time: the new incarnation of its logs (rule 7).
    pub renewal: Option<Incarnation>,
    /// A node that is silent for so long has its mirrors given to others.
    pub repair_after: Duration,
    /// The longest that `start` waits for a leader.
    pub join_wait_ms_max: u64,
    /// The longest that a command waits for its outcome.
    pub wait_ms_max: u64,
}

/// The control group of this node; clones share it.
#[derive(Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: ControlConfig,
    proposing: Arc<Proposing>,
    writable: Writable,
    lost_mirrors: LostMirrors,
    keys: Mutex<KeyLeases>,
    /// One lease of keys at a time, so that many waiting writers take one range.
    leasing: tokio::sync::Mutex<()>,
    /// Wakes the maintenance.
    wake: Arc<Notify>,
    registry_changed: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Answers what other nodes forward; the host knows it only as long as it is here.
    _commands: Arc<dyn ForwardHandler>,
}

impl Control {
    /// Starts the group, registers the node with its boot counter (rule 7), leases a key range and has the volumes of
    /// the default code ready. `replicas` are attached to the registry. A code that can't be met, or a full disk, does not fail the start: `lease_volume` says so.
    ///
    /// # Errors
    /// `BootCounterWentBack` or `RegistryWentBack` when a disk went back in time; `Unavailable` without a leader in time.
    pub async fn start(
        config: ControlConfig,
        host: Arc<RaftHost>,
        clock: Arc<HybridClock>,
        replicas: Replicas,
    ) -> Result<Control, ControlError> {
        let machine = Arc::new(ControlMachine { datacenter: config.datacenter });
        let started = host.start_group(GroupId::CONTROL, machine, config.members.clone()).await;
        let group = started.map_err(|error| ControlError::Unavailable { reason: format!("start: {error}") })?;
        let damaged = |error: crate::records::RowError| ControlError::Damaged { reason: error.to_string() };
        let cache = RegistryCache::new(group.clone()).map_err(damaged)?;
        let wait = Duration::from_millis(config.wait_ms_max);
        let leadership = group.leadership();
        let commands: Arc<dyn ForwardHandler> = Arc::new(CommandsOfOthers { group: group.clone(), wait });
        host.answer_forwarded(GroupId::CONTROL, &commands);
        let route = host.route(GroupId::CONTROL, config.members.clone(), Some(group.clone()));
        let node = config.node;
        let proposing = Arc::new(Proposing { group, route, clock, cache, leadership, node, wait });
        let members = config.mirrors_to.iter().copied().chain([config.datacenter]).collect();
        let datacenter = (config.datacenter, config.datacenter_name.clone());
        let place = Place::new(datacenter, config.node, members, config.liveness.clone(), replicas.clone());
        let writable = Writable::new(place, config.code, proposing.clone(), replicas.clone());
        let (stop, stopping) = watch::channel(false);
        let lost_mirrors = LostMirrors::new(config.repair_after);
        let inner = Arc::new(Inner {
            config,
            proposing,
            writable,
            lost_mirrors,
            keys: Mutex::default(),
            leasing: tokio::sync::Mutex::default(),
            wake: Arc::new(Notify::new()),
            registry_changed: watch::Sender::new(0),
            stop,
            tasks: Mutex::default(),
            _commands: commands,
        });
        let control = Arc::downgrade(&inner);
        replicas.attach(Arc::new(Directory { control, datacenter: inner.config.datacenter_name.clone() }));
        inner.join().await?;
        let maintenance = maintain(Arc::downgrade(&inner), inner.wake.clone(), stopping.clone());
        let following = follow(Arc::downgrade(&inner), inner.proposing.group.applied(), stopping);
        inner.tasks.lock().extend([tokio::spawn(maintenance), tokio::spawn(following)]);
        Ok(Control { inner })
    }

    /// Whether this datacenter's registered nodes and the other members can meet a code, all taken to be there (rule 24).
    ///
    /// # Errors
    /// `Placement` says what is missing.
    pub fn check_code(&self, code: ReplicaCode) -> Result<(), ControlError> {
        Ok(self.inner.writable.place.check(&self.inner.proposing.cache.get(), code)?)
    }

    /// A writable open volume of that code on this node. No round trip in the normal case.
    ///
    /// # Errors
    /// `Placement` says what is missing for the code; `Volume` that no file can be made.
    pub async fn lease_volume(&self, code: ReplicaCode) -> Result<VolumeId, ControlError> {
        if let Some(volume) = self.inner.writable.first(code) {
            return Ok(volume);
        }
        let volume = self.inner.writable.make_first(code).await?;
        self.inner.wake.notify_one(); // the next ones are made ahead of need
        Ok(volume)
    }

    /// A fid that was never issued before, with a fresh cookie. Waits only when a key range runs out faster than the
    /// next one is leased.
    ///
    /// # Errors
    /// Why no keys can be leased.
    pub async fn next_fid(&self, volume: VolumeId) -> Result<Fid, ControlError> {
        Ok(Fid { volume, key: self.inner.next_key().await?, cookie: entropy::cookie() })
    }

    /// The first of `count` needle keys in a row, none of which was ever issued before: for whoever names several needles of
    /// one volume at once. `count` is at most `KEYS_IN_ROW_MAX`.
    ///
    /// # Errors
    /// As `next_fid`.
    pub async fn next_keys(&self, count: u64) -> Result<NeedleKey, ControlError> {
        assert!(count <= KEYS_IN_ROW_MAX, "more keys in a row than a lease surely has");
        self.inner.next_keys(count).await
    }

    /// An append to the volume failed or it is full: it is leased no more as of now, and sealed in the background.
    /// A volume that is not in use here is left as it is.
    pub async fn report_failed(&self, volume: VolumeId) {
        self.inner.report_failed(volume);
    }

    /// Every volume of this datacenter, by id.
    pub fn volumes(&self) -> Vec<VolumeRecord> {
        self.inner.proposing.cache.get().volumes.clone()
    }

    pub fn volume(&self, volume: VolumeId) -> Option<VolumeRecord> {
        self.inner.proposing.cache.get().volume(volume).cloned()
    }

    /// Commits that no later volume is created at or below `t`; returns the closed timestamp, at least `t` (rule 13).
    /// Without a round trip when it is closed that far. When to close is the replication driver's business.
    ///
    /// # Errors
    /// As any command; it may be repeated after any.
    pub async fn close_registry(&self, t: Timestamp) -> Result<Timestamp, ControlError> {
        let closed = self.registry_closed();
        if closed >= t {
            return Ok(closed);
        }
        self.inner.proposing.clock.observe(t);
        match self.inner.proposing.propose(Command::CloseRegistry { at: t }).await? {
            Response::Closed(closed) => Ok(closed),
            other => Err(senseless(other)),
        }
    }

    /// All volumes that hold, or will ever hold, anything stamped at or below it are in `volumes()` called after it;
    /// use `registry` for both of one moment.
    pub fn registry_closed(&self) -> Timestamp {
        self.inner.proposing.cache.get().state.registry_closed
    }

    /// The volumes and the registry's closed timestamp of one moment: what a peer is told (rule 13).
    pub fn registry(&self) -> (Vec<VolumeRecord>, Timestamp) {
        let registry = self.inner.proposing.cache.get();
        (registry.volumes.clone(), registry.state.registry_closed)
    }

    /// Commits what this node has of all sources in one command; each figure only moves forward. Also closes the
    /// registry.
    ///
    /// # Errors
    /// As any command; it may be repeated after any.
    pub async fn report_watermarks(&self, mut reports: Vec<NodeReport>) -> Result<(), ControlError> {
        for held in reports.iter_mut().filter_map(|report| report.held.as_mut()) {
            held.truncate(held.floor_char_boundary(HELD_REASON_LENGTH_MAX));
        }
        // The close rides along for the price of nothing; without a stamp the reports go alone.
        let close = self.inner.proposing.stamp().await.ok();
        let (node, partitions) = (self.inner.config.node, self.inner.config.partitions);
        match self.inner.proposing.propose(Command::Report { node, partitions, reports, close }).await? {
            Response::Reported => Ok(()),
            other => Err(senseless(other)),
        }
    }

    /// The node that was given the mirror of another datacenter's volume.
    pub fn mirror_node(&self, volume: VolumeId) -> Option<NodeId> {
        self.inner.proposing.cache.get().mirrors.get(&volume).copied()
    }

    /// Every mirror here, by volume, with the node that holds it.
    pub fn mirrors(&self) -> BTreeMap<VolumeId, NodeId> {
        self.inner.proposing.cache.get().mirrors.clone()
    }

    /// How often mirrors of a source were moved to this node, for its next report: to be read before `mirrors`, from which
    /// the report's watermark is then computed (rule 13).
    pub fn mirror_moves(&self, source: DatacenterId) -> u64 {
        let registry = self.inner.proposing.cache.get();
        registry.moves.get(&(source, self.inner.config.node)).copied().unwrap_or(0)
    }

    /// Gives each of these mirrors that no node has to the live node with the fewest, and returns once that is visible
    /// here. Who was given one before keeps it.
    ///
    /// # Errors
    /// As any command; it may be repeated after any.
    pub async fn assign_mirrors(&self, volumes: &[VolumeId]) -> Result<(), ControlError> {
        let registry = self.inner.proposing.cache.get();
        let missing = volumes.iter().copied().filter(|volume| !registry.mirrors.contains_key(volume));
        let given = share_out(&registry, &self.inner.config.liveness, missing)?;
        for (node, volumes) in given {
            for volumes in volumes.chunks(MIRRORS_IN_COMMAND_MAX) {
                let command = Command::AssignMirrors { volumes: volumes.to_vec(), node };
                match self.inner.proposing.propose(command).await? {
                    Response::MirrorsAssigned => {}
                    other => return Err(senseless(other)),
                }
            }
        }
        Ok(())
    }

    /// Whether a node takes further volumes and mirrors. What it holds stays there.
    ///
    /// # Errors
    /// `NoSuchNode`, and as any command; it may be repeated after any.
    pub async fn drain(&self, node: NodeId, draining: bool) -> Result<NodeRecord, ControlError> {
        match self.inner.proposing.propose(Command::DrainNode { node, draining }).await? {
            Response::Node(record) => Ok(record),
            Response::Refused(Refusal::NoSuchNode(node)) => Err(ControlError::NoSuchNode { node }),
            other => Err(senseless(other)),
        }
    }

    /// Whether a datacenter is a member of the cluster.
    pub fn is_member(&self, datacenter: DatacenterId) -> bool {
        let config = &self.inner.config;
        datacenter == config.datacenter || config.mirrors_to.contains(&datacenter)
    }

    /// Whether gossip hears of a node.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.inner.config.liveness.is_live(node)
    }

    /// Whether this node leads the group.
    pub fn is_leader(&self) -> bool {
        self.inner.proposing.leadership.borrow().serving
    }

    /// The committed reports, by source (rule 27).
    pub fn watermarks(&self) -> Vec<WatermarkReport> {
        self.inner.proposing.cache.get().watermarks.clone()
    }

    /// Remembers a peer's boot; refuses one that went back in the same incarnation (rule 7). The same one again is
    /// allowed: a peer says hello on every connection.
    ///
    /// # Errors
    /// `PeerWentBack`: the peer must not be served.
    pub async fn register_peer(&self, peer: PeerRecord) -> Result<PeerRecord, ControlError> {
        let (datacenter, boot_counter) = (peer.datacenter, peer.boot_counter);
        if self.inner.proposing.cache.get().peers.contains(&peer) {
            return Ok(peer);
        }
        match self.inner.proposing.propose(Command::RegisterPeer(peer)).await? {
            Response::PeerRegistered(peer) => Ok(peer),
            Response::Refused(Refusal::PeerWentBack { registered }) => {
                Err(ControlError::PeerWentBack { datacenter, registered, given: boot_counter })
            }
            other => Err(senseless(other)),
        }
    }

    /// The peer datacenters as they last said of themselves.
    pub fn peers(&self) -> Vec<PeerRecord> {
        self.inner.proposing.cache.get().peers.clone()
    }

    /// This datacenter's own boot counter, which it tells its peers: raised by each registration of a node.
    pub fn boot_counter(&self) -> u64 {
        self.inner.proposing.cache.get().state.boot_counter
    }

    pub fn nodes(&self) -> Vec<NodeRecord> {
        self.inner.proposing.cache.get().nodes.clone()
    }

    /// The leader that this node knows of, and the term.
    pub fn leader(&self) -> Option<(NodeId, u64)> {
        let Leadership { leader, term, .. } = *self.inner.proposing.leadership.borrow();
        Some((leader?, term))
    }

    /// Bumped by every applied command, watermark reports included.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.proposing.group.applied()
    }

    /// Bumped only when a volume's record or the registry's closed timestamp moved.
    pub fn registry_changed(&self) -> watch::Receiver<u64> {
        self.inner.registry_changed.subscribe()
    }

    /// Whether the group has a leader and a volume of the default code takes appends.
    pub fn ready(&self) -> bool {
        self.inner.proposing.is_led() && self.inner.writable.first(self.inner.config.code).is_some()
    }

    /// Ends the background tasks.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of control has panicked");
            }
        }
    }
}

impl Inner {
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.proposing.cache.get()
    }

    pub(crate) fn report_failed(&self, volume: VolumeId) {
        self.writable.retire(volume);
        self.wake.notify_one();
    }

    /// The order of a start: look at the files, lead, register, check the files, and only then lease and create.
    async fn join(&self) -> Result<(), ControlError> {
        let files = self.writable.own_files();
        self.proposing.led(Duration::from_millis(self.config.join_wait_ms_max)).await?;
        // Answered and applied here: from now on this node's view is as recent as its registration.
        self.register_node().await?;
        self.renew().await?;
        let registry = self.proposing.cache.get();
        self.proposing.clock.observe(registry.state.registry_closed);
        self.writable.check_files(&files)?;
        self.lease_keys().await?;
        if let Err(error) = self.writable.grow_all().await {
            tracing::warn!(%error, "no volumes are ready yet");
        }
        Ok(())
    }

    /// Rule 7. The session lets a registration of unknown outcome be repeated without looking like a second boot.
    async fn register_node(&self) -> Result<(), ControlError> {
        let ControlConfig { node, node_info: info, boot_counter, .. } = &self.config;
        let (node, boot_counter, session) = (*node, *boot_counter, entropy::request_id());
        let deadline = Instant::now() + Duration::from_millis(self.config.join_wait_ms_max);
        loop {
            let command = Command::RegisterNode { node, info: info.clone(), boot_counter, session };
            match self.proposing.propose(command).await {
                Ok(Response::NodeRegistered { .. }) => return Ok(()),
                Ok(Response::Refused(Refusal::BootCounterWentBack { registered })) => {
                    return Err(ControlError::BootCounterWentBack { node, registered, given: boot_counter });
                }
                Ok(other) => return Err(senseless(other)),
                Err(ControlError::Unknown | ControlError::NotLeader { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(REGISTER_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Rules 3, 7: before anything is created or issued again.
    async fn renew(&self) -> Result<(), ControlError> {
        let Some(incarnation) = self.config.renewal else { return Ok(()) };
        match self.proposing.propose(Command::Renew { node: self.config.node, incarnation }).await? {
            Response::Renewed => Ok(()),
            other => Err(senseless(other)),
        }
    }

    async fn next_key(&self) -> Result<NeedleKey, ControlError> {
        self.next_keys(1).await
    }

    async fn next_keys(&self, count: u64) -> Result<NeedleKey, ControlError> {
        if let Some(key) = self.take_keys(count) {
            return Ok(key);
        }
        let _leasing = self.leasing.lock().await;
        loop {
            if let Some(key) = self.take_keys(count) {
                return Ok(key);
            }
            self.lease_keys().await?;
        }
    }

    fn take_keys(&self, count: u64) -> Option<NeedleKey> {
        let mut keys = self.keys.lock();
        let key = if count == 1 { keys.next() } else { keys.take(count) }?;
        if keys.wants_more() {
            self.wake.notify_one();
        }
        Some(key)
    }

    async fn lease_keys(&self) -> Result<(), ControlError> {
        let command = Command::LeaseKeys { node: self.config.node, count: KEYS_IN_LEASE_MAX };
        match self.proposing.propose(command).await? {
            Response::Keys { first, count } => {
                self.keys.lock().add(first, count);
                Ok(())
            }
            other => Err(senseless(other)),
        }
    }

    /// One round of the background work. What fails is tried again in the next.
    async fn maintain(&self) {
        if !self.proposing.is_led() {
            return;
        }
        if self.proposing.leadership.borrow().serving {
            self.writable.retire_orphans();
        }
        self.writable.seal_retired().await;
        if let Err(error) = self.writable.grow_all().await {
            tracing::warn!(%error, "no further volume is ready");
        }
        self.writable.reconcile().await;
        if !self.proposing.leadership.borrow().serving {
            self.lost_mirrors.forget();
        } else if let Err(error) = self.lost_mirrors.give_away(&self.proposing, &self.config.liveness).await {
            tracing::warn!(%error, "mirrors of a node that is gone are not given away yet");
        }
        let wants_keys = self.keys.lock().wants_more();
        if wants_keys && let Err(error) = self.lease_keys().await {
            tracing::warn!(%error, "no needle keys in reserve");
        }
    }
}

/// Looks after volumes and keys until `stop` is set or the last handle is gone.
async fn maintain(inner: Weak<Inner>, wake: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = strong.maintain() => {}
        }
        drop(strong);
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
        }
    }
}

/// Tells the followers of the registry when it has changed, and only then.
async fn follow(inner: Weak<Inner>, mut applied: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
    loop {
        match inner.upgrade() {
            None => return,
            Some(inner) => {
                let version = inner.proposing.cache.get().state.registry_version;
                inner.registry_changed.send_if_modified(|known| std::mem::replace(known, version) != version);
            }
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}

/// Returns once `stop` is set or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}
