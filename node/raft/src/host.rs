//! The raft groups of one node: starts them, finds them for peers' messages, stops them.
//!
//! Invariants: a group runs at most once; a group with a log is never bootstrapped again; after `shutdown` no task of a
//! group holds the store.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meridian_index::Machine;
use meridian_store::{GroupId, Store};
use meridian_types::NodeId;
use meridian_wire::common::Caller;
use meridian_wire::raft::raft_server::RaftServer;
use meridian_wire::{CallerError, LocalNode, Members, Peer, Shown};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::error::RaftError;
use crate::forward::ForwardHandler;
use crate::group::Group;
use crate::held_views::HeldViews;
use crate::homing;
use crate::leadership::{self, Leadership};
use crate::log_store::LogStore;
use crate::members::GroupMembers;
use crate::network::Network;
use crate::route::Route;
use crate::service::RaftService;
use crate::state::{Progress, StateMachine};
use crate::trim::{self, LogSize};
use crate::types::Raft;

/// Proposals of one group that may wait for it.
const PROPOSALS_QUEUED_MAX: u64 = 8192;
/// Entries in one message to a follower; its bytes are limited by the log's reader.
const ENTRIES_IN_MESSAGE_MAX: u64 = 512;
/// How long a stopping group may take to let go of the store.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(10);
/// The pause before a learner that was not let in is tried again.
const ENLIST_PAUSE: Duration = Duration::from_millis(500);
/// How long a node that stops waits until others lead its groups.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Waits before a peer that can't be reached is tried again.
const BACKOFF: &str = "100ms 200ms 400ms ...2s";

/// Channels to the other nodes of the datacenter.
pub trait PeerChannels: Send + Sync + 'static {
    /// The channel to `node`, or `None` while its address is unknown. Called for each message: keep it cheap.
    fn channel(&self, node: NodeId) -> Option<Channel>;
}

/// Settings that all groups of a node share.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// This node; its id is its raft id in every group.
    pub local: LocalNode,
    /// Who may call, by certificate; without them a caller is believed, as in tests of one process.
    pub members: Option<Members>,
    /// How often a leader with followers makes itself heard, ms. Also the deadline of a message.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a random time between these two stands for election, ms.
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// A snapshot after so many entries since the last one. It is a handle and costs nothing until it is sent.
    pub snapshot_entries: u64,
    /// Entries that a snapshot covers and that stay in the log for followers that lag a little.
    pub log_entries_kept: u64,
    /// The log is trimmed early when so many bytes have been appended since the last time.
    pub log_bytes_max: u64,
}

impl HostConfig {
    pub fn new(local: LocalNode) -> Self {
        Self {
            local,
            members: None,
            heartbeat_ms: 1000,
            election_ms_min: 2500,
            election_ms_max: 5000,
            snapshot_entries: 5000,
            log_entries_kept: 1000,
            log_bytes_max: 64 << 20,
        }
    }

    fn openraft(&self, group: GroupId) -> Result<Arc<Config>, RaftError> {
        let config = Config {
            cluster_name: format!("{}/{group}", self.local.cluster),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.log_entries_kept,
            // Above `snapshot_entries`: a follower is sent a snapshot only when the entries it needs are gone.
            replication_lag_threshold: self.snapshot_entries.saturating_mul(4),
            max_payload_entries: ENTRIES_IN_MESSAGE_MAX,
            api_channel_size: Some(PROPOSALS_QUEUED_MAX),
            enable_pre_vote: Some(true),
            // What was applied is not synced, so that a leader that comes back may have forgotten how far it was:
            // it wins a new term first, and applies an entry of that term before it serves (rule 9).
            enable_leader_restore: Some(false),
            // Rule 7: a log that went back in time is never forgiven.
            allow_log_reversion: Some(false),
            backoff: BACKOFF.to_owned(),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| RaftError::Config { reason: error.to_string() })
    }
}

/// The raft groups of one node.
pub struct RaftHost {
    config: HostConfig,
    store: Store,
    channels: Arc<dyn PeerChannels>,
    groups: Mutex<Groups>,
    /// Who answers forwarded requests, by group. Weak: the owners hold groups of this host.
    handlers: Mutex<BTreeMap<GroupId, Weak<dyn ForwardHandler>>>,
    pub(crate) views: HeldViews,
}

#[derive(Default)]
struct Groups {
    /// `None` while a group is being started.
    running: BTreeMap<GroupId, Option<Running>>,
    stopped: bool,
}

struct Running {
    raft: Raft,
    tasks: Vec<AbortHandle>,
    /// Closed when log and state machine have let go of the store.
    released: mpsc::Receiver<Infallible>,
}

impl Running {
    async fn stop(mut self, group: GroupId) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%group, %error, "the group did not stop cleanly");
        }
        self.tasks.drain(..).for_each(|task| task.abort());
        if tokio::time::timeout(RELEASE_WAIT_MAX, self.released.recv()).await.is_err() {
            tracing::error!(%group, "the group still holds the store");
        }
    }
}

/// A group's place in the map while it is being started, given back should the start be given up.
struct Reservation<'h> {
    host: &'h RaftHost,
    group: GroupId,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut groups = self.host.groups.lock();
        if let Some(None) = groups.running.get(&self.group) {
            groups.running.remove(&self.group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl RaftHost {
    pub fn new(config: HostConfig, store: Store, channels: Arc<dyn PeerChannels>) -> Arc<Self> {
        let (groups, handlers, views) = (Mutex::default(), Mutex::default(), HeldViews::default());
        Arc::new(Self { config, store, channels, groups, handlers, views })
    }

    /// This node; its id is its raft id in every group.
    pub fn node(&self) -> NodeId {
        self.config.local.node
    }

    /// How a group is reached from here; `here` is the replica of this node, if it has one.
    pub fn route(&self, group: GroupId, members: GroupMembers, here: Option<Group>) -> Route {
        Route::new(self.config.local, group, members, self.channels.clone(), here)
    }

    /// From now on requests that other nodes forward for `group` are answered by `handler`, as long as it lives.
    pub fn answer_forwarded(&self, group: GroupId, handler: &Arc<dyn ForwardHandler>) {
        self.handlers.lock().insert(group, Arc::downgrade(handler));
    }

    pub(crate) fn handler(&self, group: GroupId) -> Option<Arc<dyn ForwardHandler>> {
        self.handlers.lock().get(&group)?.upgrade()
    }

    /// Starts a group: bootstraps an empty one with `members`, else restarts it with what it has. All members must be
    /// given the same. Learners join as soon as the leader has let them in. Returns before anybody leads.
    ///
    /// # Errors
    /// `NotAMember`, `Running`, `Config`, `Stopped`; `Store` and `Start` when what is stored does not read back.
    pub async fn start_group(
        self: &Arc<Self>,
        group: GroupId,
        machine: Arc<dyn Machine>,
        members: impl Into<GroupMembers>,
    ) -> Result<Group, RaftError> {
        let members = members.into();
        let node = self.config.local.node;
        if !members.holds(node) {
            return Err(RaftError::NotAMember { group, node });
        }
        let reservation = self.reserve(group)?;
        let started = self.start_reserved(group, machine, members).await;
        drop(reservation);
        let leftover = {
            let mut groups = self.groups.lock();
            // Shut down meanwhile, perhaps before the group was in the map.
            if groups.stopped || started.is_err() { groups.running.remove(&group).flatten() } else { None }
        };
        if let Some(running) = leftover {
            running.stop(group).await;
            started?;
            return Err(RaftError::Stopped);
        }
        started
    }

    fn reserve(&self, group: GroupId) -> Result<Reservation<'_>, RaftError> {
        let mut groups = self.groups.lock();
        if groups.stopped {
            return Err(RaftError::Stopped);
        }
        if groups.running.contains_key(&group) {
            return Err(RaftError::Running { group });
        }
        groups.running.insert(group, None);
        Ok(Reservation { host: self, group })
    }

    async fn start_reserved(
        &self,
        group: GroupId,
        machine: Arc<dyn Machine>,
        members: GroupMembers,
    ) -> Result<Group, RaftError> {
        let failed = |error: &dyn std::fmt::Display| RaftError::Start { group, reason: error.to_string() };
        let config = self.config.openraft(group)?;
        let (progress, size) = (Progress::new(), LogSize::new(self.config.log_bytes_max));
        let (applied, applied_term) = (progress.index.subscribe(), progress.term.subscribe());
        let (hold, released) = mpsc::channel(1);
        let log = LogStore::new(self.store.clone(), group, size.clone(), hold.clone());
        let state = StateMachine::open(self.store.clone(), group, machine, progress, hold);
        let state = state.map_err(|error| failed(&error))?;
        let network = Network { local: self.config.local, group, channels: self.channels.clone() };
        let id = u64::from(self.config.local.node.0);
        let raft = Raft::new(id, config, network, log, state).await.map_err(|error| failed(&error))?;
        let (publish, leadership) = watch::channel(Leadership::default());
        let mut tasks = vec![
            tokio::spawn(leadership::follow(raft.clone(), applied_term, publish)).abort_handle(),
            tokio::spawn(trim::run(group, raft.clone(), size)).abort_handle(),
        ];
        if !members.learners().is_empty() && members.voters().contains(&self.config.local.node) {
            let learners = members.learners().clone();
            tasks.push(tokio::spawn(enlist(group, raft.clone(), learners, leadership.clone())).abort_handle());
        }
        if members.first() != self.config.local.node && members.voters().contains(&self.config.local.node) {
            let (home, leadership) = (members.first(), leadership.clone());
            let bring_home = homing::bring_home(group, raft.clone(), home, self.heartbeat(), leadership);
            tasks.push(tokio::spawn(bring_home).abort_handle());
        }
        // Known to peers before it stands for election: their answers find it.
        let initialized = raft.is_initialized().await.map_err(|error| failed(&error))?;
        let (voters, is_first) = (members.voters(), members.first() == self.config.local.node);
        if !initialized && !is_first && voters.contains(&self.config.local.node) {
            let wait = Duration::from_millis(self.config.election_ms_max);
            tasks.push(tokio::spawn(bootstrap_late(group, raft.clone(), voters.clone(), wait)).abort_handle());
        }
        self.groups.lock().running.insert(group, Some(Running { raft: raft.clone(), tasks, released }));
        if !initialized && is_first {
            bootstrap(&raft, voters).await.map_err(|reason| RaftError::Start { group, reason })?;
        } else if initialized && is_only_voter(&raft, id).await.map_err(|error| failed(&error))? {
            // Nobody else can lead: there is no reason to wait for an election timeout.
            raft.trigger().elect(false).await.map_err(|error| failed(&error))?;
        }
        Ok(Group::new(group, raft, self.store.clone(), leadership, applied))
    }

    /// The gRPC service that the other nodes call; add it to the node's server.
    pub fn service(self: &Arc<Self>) -> RaftServer<RaftService> {
        meridian_wire::raft_server(RaftService::new(self.clone()))
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.config.heartbeat_ms)
    }

    /// Gives every group that this node leads to another voter that keeps up, and waits at most `HAND_OVER_MAX` until they are
    /// led there: to be called before a node stops, while it still serves. Groups of one stay.
    pub async fn hand_over(&self) {
        let running: Vec<Raft> =
            self.groups.lock().running.values().flatten().map(|running| running.raft.clone()).collect();
        let heartbeat = self.heartbeat();
        let handed = running.into_iter().map(|raft| async move {
            let Some(to) = homing::hand_over(&raft, heartbeat).await else { return };
            let wait = raft.wait(Some(HAND_OVER_MAX));
            let taken = wait.metrics(
                |metrics| metrics.current_leader.is_some_and(|leader| leader != metrics.id),
                "another node leads",
            );
            if let Err(error) = taken.await {
                tracing::warn!(%to, %error, "a group was not taken over in time");
            }
        });
        futures::future::join_all(handed).await;
    }

    /// Stops all groups, for good. Proposals without an answer end as `Unknown`. When it returns, only the
    /// host itself and `Group`s and views that are still alive hold the store.
    pub async fn shutdown(&self) {
        self.views.clear();
        let running = {
            let mut groups = self.groups.lock();
            groups.stopped = true;
            std::mem::take(&mut groups.running)
        };
        // All at once: each may have to wait for a sync.
        let stops = running.into_iter().filter_map(|(group, running)| Some(running?.stop(group)));
        futures::future::join_all(stops).await;
    }

    /// Who sends a raft message to this node, by its word and by its certificate (rule 19).
    pub(crate) fn check(&self, shown: &Shown, caller: Option<&Caller>, to: u32) -> Result<Peer, CallerError> {
        let peer = self.config.local.check_raft(caller, to)?;
        if let Some(members) = &self.config.members {
            members.check(shown, peer)?;
        }
        Ok(peer)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn raft(&self, group: GroupId) -> Option<Raft> {
        self.groups.lock().running.get(&group)?.as_ref().map(|running| running.raft.clone())
    }
}

async fn is_only_voter(raft: &Raft, id: u64) -> Result<bool, openraft::errors::Fatal<crate::types::TypeConfig>> {
    raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id])).await
}

async fn bootstrap(raft: &Raft, members: &BTreeSet<NodeId>) -> Result<(), String> {
    use openraft::errors::{InitializeError, RaftError};
    let members: BTreeSet<u64> = members.iter().map(|node| u64::from(node.0)).collect();
    match raft.initialize(members).await {
        // Another member has been quicker, and its first entry is the same.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Lets the learners in whenever this node comes to lead the group and one of them is no member yet.
async fn enlist(group: GroupId, raft: Raft, learners: BTreeSet<NodeId>, mut leadership: watch::Receiver<Leadership>) {
    loop {
        if leadership.wait_for(|leadership| leadership.serving).await.is_err() {
            return;
        }
        let known: BTreeSet<u64> = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, ())| *id).collect()
        };
        let missing = learners.iter().map(|node| u64::from(node.0)).find(|node| !known.contains(node));
        match missing {
            None => {
                if leadership.wait_for(|leadership| !leadership.serving).await.is_err() {
                    return;
                }
            }
            Some(node) => {
                if let Err(error) = raft.add_learner(node, (), false).await {
                    tracing::debug!(%group, node, %error, "a learner is not let in yet");
                    tokio::time::sleep(ENLIST_PAUSE).await;
                }
            }
        }
    }
}

/// The first of the voters bootstraps at once and is elected at once; the others step in only when it stays
/// silent, so that the first election has one candidate.
async fn bootstrap_late(group: GroupId, raft: Raft, members: BTreeSet<NodeId>, wait: Duration) {
    tokio::time::sleep(wait).await;
    if let Err(reason) = bootstrap(&raft, &members).await {
        tracing::error!(%group, reason, "could not bootstrap the group");
    }
}

#[cfg(test)]
mod tests;
