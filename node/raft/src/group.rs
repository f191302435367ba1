//! One raft group on this node, as its users see it.
//!
//! Invariants: proposals enter the log in the order of the `propose` calls; an answer means committed and applied here;
//! an unknown outcome is said to be unknown (rule 11).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use meridian_store::{GroupId, GroupView, Store};
use meridian_types::NodeId;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError as OpenraftError};
use openraft::raft::ClientWriteResult;
use tokio::sync::{oneshot, watch};

use crate::error::{ProposeError, ReadError};
use crate::leadership::Leadership;
use crate::types::{Command, Raft, Reply, TypeConfig};

/// One raft group on this node. Cheap to clone. It keeps the store open: drop it when the host shuts down.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    raft: Raft,
    store: Store,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<u64>,
}

impl Group {
    pub(crate) fn new(
        id: GroupId,
        raft: Raft,
        store: Store,
        leadership: watch::Receiver<Leadership>,
        applied: watch::Receiver<u64>,
    ) -> Self {
        Self { inner: Arc::new(Inner { id, raft, store, leadership, applied }) }
    }

    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Proposes a command for the group's machine. The order of calls is the order in the log; nothing waits here.
    pub fn propose(&self, command: Bytes) -> ProposalReceiver {
        let (reply, receiver) = Reply::channel();
        let send = self.inner.raft.client_write_ff(Command(command), Some(reply));
        // The queue takes it at once or is full: the future never waits for anything else. Without `unconstrained` a
        // task that has used up its budget would see a full queue.
        let state = match tokio::task::coop::unconstrained(send).now_or_never() {
            Some(Ok(())) => State::Waiting(receiver),
            Some(Err(_)) => State::Refused(ProposeError::Stopped),
            None if self.is_running() => State::Refused(ProposeError::Busy),
            None => State::Refused(ProposeError::Stopped),
        };
        ProposalReceiver { state }
    }

    fn is_running(&self) -> bool {
        self.inner.raft.metrics().borrow_watched().running_state.is_ok()
    }

    /// Returns once everything that was committed before this call is visible in `view()`.
    ///
    /// # Errors
    /// `NotLeader` with the node to ask instead; `NoQuorum` after the longest election time.
    pub async fn read_index(&self) -> Result<(), ReadError> {
        linearizable(&self.inner.raft).await
    }

    /// Confirms that this node leads, and returns the index that a replica must have applied to be read: everything that
    /// was committed before this call lies at or below it.
    ///
    /// # Errors
    /// As `read_index`.
    pub async fn leader_read_index(&self) -> Result<u64, ReadError> {
        confirm(&self.inner.raft).await
    }

    /// Why nothing is made durable on this node any more (rule 6), if so: it takes no proposal and answers for no state.
    pub fn disk_failure(&self) -> Option<String> {
        self.inner.store.check().err().map(|error| error.to_string())
    }

    /// The applied state as of now; linearizable only after `read_index`.
    pub fn view(&self) -> GroupView {
        self.inner.store.view(self.inner.id)
    }

    /// Who leads. The value is there at once; after the group has stopped it names nobody.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The index of the last applied log entry; 0 before the first.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.clone()
    }
}

/// Waits until everything that was committed before the call is applied here.
pub(crate) async fn linearizable(raft: &Raft) -> Result<(), ReadError> {
    raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map(drop).map_err(read_error)
}

/// The index that a read which arrives now must have applied.
pub(crate) async fn confirm(raft: &Raft) -> Result<u64, ReadError> {
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(read_error)?;
    Ok(linearizer.read_log_id().log_id().index)
}

fn read_error(error: OpenraftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> ReadError {
    match error {
        OpenraftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            ReadError::NotLeader { leader: leader(&forward) }
        }
        OpenraftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadError::NoQuorum,
        OpenraftError::Fatal(_) => ReadError::Stopped,
    }
}

fn leader(forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    forward.leader_id.and_then(|id| u32::try_from(id).ok()).map(NodeId)
}

enum State {
    Waiting(oneshot::Receiver<ClientWriteResult<TypeConfig>>),
    Refused(ProposeError),
}

/// The outcome of a proposal: the machine's answer once it is committed and applied here. Dropping it does not take
/// the proposal back.
pub struct ProposalReceiver {
    state: State,
}

impl Future for ProposalReceiver {
    type Output = Result<Bytes, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = match &mut self.state {
            State::Waiting(receiver) => receiver,
            State::Refused(error) => return Poll::Ready(Err(error.clone())),
        };
        Poll::Ready(match ready!(Pin::new(receiver).poll(context)) {
            Ok(Ok(response)) => Ok(response.data.0),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: leader(&forward) })
            }
            // Discarded for another leader's log: it may still commit through that one. No answer at all: the group
            // stopped with the proposal in its hands.
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        })
    }
}
