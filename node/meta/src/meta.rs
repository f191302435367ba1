//! `Meta`: every partition of this node behind one handle.
//!
//! What it is for: starting the groups with their tasks, and finding the partition of a call. The order of stamps is
//! `proposer`'s business, closed timestamps are `closing`'s.
//!
//! Invariants: the clock has observed what every partition holds on this node before `start` returns; the background
//! tasks end with `shutdown`, or with the last handle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use meridian_env::HybridClock;
use meridian_index::{Command, FenceAttempt, IndexMachine, Operation, Outcome, RemoteOutcome, Response, queries};
use meridian_raft::{ForwardHandler, GroupMembers, Leadership, RaftHost, ReadView};
use meridian_replicator::{Batch, StableTimes};
use meridian_store::{GroupId, GroupView};
use meridian_types::{BucketId, DatacenterId, Incarnation, NodeId, PartitionId, RequestId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::MetaError;
use crate::closing::{Closing, stopped};
use crate::proposer::{EntryCommand, Proposer};
use crate::slot::{PROPOSALS_WAITING_MAX, Slot};

/// The pause before a partition that is not led yet is asked again for a new incarnation.
const RAISE_PAUSE: Duration = Duration::from_millis(50);

/// How the partitions of this node are run.
#[derive(Debug, Clone)]
pub struct MetaConfig {
    pub datacenter: DatacenterId,
    /// The cluster's P, without the catalog.
    pub partitions: u16,
    /// The members of each partition's group, partition p at p.
    pub groups: Vec<GroupMembers>,
    /// Those of the catalog's.
    pub catalog: GroupMembers,
    /// Partitions are closed at most this long after something happened in one of them.
    pub closed_interval_ms: u64,
    /// And this often when nothing at all happens.
    pub closed_interval_idle_ms: u64,
    /// The longest that a call waits: for its stamp, its commit, or a confirmed leader.
    pub propose_wait_ms_max: u64,
}

impl MetaConfig {
    /// Every group on the same members, and the defaults: 1 s, 3 s, 5 s.
    pub fn new(datacenter: DatacenterId, partitions: u16, members: BTreeSet<NodeId>) -> Self {
        let members = GroupMembers::from(members);
        Self::placed(datacenter, vec![members.clone(); usize::from(partitions)], members)
    }

    /// Each group on members of its own; P is the number of `groups`, at most `PARTITIONS_MAX`.
    pub fn placed(datacenter: DatacenterId, groups: Vec<GroupMembers>, catalog: GroupMembers) -> Self {
        let partitions = u16::try_from(groups.len()).expect("at most PARTITIONS_MAX partitions");
        Self {
            datacenter,
            partitions,
            groups,
            catalog,
            closed_interval_ms: 1000,
            closed_interval_idle_ms: 3000,
            propose_wait_ms_max: 5000,
        }
    }
}

/// The partitions and the catalog of this node; clones share them.
#[derive(Clone)]
pub struct Meta {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    /// Partition p at p, the catalog last.
    slots: Vec<Slot>,
    partitions: u16,
    /// Answer what other nodes forward; the host knows them only as long as they are here.
    _handlers: Vec<Arc<dyn ForwardHandler>>,
    advanced: Arc<watch::Sender<u64>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Meta {
    /// Starts (or bootstraps) every group and its proposer. Leaders are elected in the background: see `ready`.
    ///
    /// # Errors
    /// `Unavailable` when a group does not start, `Damaged` when its state can't be read.
    pub async fn start(config: MetaConfig, host: Arc<RaftHost>, clock: Arc<HybridClock>) -> Result<Meta, MetaError> {
        assert!(config.partitions > 0, "a cluster has at least one partition");
        let wait = Duration::from_millis(config.propose_wait_ms_max);
        let (stop, stopping) = watch::channel(false);
        let advanced = Arc::new(watch::Sender::new(0));
        let activity = Arc::new(Notify::new());
        let (mut slots, mut tasks, mut handlers) = (Vec::new(), Vec::new(), Vec::new());
        for partition in all_partitions(config.partitions) {
            let datacenter = config.datacenter;
            let members = if partition.is_catalog() {
                config.catalog.clone()
            } else {
                config.groups[usize::from(partition.0)].clone()
            };
            let id = GroupId::partition(partition);
            if !members.holds(host.node()) {
                slots.push(Slot::new(partition, host.route(id, members, None), None, wait));
                continue;
            }
            let machine = Arc::new(IndexMachine { datacenter, partition });
            let started = host.start_group(id, machine, members.clone()).await;
            let group =
                started.map_err(|error| MetaError::Unavailable { partition, reason: format!("start: {error}") })?;
            let state = queries::state(&group.view())
                .map_err(|error| MetaError::Damaged { partition, reason: error.to_string() })?;
            clock.observe(state.greatest);

            let (sender, queue) = mpsc::channel(PROPOSALS_WAITING_MAX);
            let proposer = Proposer::new(
                datacenter,
                partition,
                group.clone(),
                clock.clone(),
                queue,
                activity.clone(),
                stopping.clone(),
            );
            tasks.push(tokio::spawn(proposer.run()));
            tasks.push(tokio::spawn(follow(group.applied(), advanced.clone(), stopping.clone())));
            let slot = Slot::new(partition, host.route(id, members, Some(group)), Some(sender), wait);
            let handler: Arc<dyn ForwardHandler> = Arc::new(slot.clone());
            host.answer_forwarded(id, &handler);
            handlers.push(handler);
            slots.push(slot);
        }
        let closing = Closing {
            slots: slots.clone(),
            clock,
            activity,
            interval: Duration::from_millis(config.closed_interval_ms),
            interval_idle: Duration::from_millis(config.closed_interval_idle_ms),
            stop: stopping,
        };
        tasks.push(tokio::spawn(closing.run()));
        let partitions = config.partitions;
        let inner = Inner {
            node: host.node(),
            slots,
            partitions,
            _handlers: handlers,
            advanced,
            stop,
            tasks: Mutex::new(tasks),
        };
        Ok(Meta { inner: Arc::new(inner) })
    }

    /// Stamps and proposes one operation, and returns what `apply` made of it. `seen` is the greatest stamp of the
    /// chunks that the operation names (`Timestamp::ZERO` without any): observed before stamping (rule 13).
    /// Never returns `Outcome::Restamp`.
    ///
    /// # Errors
    /// See `MetaError`: after `Unknown` the same `request` may be proposed again, and only it (rule 11).
    pub async fn propose(
        &self,
        partition: PartitionId,
        request: RequestId,
        operation: Operation,
        seen: Timestamp,
    ) -> Result<Outcome, MetaError> {
        // Boxed: the futures above it are deep already.
        self.slot(partition)?.propose(request, operation, seen).boxed().await
    }

    /// A linearizable view: everything acknowledged before this call is in it. Of the replica here once it has applied
    /// what the leader's read index says; without a replica, of the leader's.
    ///
    /// # Errors
    /// `NotLeader`, `Unavailable`, `Stopped`.
    pub async fn read(&self, partition: PartitionId) -> Result<ReadView, MetaError> {
        self.slot(partition)?.read().boxed().await
    }

    /// What this node has applied, without asking the leader.
    ///
    /// # Errors
    /// `NoSuchPartition`, `NotHere`.
    pub fn local_view(&self, partition: PartitionId) -> Result<GroupView, MetaError> {
        Ok(self.slot(partition)?.group()?.view())
    }

    /// Whether this node has a replica of the partition.
    pub fn is_here(&self, partition: PartitionId) -> bool {
        self.slot(partition).is_ok_and(|slot| slot.group().is_ok())
    }

    /// Proposes a batch of another datacenter's log; the clock observes its greatest stamp first (rule 9).
    ///
    /// # Errors
    /// `Skewed` leaves it unproposed. After `Unknown` the same batch may be given again: `apply` ignores one that is
    /// not the next (rule 12).
    pub async fn apply_remote(&self, partition: PartitionId, batch: Batch) -> Result<RemoteOutcome, MetaError> {
        let slot = self.slot(partition)?;
        match slot.propose_entry(EntryCommand::Remote(batch)).await? {
            Response::Remote(outcome) => Ok(outcome),
            other => Err(slot.senseless("a batch", &other)),
        }
    }

    /// Commits that no later mutation of this partition is stamped at or below `at`; returns the closed timestamp,
    /// which is at least `at` (rules 9, 13).
    ///
    /// # Errors
    /// As `propose`; it may be repeated after any.
    pub async fn close(&self, partition: PartitionId, at: Timestamp) -> Result<Timestamp, MetaError> {
        self.slot(partition)?.close(at).await
    }

    /// `close` for every partition and the catalog at once; one sync serves all.
    ///
    /// # Errors
    /// The first partition's that could not be closed.
    pub async fn close_all(&self, at: Timestamp) -> Result<(), MetaError> {
        futures::future::try_join_all(self.inner.slots.iter().map(|slot| slot.close(at))).await.map(|_| ())
    }

    /// Commits what every member has, and releases what that has passed (rules 14, 16). True: more is due, ask again.
    ///
    /// # Errors
    /// As `propose`; it may be repeated after any.
    pub async fn stable(&self, partition: PartitionId, times: StableTimes) -> Result<bool, MetaError> {
        let slot = self.slot(partition)?;
        match slot.propose_entry(EntryCommand::Plain(Command::Stable(times))).await? {
            Response::Stable { more } => Ok(more),
            other => Err(slot.senseless("stable times", &other)),
        }
    }

    /// Starts a new incarnation of this datacenter's logs in every partition that this node leads (rule 7), waiting for it
    /// to lead them for at most `wait`. A lower or equal one changes nothing.
    ///
    /// # Errors
    /// The first partition's that could not be raised; it may be repeated after any.
    pub async fn raise_incarnation(&self, to: Incarnation, wait: Duration) -> Result<(), MetaError> {
        let until = tokio::time::Instant::now() + wait;
        for slot in &self.inner.slots {
            loop {
                let raised = slot.propose_entry(EntryCommand::Plain(Command::RaiseIncarnation { to })).await;
                match raised {
                    Ok(Response::Done) => break,
                    Ok(other) => return Err(slot.senseless("a new incarnation", &other)),
                    // An election is under way.
                    Err(MetaError::NotLeader { .. } | MetaError::Unknown { .. })
                        if tokio::time::Instant::now() < until =>
                    {
                        tokio::time::sleep(RAISE_PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Raises or lifts one attempt's fence of a bucket in one partition (rule 18).
    ///
    /// # Errors
    /// As `propose`; it may be repeated after any.
    pub async fn fence(
        &self,
        partition: PartitionId,
        bucket: BucketId,
        attempt: FenceAttempt,
        raised: bool,
    ) -> Result<(), MetaError> {
        self.slot(partition)?.fence(bucket, attempt, raised).await
    }

    /// Every partition, the catalog last.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        all_partitions(self.inner.partitions)
    }

    /// The cluster's P, without the catalog.
    pub fn partition_count(&self) -> u16 {
        self.inner.partitions
    }

    /// Bumped whenever this node has applied anything in any partition: a log, a cursor or a closed timestamp moved.
    pub fn advanced(&self) -> watch::Receiver<u64> {
        self.inner.advanced.subscribe()
    }

    /// How much this node has applied in one partition; a partition whose number has not moved has no news.
    ///
    /// # Errors
    /// `NoSuchPartition`.
    pub fn applied(&self, partition: PartitionId) -> Result<u64, MetaError> {
        Ok(*self.slot(partition)?.group()?.applied().borrow())
    }

    /// Whether this node leads the partition and may stamp (rule 9).
    pub fn serving(&self, partition: PartitionId) -> bool {
        self.slot(partition).is_ok_and(Slot::is_serving)
    }

    /// The leader that this node knows of, and the term.
    pub fn leader(&self, partition: PartitionId) -> Option<(NodeId, u64)> {
        let Leadership { leader, term, .. } = *self.slot(partition).ok()?.group().ok()?.leadership().borrow();
        Some((leader?, term))
    }

    /// Whether every partition that has a replica here, and the catalog, has a leader that this node knows of, which
    /// serves if it is this one. Partitions elsewhere are asked for when they are needed.
    pub fn ready(&self) -> bool {
        self.inner.slots.iter().filter_map(|slot| slot.group().ok().zip(Some(slot))).all(|(group, slot)| {
            let leader = group.leadership().borrow().leader;
            slot.is_serving() || leader.is_some_and(|leader| leader != self.inner.node)
        })
    }

    /// Ends the background tasks; waiting proposals get `Stopped`, those in flight `Unknown`.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the object index has panicked");
            }
        }
    }

    fn slot(&self, partition: PartitionId) -> Result<&Slot, MetaError> {
        let found = if partition.is_catalog() {
            self.inner.slots.last()
        } else if partition.0 < self.inner.partitions {
            self.inner.slots.get(usize::from(partition.0))
        } else {
            None
        };
        found.ok_or(MetaError::NoSuchPartition { partition })
    }
}

fn all_partitions(count: u16) -> impl Iterator<Item = PartitionId> + use<> {
    (0..count).map(PartitionId).chain([PartitionId::CATALOG])
}

/// Bumps `advanced` with everything that a group applies.
async fn follow(mut applied: watch::Receiver<u64>, advanced: Arc<watch::Sender<u64>>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = applied.changed() => match changed {
                Ok(()) => advanced.send_modify(|count| *count += 1),
                Err(_) => return, // the group is gone
            },
        }
    }
}
