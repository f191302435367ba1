//! One partition as its callers on this node see it: the queue of its proposer where this node leads it, and the way to
//! its leader everywhere else.
//!
//! Invariants: what this node does not lead is stamped and proposed by the leader, under the caller's request id; the queue is bounded in proposals and in bytes, and a full one refuses at once; a call that was handed
//! to the proposer and not answered in time has an unknown outcome (rule 11).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use meridian_index::{Command, FenceAttempt, Operation, Outcome, Response};
use meridian_raft::{
    ForwardError, ForwardHandler, Group, ReadError, ReadView, Route, decode_forwarded, encode_forwarded,
};
use meridian_types::limits::MUTATION_SIZE_MAX;
use meridian_types::{BucketId, PartitionId, RequestId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::MetaError;
use crate::proposer::{EntryCommand, Ticket, Waiting, Work};

/// Proposals that may wait for their partition.
pub(crate) const PROPOSALS_WAITING_MAX: usize = 4096;
/// Bytes of proposals that may wait for their partition or be in flight.
const PROPOSALS_SIZE_MAX: usize = 32 << 20;

/// The part of a call's time in which it must have got its stamp.
const STAMP_WAIT_SHARE: f32 = 0.75;

/// How long one attempt at the leader may take. A leader that is gone shall not use up the time in which the next one
/// could be asked.
const FORWARD_DEADLINE: Duration = Duration::from_millis(1500);

#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) partition: PartitionId,
    pub(crate) route: Route,
    /// Of the proposer here, if this node holds a replica.
    queue: Option<mpsc::Sender<Work>>,
    shares: Arc<Semaphore>,
    wait: Duration,
}

/// What is forwarded to the leader of a partition; numbered, so only ever added to at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    Local { request: RequestId, operation: Box<Operation>, seen: Timestamp },
    Close(Timestamp),
    Fence { bucket: BucketId, attempt: FenceAttempt, raised: bool },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Reply {
    Outcome(Outcome),
    Closed(Timestamp),
    Fenced,
}

impl Slot {
    /// `wait` bounds every call.
    pub(crate) fn new(partition: PartitionId, route: Route, queue: Option<mpsc::Sender<Work>>, wait: Duration) -> Self {
        Self { partition, route, queue, shares: Arc::new(Semaphore::new(PROPOSALS_SIZE_MAX)), wait }
    }

    /// The replica here.
    pub(crate) fn group(&self) -> Result<&Group, MetaError> {
        self.route.here().ok_or(MetaError::NotHere { partition: self.partition })
    }

    /// Rule 6, said at once: no proposal waits for a disk that will never answer.
    fn check_disk(&self) -> Result<(), MetaError> {
        let failure = self.route.here().and_then(Group::disk_failure);
        failure.map_or(Ok(()), |reason| Err(MetaError::DiskFailed { partition: self.partition, reason }))
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.route.is_serving()
    }

    /// Whether the leader is another node, as far as this one knows.
    fn is_led_elsewhere(&self) -> bool {
        match self.route.here() {
            None => true,
            Some(group) => {
                let leadership = *group.leadership().borrow();
                !leadership.serving && leadership.leader.is_some()
            }
        }
    }

    pub(crate) async fn propose(
        &self,
        request: RequestId,
        operation: Operation,
        seen: Timestamp,
    ) -> Result<Outcome, MetaError> {
        let partition = self.partition;
        let size = postcard::experimental::serialized_size(&operation).expect("our types serialise into memory");
        if size > MUTATION_SIZE_MAX {
            return Err(MetaError::TooLarge { partition, size, size_max: MUTATION_SIZE_MAX });
        }
        self.check_disk()?;
        if self.is_led_elsewhere() {
            let operation = Box::new(operation);
            return match self.forward(&Request::Local { request, operation, seen }).await? {
                Reply::Outcome(outcome) => Ok(outcome),
                other => Err(self.senseless("a proposal", &other)),
            };
        }
        self.propose_here(request, operation, seen, size).await
    }

    async fn propose_here(
        &self,
        request: RequestId,
        operation: Operation,
        seen: Timestamp,
        size: usize,
    ) -> Result<Outcome, MetaError> {
        let partition = self.partition;
        self.check_disk()?;
        let permits = u32::try_from(size).expect("at most MUTATION_SIZE_MAX");
        let share = self.shares.clone().try_acquire_many_owned(permits).map_err(|_| MetaError::Busy { partition })?;
        let (reply, answer) = oneshot::channel();
        // Stamped well before the caller gives up, so that a clock that refuses is heard as such.
        let ticket = Ticket { reply, deadline: Instant::now() + self.wait.mul_f32(STAMP_WAIT_SHARE), _share: share };
        self.enqueue(Work::Local(Box::new(Waiting { request, operation, seen, size, ticket })))?;
        self.await_answer(answer).await
    }

    pub(crate) async fn propose_entry(&self, command: EntryCommand) -> Result<Response, MetaError> {
        self.check_disk()?;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Entry { command, reply })?;
        self.await_answer(answer).await
    }

    pub(crate) async fn close(&self, at: Timestamp) -> Result<Timestamp, MetaError> {
        if self.is_led_elsewhere() {
            return match self.forward(&Request::Close(at)).await? {
                Reply::Closed(closed) => Ok(closed),
                other => Err(self.senseless("a close", &other)),
            };
        }
        self.close_here(at).await
    }

    pub(crate) async fn close_here(&self, at: Timestamp) -> Result<Timestamp, MetaError> {
        match self.propose_entry(EntryCommand::Close(at)).await? {
            Response::Closed(closed) => Ok(closed),
            other => Err(self.senseless("a close", &other)),
        }
    }

    pub(crate) async fn fence(&self, bucket: BucketId, attempt: FenceAttempt, raised: bool) -> Result<(), MetaError> {
        if self.is_led_elsewhere() {
            return match self.forward(&Request::Fence { bucket, attempt, raised }).await? {
                Reply::Fenced => Ok(()),
                other => Err(self.senseless("a fence", &other)),
            };
        }
        self.fence_here(bucket, attempt, raised).await
    }

    async fn fence_here(&self, bucket: BucketId, attempt: FenceAttempt, raised: bool) -> Result<(), MetaError> {
        match self.propose_entry(EntryCommand::Plain(Command::Fence { bucket, attempt, raised })).await? {
            Response::Done => Ok(()),
            other => Err(self.senseless("a fence", &other)),
        }
    }

    /// One attempt at the leader. What it refused was not proposed; what it did not answer may have been (rule 11).
    async fn forward(&self, request: &Request) -> Result<Reply, MetaError> {
        let partition = self.partition;
        let answer = self.route.forward(encode_forwarded(request), FORWARD_DEADLINE.min(self.wait)).await;
        let answer = answer.map_err(|error| match error {
            ForwardError::NoLeader => MetaError::NotLeader { partition, leader: None },
            ForwardError::Unknown { node, reason } => {
                tracing::debug!(%partition, %node, reason, "a forwarded request has no answer");
                MetaError::Unknown { partition }
            }
        })?;
        let reply = decode_forwarded::<Result<Reply, MetaError>>(&answer.body)
            .map_err(|reason| MetaError::Damaged { partition, reason })?;
        match &reply {
            Err(MetaError::NotLeader { leader, .. }) => self.route.refused_by_leader(*leader),
            // It leads no more, and another one soon will.
            Err(MetaError::DiskFailed { .. }) => {
                self.route.refused_by_leader(None);
                return Err(MetaError::NotLeader { partition, leader: None });
            }
            // Whoever was answered finds it in a view of this node as well.
            Ok(_) => {
                let _ = self.route.applied(answer.index, FORWARD_DEADLINE.min(self.wait)).await;
            }
            Err(_) => {}
        }
        reply
    }

    /// A linearizable view: of the replica here, or at the leader.
    pub(crate) async fn read(&self) -> Result<ReadView, MetaError> {
        let partition = self.partition;
        let unavailable = |reason: &str| MetaError::Unavailable { partition, reason: reason.to_owned() };
        self.check_disk()?; // before five seconds are waited for a group that has stopped
        match self.route.read(self.wait).await {
            Ok(view) => Ok(view),
            Err(ReadError::NotLeader { leader }) => Err(MetaError::NotLeader { partition, leader }),
            Err(ReadError::NoQuorum) => Err(unavailable("no quorum confirms its leader")),
            Err(ReadError::Unconfirmed { reason }) => Err(unavailable(&reason)),
            Err(ReadError::Stopped) => Err(MetaError::Stopped),
        }
    }

    pub(crate) fn senseless(&self, asked: &str, response: &impl std::fmt::Debug) -> MetaError {
        MetaError::Damaged { partition: self.partition, reason: format!("{asked} was answered with {response:?}") }
    }

    fn enqueue(&self, work: Work) -> Result<(), MetaError> {
        let queue = self.queue.as_ref().ok_or(MetaError::NotHere { partition: self.partition })?;
        queue.try_send(work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => MetaError::Busy { partition: self.partition },
            mpsc::error::TrySendError::Closed(_) => MetaError::Stopped,
        })
    }

    async fn await_answer<T>(&self, answer: oneshot::Receiver<Result<T, MetaError>>) -> Result<T, MetaError> {
        match tokio::time::timeout(self.wait, answer).await {
            Ok(Ok(answer)) => answer,
            // The proposer has stopped with the entry in flight, or has not answered in time: both may yet commit.
            Ok(Err(_)) | Err(_) => Err(MetaError::Unknown { partition: self.partition }),
        }
    }
}

/// Answers what other nodes forward to this one, which they take for the leader. Never forwards again: when it leads no
/// more it says who does.
#[async_trait]
impl ForwardHandler for Slot {
    async fn answer(&self, body: Bytes) -> Result<Bytes, String> {
        let reply = match decode_forwarded(&body)? {
            Request::Local { request, operation, seen } => {
                let size = body.len();
                self.propose_here(request, *operation, seen, size).await.map(Reply::Outcome)
            }
            Request::Close(at) => self.close_here(at).await.map(Reply::Closed),
            Request::Fence { bucket, attempt, raised } => {
                self.fence_here(bucket, attempt, raised).await.map(|()| Reply::Fenced)
            }
        };
        Ok(encode_forwarded(&reply))
    }
}
