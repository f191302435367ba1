//! The one task of a partition that stamps and proposes.
//!
//! What it is for: taking waiting work in order, stamping it, putting as many proposals as are waiting into one raft
//! entry, keeping several entries in flight, and answering each proposal with its own outcome. What it does not do:
//! retry what may have been committed; that is the caller's, under the same request id (rule 11).
//!
//! Invariants: stamps are taken in the order of `Group::propose` calls, which is the order of the log; chunk stamps are
//! observed before a mutation is stamped (rule 13), remote stamps before their batch is proposed (rule 9); nothing is
//! stamped while `Leadership::serving` is false, and after each election not before the clock has seen the partition's
//! greatest stamp (rule 9).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use meridian_env::{ClockError, HybridClock};
use meridian_index::{Command, Operation, Outcome, Proposal, Response, queries};
use meridian_raft::{Group, Leadership, ProposeError};
use meridian_replicator::{Batch, LogEntry};
use meridian_types::{DatacenterId, PartitionId, RequestId, Stamp, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::MetaError;
use crate::closing::stopped;

/// Most proposals in one raft entry.
pub(crate) const PROPOSALS_IN_ENTRY_MAX: usize = 256;
/// No further proposal joins an entry that would become larger than this, in bytes.
const ENTRY_SIZE_TARGET: usize = 1 << 20;
/// Entries proposed and not yet answered. While all are taken, work gathers and makes the next entry larger.
const ENTRIES_IN_FLIGHT_MAX: usize = 8;

/// What waits for a partition.
pub(crate) enum Work {
    Local(Box<Waiting>),
    /// An entry of its own.
    Entry {
        command: EntryCommand,
        reply: oneshot::Sender<Result<Response, MetaError>>,
    },
}

/// A proposal that waits for its stamp.
pub(crate) struct Waiting {
    pub(crate) request: RequestId,
    pub(crate) operation: Operation,
    /// The greatest stamp of its chunks.
    pub(crate) seen: Timestamp,
    /// Encoded, in bytes.
    pub(crate) size: usize,
    pub(crate) ticket: Ticket,
}

/// Who waits for a proposal, until when it may be stamped, and its share of the queue's bytes.
pub(crate) struct Ticket {
    pub(crate) reply: oneshot::Sender<Result<Outcome, MetaError>>,
    pub(crate) deadline: Instant,
    pub(crate) _share: OwnedSemaphorePermit,
}

/// What is proposed in an entry of its own.
pub(crate) enum EntryCommand {
    Remote(Batch),
    Close(Timestamp),
    /// Needs no stamp: a fence, stable times.
    Plain(Command),
}

/// An entry whose outcome is awaited.
enum Flight {
    Local(Vec<Flying>),
    Entry { reply: oneshot::Sender<Result<Response, MetaError>>, is_activity: bool },
}

/// A proposal in flight, with all that a restamp needs.
struct Flying {
    proposal: Proposal,
    seen: Timestamp,
    size: usize,
    ticket: Ticket,
}

type Landed = (Flight, Result<Bytes, ProposeError>);

pub(crate) struct Proposer {
    pub(crate) datacenter: DatacenterId,
    pub(crate) partition: PartitionId,
    pub(crate) group: Group,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) queue: mpsc::Receiver<Work>,
    /// Told after each applied mutation, so that the partitions are closed soon.
    pub(crate) activity: Arc<Notify>,
    pub(crate) stop: watch::Receiver<bool>,
    leadership: watch::Receiver<Leadership>,
    /// Taken from the queue but not proposed: what did not fit, and what must be stamped again.
    pushed_back: VecDeque<Work>,
    /// The term in which the clock has observed the partition's greatest stamp.
    term_observed: Option<u64>,
}

impl Proposer {
    pub(crate) fn new(
        datacenter: DatacenterId,
        partition: PartitionId,
        group: Group,
        clock: Arc<HybridClock>,
        queue: mpsc::Receiver<Work>,
        activity: Arc<Notify>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let leadership = group.leadership();
        Self {
            datacenter,
            partition,
            group,
            clock,
            queue,
            activity,
            stop,
            leadership,
            pushed_back: VecDeque::new(),
            term_observed: None,
        }
    }

    /// Runs until `stop` is set or every handle is gone. What waits is then refused; the callers of entries in flight
    /// are told that the outcome is unknown, which it is.
    pub(crate) async fn run(mut self) {
        self.propose_all().await;
        self.queue.close();
        while let Some(work) = self.pushed_back.pop_front().or_else(|| self.queue.try_recv().ok()) {
            match work {
                Work::Local(waiting) => waiting.ticket.refuse(MetaError::Stopped),
                Work::Entry { reply, .. } => {
                    let _ = reply.send(Err(MetaError::Stopped));
                }
            }
        }
    }

    async fn propose_all(&mut self) {
        let mut in_flight: FuturesOrdered<BoxFuture<'static, Landed>> = FuturesOrdered::new();
        let mut stop = self.stop.clone();
        loop {
            let has_room = in_flight.len() < ENTRIES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                Some((flight, answer)) = in_flight.next() => self.land(flight, answer),
                work = next_work(&mut self.pushed_back, &mut self.queue), if has_room => {
                    let Some(work) = work else { return };
                    if let Some(entry) = self.launch(work).await {
                        in_flight.push_back(entry);
                    }
                }
            }
        }
    }

    /// Stamps and proposes `work`, with what waits behind it when it is a proposal. `None`: all were refused.
    async fn launch(&mut self, work: Work) -> Option<BoxFuture<'static, Landed>> {
        match work {
            Work::Entry { command, reply } => self.launch_entry(command, reply),
            Work::Local(first) => {
                let batch = self.gather(first);
                if let Err(error) = self.check_serving() {
                    batch.into_iter().for_each(|waiting| waiting.ticket.refuse(error.clone()));
                    return None;
                }
                self.launch_local(batch).await
            }
        }
    }

    /// The proposals that go into one entry with `first`: only what waits now, so that none waits for another.
    fn gather(&mut self, first: Box<Waiting>) -> Vec<Waiting> {
        let (mut batch, mut size) = (Vec::new(), 0);
        let mut next = Some(Work::Local(first));
        while let Some(work) = next {
            match work {
                // Its caller has given up before it was stamped: it never happened.
                Work::Local(waiting) if waiting.ticket.reply.is_closed() => {}
                Work::Local(waiting) if batch.is_empty() || size + waiting.size <= ENTRY_SIZE_TARGET => {
                    size += waiting.size;
                    batch.push(*waiting);
                }
                other => {
                    self.pushed_back.push_front(other);
                    break;
                }
            }
            if batch.len() == PROPOSALS_IN_ENTRY_MAX {
                break;
            }
            next = self.pushed_back.pop_front().or_else(|| self.queue.try_recv().ok());
        }
        batch
    }

    async fn launch_local(&mut self, batch: Vec<Waiting>) -> Option<BoxFuture<'static, Landed>> {
        if let Some(seen) = batch.iter().map(|waiting| waiting.seen).max() {
            self.clock.observe(seen); // rule 13: before the mutations are stamped
        }
        let (mut proposals, mut rest) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for Waiting { request, operation, seen, size, ticket } in batch {
            match self.stamp(ticket.deadline).await {
                Ok(timestamp) => {
                    proposals.push(Proposal { request, stamp: Stamp::new(timestamp, self.datacenter), operation });
                    rest.push((seen, size, ticket));
                }
                Err(error) => ticket.refuse(error),
            }
        }
        if proposals.is_empty() {
            return None;
        }
        let command = Command::Local(proposals);
        let landing = self.group.propose(command.encode());
        let Command::Local(proposals) = command else { unreachable!("built above") };
        let flying = proposals.into_iter().zip(rest);
        let flying = flying.map(|(proposal, (seen, size, ticket))| Flying { proposal, seen, size, ticket });
        let flight = Flight::Local(flying.collect());
        Some(Box::pin(async move { (flight, landing.await) }))
    }

    fn launch_entry(
        &mut self,
        command: EntryCommand,
        reply: oneshot::Sender<Result<Response, MetaError>>,
    ) -> Option<BoxFuture<'static, Landed>> {
        if reply.is_closed() {
            return None;
        }
        let checked = self.check_serving().and_then(|()| self.observe_entry(&command));
        if let Err(error) = checked {
            let _ = reply.send(Err(error));
            return None;
        }
        let is_activity = matches!(&command, EntryCommand::Remote(batch) if !batch.entries.is_empty());
        let command = match command {
            EntryCommand::Remote(batch) => Command::Remote(batch),
            EntryCommand::Close(at) => Command::Close(at),
            EntryCommand::Plain(command) => command,
        };
        let landing = self.group.propose(command.encode());
        Some(Box::pin(async move { (Flight::Entry { reply, is_activity }, landing.await) }))
    }

    /// What the clock must know before the entry is proposed, so that no later stamp of ours is refused by `apply`.
    fn observe_entry(&self, command: &EntryCommand) -> Result<(), MetaError> {
        match command {
            EntryCommand::Close(at) => self.clock.observe(*at),
            EntryCommand::Remote(batch) => {
                // A closed timestamp is compared and not merged: an idle peer with a fast clock must neither be believed
                // nor drag ours along.
                self.clock.check_remote(batch.closed).map_err(|error| self.clock_error(error))?;
                // Stamps rise within a batch. An entry that does not decode is for `apply` to refuse: it merges nothing.
                let last = batch.entries.last().and_then(|entry| LogEntry::decode(entry).ok());
                if let Some(entry) = last {
                    self.clock.observe_remote(entry.stamp.timestamp).map_err(|error| self.clock_error(error))?;
                }
            }
            EntryCommand::Plain(_) => {}
        }
        Ok(())
    }

    /// Rule 9: this node leads, its own term's first entry is applied, and the clock knows what the partition holds.
    fn check_serving(&mut self) -> Result<(), MetaError> {
        let Leadership { leader, term, serving } = *self.leadership.borrow();
        if !serving {
            return Err(MetaError::NotLeader { partition: self.partition, leader });
        }
        if self.term_observed != Some(term) {
            let state = queries::state(&self.group.view())
                .map_err(|error| MetaError::Damaged { partition: self.partition, reason: error.to_string() })?;
            self.clock.observe(state.greatest);
            self.term_observed = Some(term);
        }
        Ok(())
    }

    async fn stamp(&self, deadline: Instant) -> Result<Timestamp, MetaError> {
        let stamped = match self.clock.next() {
            Err(ClockError::WaitForBound { .. } | ClockError::RestartWait { .. }) => {
                tokio::time::timeout_at(deadline, self.clock.next_waiting()).await.map_err(|_| MetaError::Clock {
                    partition: self.partition,
                    reason: "the clock waits for longer than the proposal may".to_owned(),
                })?
            }
            other => other,
        };
        stamped.map_err(|error| self.clock_error(error))
    }

    fn clock_error(&self, error: ClockError) -> MetaError {
        match error {
            ClockError::Skewed { ahead_ms, .. } => MetaError::Skewed { ahead_ms },
            other => MetaError::Clock { partition: self.partition, reason: other.to_string() },
        }
    }

    /// Answers everybody who waits for an entry.
    fn land(&mut self, flight: Flight, answer: Result<Bytes, ProposeError>) {
        let response = self.open(answer);
        match flight {
            Flight::Entry { reply, is_activity } => {
                if is_activity && response.is_ok() {
                    self.activity.notify_one();
                }
                let _ = reply.send(response);
            }
            Flight::Local(proposals) => match response {
                Ok(Response::Local(outcomes)) if outcomes.len() == proposals.len() => {
                    self.activity.notify_one();
                    self.land_local(proposals, outcomes);
                }
                Ok(other) => {
                    let reason = format!("{} proposals were answered with {other:?}", proposals.len());
                    tracing::error!(partition = %self.partition, reason, "a partition's answer makes no sense");
                    let error = MetaError::Damaged { partition: self.partition, reason };
                    proposals.into_iter().for_each(|flying| flying.ticket.refuse(error.clone()));
                }
                Err(error) => proposals.into_iter().for_each(|flying| flying.ticket.refuse(error.clone())),
            },
        }
    }

    fn land_local(&mut self, proposals: Vec<Flying>, outcomes: Vec<Outcome>) {
        let mut again = Vec::new();
        for (Flying { proposal, seen, size, ticket }, outcome) in proposals.into_iter().zip(outcomes) {
            match outcome {
                // Rule 9: `apply` has refused the stamp and done nothing; the same request gets a later one.
                Outcome::Restamp { above } if Instant::now() < ticket.deadline => {
                    self.clock.observe(above);
                    let Proposal { request, operation, .. } = proposal;
                    again.push(Work::Local(Box::new(Waiting { request, operation, seen, size, ticket })));
                }
                Outcome::Restamp { above } => ticket.refuse(MetaError::Clock {
                    partition: self.partition,
                    reason: format!("no stamp above {above} in time"),
                }),
                outcome => {
                    let _ = ticket.reply.send(Ok(outcome));
                }
            }
        }
        again.into_iter().rev().for_each(|work| self.pushed_back.push_front(work));
    }

    fn open(&self, answer: Result<Bytes, ProposeError>) -> Result<Response, MetaError> {
        let partition = self.partition;
        let bytes = answer.map_err(|error| match error {
            ProposeError::NotLeader { leader } => MetaError::NotLeader { partition, leader },
            ProposeError::Unknown => MetaError::Unknown { partition },
            ProposeError::Busy => MetaError::Busy { partition },
            ProposeError::Stopped => MetaError::Stopped,
        })?;
        Response::decode(&bytes).map_err(|error| MetaError::Damaged { partition, reason: error.to_string() })
    }
}

impl Ticket {
    fn refuse(self, error: MetaError) {
        let _ = self.reply.send(Err(error)); // nobody waits any more: then nobody needs the answer
    }
}

async fn next_work(pushed_back: &mut VecDeque<Work>, queue: &mut mpsc::Receiver<Work>) -> Option<Work> {
    match pushed_back.pop_front() {
        Some(work) => Some(work),
        None => queue.recv().await,
    }
}

#[cfg(test)]
mod tests;
