//! A group as any node of its datacenter reaches it: as its leader, as another replica, or without one.
//!
//! What it is for: finding the leader, handing it requests, and reads that see everything acknowledged before them.
//! What it does not do: retry a request whose outcome is unknown; that is its owner's, under a request id (rule 11).
//!
//! Invariants: every call has a deadline; a request is sent to one node at most; a read index is taken after the read
//! has arrived, and one answer serves all reads that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meridian_store::{GroupId, GroupView};
use meridian_types::NodeId;
use meridian_wire::raft::{ForwardRequest, GroupRefusal, GroupRequest};
use meridian_wire::{LocalNode, call, raft_client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::error::{ForwardError, ReadError};
use crate::group::Group;
use crate::host::PeerChannels;
use crate::leadership::Leadership;
use crate::members::GroupMembers;
use crate::remote_view::{ReadView, RemoteView};

/// Deadline of one question to a leader: longer than a busy node takes, shorter than a client waits.
const READ_INDEX_DEADLINE: Duration = Duration::from_millis(1500);
/// The pause before a leader is looked for again.
const LEADER_PAUSE: Duration = Duration::from_millis(40);

/// Reaches one group. Cheap to clone.
#[derive(Clone)]
pub struct Route {
    inner: Arc<Inner>,
}

struct Inner {
    local: LocalNode,
    group: GroupId,
    members: GroupMembers,
    channels: Arc<dyn PeerChannels>,
    /// The replica here.
    here: Option<Group>,
    /// Without a replica here: who answered as the leader last, or should be asked next.
    hint: Mutex<NodeId>,
    /// Reads that have arrived, and up to which one an index has been taken.
    arrived: AtomicU64,
    confirmed: tokio::sync::Mutex<Confirmed>,
}

/// The last read index, and the reads that it serves: all that had arrived before it was asked for.
#[derive(Default)]
struct Confirmed {
    through: u64,
    index: u64,
}

/// An owner's answer, and what the answering node had applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    pub body: Bytes,
    pub index: u64,
}

impl Route {
    pub(crate) fn new(
        local: LocalNode,
        group: GroupId,
        members: GroupMembers,
        channels: Arc<dyn PeerChannels>,
        here: Option<Group>,
    ) -> Self {
        let hint = Mutex::new(members.first());
        let (arrived, confirmed) = (AtomicU64::new(0), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { local, group, members, channels, here, hint, arrived, confirmed }) }
    }

    /// The replica on this node.
    pub fn here(&self) -> Option<&Group> {
        self.inner.here.as_ref()
    }

    /// Whether this node leads the group and may act on its state.
    pub fn is_serving(&self) -> bool {
        self.inner.here.as_ref().is_some_and(|group| group.leadership().borrow().serving)
    }

    /// Who leads it as far as this node knows; without a replica here a guess.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.inner.here {
            Some(group) => group.leadership().borrow().leader,
            None => Some(*self.inner.hint.lock()),
        }
    }

    /// The channel to another node's raft port.
    fn channel(&self, node: NodeId) -> Option<Channel> {
        self.inner.channels.channel(node).filter(|_| node != self.inner.local.node)
    }

    /// After `node` has refused or not answered: asks who it named, else the next member.
    fn look_elsewhere(&self, node: NodeId, named: u32) {
        let voters = self.inner.members.voters();
        let mut hint = self.inner.hint.lock();
        if *hint != node {
            return;
        }
        *hint = match NodeId(named) {
            named if named != node && voters.contains(&named) => named,
            _ => *voters
                .range((std::ops::Bound::Excluded(node), std::ops::Bound::Unbounded))
                .next()
                .unwrap_or_else(|| voters.first().expect("a group has a voter")),
        };
    }

    /// Hands `body` to the owner of the group at its leader. Ends early when this node learns of another leader: the
    /// answer is then not worth waiting for.
    ///
    /// # Errors
    /// `NoLeader` promises that nothing was sent.
    pub async fn forward(&self, body: Bytes, deadline: Duration) -> Result<Forwarded, ForwardError> {
        let Some(node) = self.leader().filter(|node| *node != self.inner.local.node) else {
            return Err(ForwardError::NoLeader);
        };
        let channel = self.channel(node).ok_or(ForwardError::NoLeader)?;
        let request = ForwardRequest { caller: self.inner.local.caller(), group: self.inner.group.0, to: node.0, body };
        let mut client = raft_client(channel);
        let exchange = call(deadline, request, |request| async move { client.forward(request).await });
        let answer = tokio::select! {
            answer = exchange => answer,
            () = self.deposed(node) => Err(Status::aborted("another node leads now")),
        };
        match answer {
            Ok(reply) => Ok(Forwarded { body: reply.body, index: reply.index }),
            Err(status) => {
                self.look_elsewhere(node, 0);
                Err(ForwardError::Unknown { node, reason: status.message().to_owned() })
            }
        }
    }

    /// After an owner's refusal that named another leader, or none.
    pub fn refused_by_leader(&self, named: Option<NodeId>) {
        if self.inner.here.is_none() {
            let asked = *self.inner.hint.lock();
            self.look_elsewhere(asked, named.map_or(0, |node| node.0));
        }
    }

    /// Returns when this node learns that `node` leads no more; never without a replica here.
    async fn deposed(&self, node: NodeId) {
        match &self.inner.here {
            Some(group) => {
                let mut leadership = group.leadership();
                let _ = leadership.wait_for(|now| now.leader != Some(node)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Returns once the replica here has applied `index`.
    ///
    /// # Errors
    /// `Unconfirmed` past the deadline, `Stopped`.
    pub async fn applied(&self, index: u64, deadline: Duration) -> Result<(), ReadError> {
        let Some(group) = &self.inner.here else { return Ok(()) };
        let mut applied = group.applied();
        match tokio::time::timeout(deadline, applied.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Unconfirmed { reason: format!("entry {index} has not arrived here") }),
        }
    }

    /// A state with everything that was acknowledged before the call, through elections until `deadline`.
    ///
    /// # Errors
    /// The last reason when none was had in time.
    pub async fn read(&self, deadline: Duration) -> Result<ReadView, ReadError> {
        let until = Instant::now() + deadline;
        loop {
            let error = match self.try_read(until).await {
                Ok(view) => return Ok(view),
                Err(ReadError::Stopped) => return Err(ReadError::Stopped),
                Err(error) => error,
            };
            if Instant::now() + LEADER_PAUSE >= until {
                return Err(error);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    async fn try_read(&self, until: Instant) -> Result<ReadView, ReadError> {
        let Some(group) = &self.inner.here else { return self.open_view().await.map(ReadView::There) };
        if let Some(view) = self.view_of_one(group) {
            return Ok(ReadView::Here(view));
        }
        if self.inner.members.voters().len() == 1 && self.is_serving() {
            group.read_index().await?;
            return Ok(ReadView::Here(group.view()));
        }
        let index = self.shared_read_index(group).await?;
        self.applied(index, until.saturating_duration_since(Instant::now())).await?;
        Ok(ReadView::Here(group.view()))
    }

    /// What a group of this node alone has applied, while it leads: linearizable without asking anybody. Nobody can take
    /// the lead from it, so it needs no lease; it answers a proposal only when its effect is visible here; and nobody else
    /// applies its log, so that no reader elsewhere can have seen what is committed and not yet applied. A learner could
    /// have: with one, reads take an index.
    fn view_of_one(&self, group: &Group) -> Option<GroupView> {
        let members = &self.inner.members;
        if members.voters().len() != 1 || !members.learners().is_empty() {
            return None;
        }
        let view = self.is_serving().then(|| group.view());
        view.filter(|_| self.is_serving()) // a group that stopped meanwhile answers nothing
    }

    /// One question to the leader at a time: whoever arrives meanwhile is served by the next one.
    async fn shared_read_index(&self, group: &Group) -> Result<u64, ReadError> {
        let ticket = self.inner.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let mut confirmed = self.inner.confirmed.lock().await;
        if confirmed.through >= ticket {
            return Ok(confirmed.index);
        }
        let through = self.inner.arrived.load(Ordering::Acquire);
        let index = if self.is_serving() {
            let asked = tokio::time::timeout(READ_INDEX_DEADLINE, group.leader_read_index()).await;
            asked.unwrap_or(Err(ReadError::NoQuorum))?
        } else {
            self.remote_read_index(group.leadership()).await?
        };
        *confirmed = Confirmed { through, index };
        Ok(index)
    }

    async fn remote_read_index(&self, leadership: watch::Receiver<Leadership>) -> Result<u64, ReadError> {
        let leader = leadership.borrow().leader.filter(|node| *node != self.inner.local.node);
        let node = leader.ok_or(ReadError::NotLeader { leader: None })?;
        let mut client = self.channel(node).map(raft_client).ok_or(ReadError::NotLeader { leader: None })?;
        let exchange =
            call(READ_INDEX_DEADLINE, self.request(node), |request| async move { client.read_index(request).await });
        let answer = tokio::select! {
            answer = exchange => answer,
            () = self.deposed(node) => return Err(ReadError::NotLeader { leader: None }),
        };
        let reply = answer.map_err(|status| ReadError::Unconfirmed { reason: status.message().to_owned() })?;
        check(reply.refusal(), reply.leader)?;
        Ok(reply.index)
    }

    async fn open_view(&self) -> Result<RemoteView, ReadError> {
        let node = *self.inner.hint.lock();
        let channel = self.channel(node).ok_or(ReadError::NotLeader { leader: None })?;
        let mut client = raft_client(channel.clone());
        let exchange =
            call(READ_INDEX_DEADLINE, self.request(node), |request| async move { client.open_view(request).await });
        let reply = exchange.await.map_err(|status| {
            self.look_elsewhere(node, 0);
            ReadError::Unconfirmed { reason: status.message().to_owned() }
        })?;
        check(reply.refusal(), reply.leader).inspect_err(|_| self.look_elsewhere(node, reply.leader))?;
        Ok(RemoteView::new(self.inner.local, channel, node, reply.view))
    }

    fn request(&self, node: NodeId) -> GroupRequest {
        GroupRequest { caller: self.inner.local.caller(), group: self.inner.group.0, to: node.0 }
    }
}

fn check(refusal: GroupRefusal, leader: u32) -> Result<(), ReadError> {
    match refusal {
        GroupRefusal::None => Ok(()),
        GroupRefusal::NotLeader => Err(ReadError::NotLeader { leader: (leader > 0).then_some(NodeId(leader)) }),
        GroupRefusal::NoQuorum => Err(ReadError::NoQuorum),
        // Stopped over there: another node will lead.
        GroupRefusal::Stopped => Err(ReadError::NotLeader { leader: None }),
    }
}
