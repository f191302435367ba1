//! One partition of this node as its callers see it: the group, and the queue of its proposer.
//!
//! Invariants: the queue is bounded in proposals and in bytes, and a full one refuses at once; a call that was handed
//! to the proposer and not answered in time has an unknown outcome (rule 11).

use std::sync::Arc;
use std::time::Duration;

use meridian_index::{Operation, Outcome, Response};
use meridian_raft::{Group, ReadError};
use meridian_store::GroupView;
use meridian_types::limits::MUTATION_SIZE_MAX;
use meridian_types::{PartitionId, RequestId, Timestamp};
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

#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) partition: PartitionId,
    pub(crate) group: Group,
    queue: mpsc::Sender<Work>,
    shares: Arc<Semaphore>,
    wait: Duration,
}

impl Slot {
    /// `wait` bounds every call.
    pub(crate) fn new(partition: PartitionId, group: Group, queue: mpsc::Sender<Work>, wait: Duration) -> Self {
        Self { partition, group, queue, shares: Arc::new(Semaphore::new(PROPOSALS_SIZE_MAX)), wait }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.group.leadership().borrow().serving
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
        let permits = u32::try_from(size).expect("at most MUTATION_SIZE_MAX");
        let share = self.shares.clone().try_acquire_many_owned(permits).map_err(|_| MetaError::Busy { partition })?;
        let (reply, answer) = oneshot::channel();
        // Stamped well before the caller gives up, so that a clock that refuses is heard as such.
        let ticket = Ticket { reply, deadline: Instant::now() + self.wait.mul_f32(STAMP_WAIT_SHARE), _share: share };
        self.enqueue(Work::Local(Box::new(Waiting { request, operation, seen, size, ticket })))?;
        self.await_answer(answer).await
    }

    pub(crate) async fn propose_entry(&self, command: EntryCommand) -> Result<Response, MetaError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Entry { command, reply })?;
        self.await_answer(answer).await
    }

    pub(crate) async fn close(&self, at: Timestamp) -> Result<Timestamp, MetaError> {
        match self.propose_entry(EntryCommand::Close(at)).await? {
            Response::Closed(closed) => Ok(closed),
            other => Err(self.senseless("a close", &other)),
        }
    }

    /// A linearizable view.
    pub(crate) async fn read(&self) -> Result<GroupView, MetaError> {
        let partition = self.partition;
        let unavailable = |reason: &str| MetaError::Unavailable { partition, reason: reason.to_owned() };
        match tokio::time::timeout(self.wait, self.group.read_index()).await {
            Ok(Ok(())) => Ok(self.group.view()),
            Ok(Err(ReadError::NotLeader { leader })) => Err(MetaError::NotLeader { partition, leader }),
            Ok(Err(ReadError::NoQuorum)) => Err(unavailable("no quorum confirms its leader")),
            Ok(Err(ReadError::Stopped)) => Err(MetaError::Stopped),
            Err(_) => Err(unavailable("its leader is not confirmed in time")),
        }
    }

    pub(crate) fn senseless(&self, asked: &str, response: &Response) -> MetaError {
        MetaError::Damaged { partition: self.partition, reason: format!("{asked} was answered with {response:?}") }
    }

    fn enqueue(&self, work: Work) -> Result<(), MetaError> {
        self.queue.try_send(work).map_err(|error| match error {
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
