//! The proposer of a group: stamps, proposes, and hands each outcome on; the simulation's counterpart of `node/meta`.
//! Elections and closing stand in `elections`.
//!
//! Invariants: stamps are taken in the order of the log, unless a fault turns two around; chunk stamps are observed
//! before a mutation is stamped, remote stamps before their batch is proposed (rules 9, 13); a refused stamp is replaced
//! by a greater one.

use meridian_index::{Command, Outcome, Proposal, RemoteOutcome, Response, queries};
use meridian_replicator::{Batch, ClockError, Event as StreamEvent, LogEntry};
use meridian_types::{Stamp, Timestamp};

use crate::datacenter::Place;
use crate::group::{Carries, Flying, Request, Slot};
use crate::planted::ShellMistake;
use crate::world::{Event, World};
use crate::{Checked, Violation};

/// Most proposals in one command.
const PROPOSALS_IN_COMMAND_MAX: usize = 8;
/// How often two waiting proposals are proposed against the order of their stamps, in a thousand.
const OUT_OF_ORDER_PER_MILLE: u64 = 150;

impl World {
    pub fn submit(&mut self, place: Place, request: Request) {
        self.group(place).queue.push_back(request);
        let after_ms = self.rng.below(3);
        self.schedule(after_ms, Event::Pump { place });
    }

    /// A stamp of a node's guard.
    pub fn node_stamp(&mut self, datacenter: usize, node: usize) -> Result<Timestamp, ClockError> {
        let now_ms = self.now_ms;
        let subject = &mut self.datacenters[datacenter].nodes[node];
        let (stamped, wanted) = subject.stamp(now_ms);
        let life = subject.life;
        if wanted.is_some() {
            let after_ms = self.sync_ms(datacenter);
            self.schedule(after_ms, Event::BoundSynced { datacenter, node, life });
        }
        if matches!(stamped, Err(ClockError::WallClockJumped { .. } | ClockError::PeersDisagree { .. })) {
            self.tally.add("… stamps refused by a clock guard", 1);
        }
        stamped
    }

    /// Proposes what waits, while there is a leader whose clock lets it.
    pub fn pump(&mut self, place: Place) -> Checked {
        let Some(leader) = self.group(place).leader else { return Ok(()) };
        let mut flying = Vec::new();
        while flying.len() < PROPOSALS_IN_COMMAND_MAX {
            let Some(request) = self.group(place).queue.pop_front() else { break };
            if request.deadline_ms < self.now_ms {
                self.refused(request.operation_index);
                continue;
            }
            match self.stamp_request(place, leader, &request)? {
                Ok(stamp) => flying.push(Flying { request, stamp, awaited: true }),
                Err(ClockError::WaitForBound { wait_ms, .. } | ClockError::RestartWait { wait_ms, .. }) => {
                    self.group(place).queue.push_front(request);
                    self.schedule(wait_ms.max(2), Event::Pump { place });
                    break;
                }
                Err(_) => self.refused(request.operation_index),
            }
        }
        if flying.is_empty() {
            return Ok(());
        }
        if flying.len() > 1 && self.rng.chance(OUT_OF_ORDER_PER_MILLE) {
            flying.swap(0, 1);
            self.tally.add("shell: stamps proposed out of order", 1);
        }
        if self.has_bug(ShellMistake::AcknowledgeBeforeSync) {
            for proposal in &flying {
                self.acknowledge_early(proposal.request.operation_index, proposal.stamp);
            }
        }
        let proposal = |flying: &Flying| Proposal {
            request: flying.request.request,
            stamp: flying.stamp,
            operation: flying.request.operation.clone(),
        };
        let command = Command::Local(flying.iter().map(proposal).collect());
        self.append(place, &command, Carries::Local(flying));
        if !self.group(place).queue.is_empty() {
            self.schedule(1, Event::Pump { place }); // more waits than one command takes
        }
        Ok(())
    }

    fn stamp_request(&mut self, place: Place, leader: usize, request: &Request) -> Checked<Result<Stamp, ClockError>> {
        let is_observed = !self.has_bug(ShellMistake::ChunkStampNotObserved);
        let datacenter = &mut self.datacenters[place.datacenter];
        let id = datacenter.id;
        if is_observed {
            datacenter.nodes[leader].guard.observe(request.seen); // rule 13
        }
        let stamped = self.node_stamp(place.datacenter, leader);
        if let Ok(timestamp) = stamped {
            self.check_stamp(timestamp)?;
        }
        Ok(stamped.map(|timestamp| Stamp::new(timestamp, id)))
    }

    /// Puts a command into a group's log; it commits when a majority has synced it.
    pub fn append(&mut self, place: Place, command: &Command, carries: Carries) {
        let commit_at_ms = self.now_ms + self.sync_ms(place.datacenter);
        let group = self.group(place);
        let through = group.append(Slot { command: command.encode(), carries });
        group.commit_at_ms = group.commit_at_ms.max(commit_at_ms);
        let (term, commit_at_ms) = (group.term, group.commit_at_ms);
        self.schedule(commit_at_ms - self.now_ms, Event::Committed { place, term, through });
    }

    /// Proposes a pulled batch, or tells the stream why not.
    pub fn propose_remote(&mut self, place: Place, source: usize, number: u64, batch: Batch) -> Checked {
        let Some(leader) = self.group(place).leader else {
            return self.step_stream(
                place,
                source,
                StreamEvent::ApplyFailed { number, reason: "no leader".to_owned() },
            );
        };
        let decode = |bytes: &bytes::Bytes| LogEntry::decode(bytes);
        let entries: Vec<LogEntry> = batch.entries.iter().map(decode).collect::<Result<_, _>>().map_err(|error| {
            Violation::new("C3", format!("an entry of datacenter {source} does not decode: {error}"))
        })?;
        let (places, last) = (entries.iter().map(LogEntry::cursor).collect(), entries.last().map(|entry| entry.stamp));
        let now_ms = self.now_ms;
        let node = &mut self.datacenters[place.datacenter].nodes[leader];
        let wall = node.wall(now_ms);
        if let Some(stamp) = last
            && let Err(ClockError::Skewed { ahead_ms, .. }) = node.guard.observe_remote(wall, stamp.timestamp)
        {
            self.tally.add("… streams held for a clock", 1);
            return self.step_stream(place, source, StreamEvent::Skewed { number, ahead_ms });
        }
        let carries = Carries::Remote { source, number, places, last, wall, awaited: true };
        self.append(place, &Command::Remote(batch), carries);
        Ok(())
    }

    /// A majority has synced a group's log through an index.
    pub fn committed(&mut self, place: Place, term: u64, through: u64) -> Checked {
        if self.group(place).term != term {
            return Ok(());
        }
        self.apply_through(place, through)?;
        self.group(place).snapshot_if_due();
        self.answer_parked_pulls(place)
    }

    pub fn apply_through(&mut self, place: Place, through: u64) -> Checked {
        while let Some((carries, response)) = self.group(place).apply_next(through)? {
            match (carries, response) {
                (Carries::Local(flying), Response::Local(outcomes)) if flying.len() == outcomes.len() => {
                    for (proposal, outcome) in flying.into_iter().zip(outcomes) {
                        self.land(place, proposal, outcome)?;
                    }
                    self.check_log(place)?;
                }
                (Carries::Remote { source, number, places, last, wall, awaited }, Response::Remote(outcome)) => {
                    let event = match outcome {
                        RemoteOutcome::Applied(cursor) => {
                            self.check_remote_stamp(last, wall)?;
                            let keys = self.oracle.merge(place.datacenter, place.group, source, &places)?;
                            self.check_rows(place.datacenter, &keys)?;
                            StreamEvent::Applied { number, cursor }
                        }
                        RemoteOutcome::Ignored(cursor) => StreamEvent::Applied { number, cursor },
                        RemoteOutcome::Rejected { reason, .. } => StreamEvent::Rejected { number, reason },
                    };
                    if awaited {
                        self.step_stream(place, source, event)?;
                    }
                }
                (Carries::Fence { job }, Response::Done) => self.fence_applied(place, job)?,
                (Carries::Nothing, Response::Closed(_) | Response::Done) => {}
                (Carries::Nothing, Response::Stable { .. }) => self.check_reclaimable(place)?,
                (carries, response) => {
                    return Err(Violation::new("C2", format!("{carries:?} was answered with {response:?}")));
                }
            }
        }
        Ok(())
    }

    /// The outcome of one proposal.
    fn land(&mut self, place: Place, flying: Flying, outcome: Outcome) -> Checked {
        let Flying { request, stamp, awaited } = flying;
        if let Outcome::Restamp { above } = outcome {
            self.tally.add("… proposals restamped", 1);
            if stamp.timestamp > above {
                return Err(Violation::new("C11", format!("{stamp} is refused though it is above {above}")));
            }
            if let (true, Some(leader)) = (awaited, self.group(place).leader) {
                self.datacenters[place.datacenter].nodes[leader].guard.observe(above);
                self.group(place).queue.push_front(request);
                self.schedule(1, Event::Pump { place });
            }
            return Ok(());
        }
        let outcomes = &mut self.oracle.datacenters[place.datacenter].groups[place.group].outcomes;
        match outcomes.get(&request.request) {
            Some(before) => {
                self.tally.add("… requests answered from memory", 1);
                if *before != outcome {
                    let what = format!("a retry was answered with {outcome:?}, its first try with {before:?}");
                    return Err(Violation::new("C2 (rule 11)", what));
                }
            }
            None => {
                outcomes.insert(request.request, outcome.clone());
                self.record_commit(place, &request, stamp, &outcome)?;
            }
        }
        if awaited {
            self.finished(request.operation_index, &outcome);
        }
        Ok(())
    }

    pub fn state(&self, place: Place) -> Checked<meridian_index::PartitionState> {
        queries::state(&self.datacenters[place.datacenter].groups[place.group].kv).map_err(unreadable)
    }
}

pub fn unreadable(error: meridian_index::IndexError) -> Violation {
    Violation::new("C2", format!("a row can't be read: {error}"))
}
