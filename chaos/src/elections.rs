//! Leaders that come and go, and timestamps that are closed while they stay.
//!
//! Invariants: a new leader commits what its predecessor left, and its clock observes the group's greatest stamp, before
//! it stamps anything (rule 9); an outcome that nobody can know is retried under the same request (rule 11); a closed
//! timestamp is committed before it is told.

use meridian_index::{Command, queries};
use meridian_replicator::{ClockError, Event as StreamEvent};

use crate::datacenter::Place;
use crate::group::Carries;
use crate::proposer::unreadable;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, NODES};

impl World {
    /// A group's leader is gone, by a crash or by a transfer; of what it had not committed any prefix may survive.
    pub fn lose_leader(&mut self, place: Place) -> Checked {
        let uncommitted = self.group(place).uncommitted();
        let kept = self.rng.index(uncommitted + 1);
        self.tally.add("… un-synced commands survived", kept as u64);
        self.tally.add("… un-synced commands lost", (uncommitted - kept) as u64);
        let group = self.group(place);
        group.term += 1;
        group.leader = None;
        group.commit_at_ms = 0;
        group.parked.clear();
        let mut unknown = Vec::new();
        for carries in group.cut_suffix(kept) {
            if let Carries::Local(flying) = carries {
                unknown.extend(flying.into_iter().filter(|flying| flying.awaited));
            }
        }
        let applied = group.applied;
        for slot in group.log.iter_mut().skip(applied) {
            match &mut slot.carries {
                Carries::Local(flying) => {
                    unknown.extend(flying.iter().filter(|flying| flying.awaited).cloned());
                    flying.iter_mut().for_each(|flying| flying.awaited = false);
                }
                Carries::Remote { awaited, .. } => *awaited = false,
                Carries::Fence { .. } | Carries::Nothing => {}
            }
        }
        if self.options.bug.is_none() {
            self.tally.add("C2 replay after a crash", 1);
            self.group(place).check_replay()?;
        }
        for flying in unknown {
            self.outcome_unknown(flying.request.operation_index);
        }
        for source in (0..DATACENTERS).filter(|source| *source != place.datacenter) {
            self.datacenters[place.datacenter].sources[source].lanes[place.group].call = None;
            self.step_stream(place, source, StreamEvent::LeadershipLost)?;
        }
        let (term, after_ms) = (self.group(place).term, self.rng.between(60, 400));
        self.schedule(after_ms, Event::Election { place, term });
        Ok(())
    }

    /// A node becomes the leader: it commits what its predecessor left, and only then serves (rule 9).
    pub fn elect(&mut self, place: Place, term: u64) -> Checked {
        let group = self.group(place);
        if group.term != term || group.leader.is_some() {
            return Ok(());
        }
        let preferred = self.rng.index(NODES);
        let Some(leader) = self.datacenters[place.datacenter].live_node(preferred) else { return Ok(()) };
        self.group(place).leader = Some(leader);
        self.apply_through(place, u64::MAX)?;
        let state = self.state(place)?;
        self.datacenters[place.datacenter].nodes[leader].guard.observe(state.greatest);
        let to = self.datacenters[place.datacenter].incarnation;
        if to > state.incarnation {
            self.append(place, &Command::RaiseIncarnation { to }, Carries::Nothing);
        }
        for source in (0..DATACENTERS).filter(|source| *source != place.datacenter) {
            let id = self.datacenters[source].id;
            let cursor = queries::cursor(&self.group(place).kv, id).map_err(unreadable)?;
            self.step_stream(place, source, StreamEvent::Started { cursor })?;
        }
        self.pump(place)
    }

    /// Closes groups, volumes and the registry, so that silence is not lag.
    pub fn close_tick(&mut self, datacenter: usize) {
        let after_ms = self.rng.between(900, 1500);
        self.schedule(after_ms, Event::CloseTick { datacenter });
        let preferred = self.rng.index(NODES);
        let closer = self.datacenters[datacenter].live_node(preferred);
        for node in 0..NODES {
            self.close(datacenter, node, closer == Some(node));
        }
    }

    /// Closes a node's volumes, and with `whole` the registry and all groups, at a stamp of its clock, for which it
    /// waits. Volumes only at their own node's stamps: after a restart its clock goes on above its own bound, which need
    /// not be above another node's stamp.
    pub fn close(&mut self, datacenter: usize, node: usize, whole: bool) {
        if !self.datacenters[datacenter].nodes[node].alive {
            return;
        }
        let at = match self.node_stamp(datacenter, node) {
            Ok(at) => at,
            Err(ClockError::WaitForBound { wait_ms, .. } | ClockError::RestartWait { wait_ms, .. }) => {
                self.schedule(wait_ms.max(2), Event::Close { datacenter, node, whole });
                return;
            }
            Err(_) => return, // at the next tick another clock may do
        };
        let registry = &mut self.datacenters[datacenter].registry;
        for volume in registry.volumes.values_mut().filter(|volume| !volume.sealed && volume.primary == node) {
            volume.close_through(at);
        }
        if !whole {
            return;
        }
        registry.closed = registry.closed.max(at);
        for group in 0..=self.partitions {
            let place = Place { datacenter, group };
            if let Some(leader) = self.group(place).leader {
                self.datacenters[datacenter].nodes[leader].guard.observe(at);
                self.append(place, &Command::Close(at), Carries::Nothing);
            }
        }
    }
}
