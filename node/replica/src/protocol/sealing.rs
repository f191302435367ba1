//! How a volume is sealed: which length, by rule 1.
//!
//! Every replica first makes the new epoch durable and only then says how long it is (`Report`). When all have answered or
//! were given up, the length is decided: the smallest one among the complete replicas that answered. Whoever runs this then
//! makes the decision durable in the registry, and only then are replicas cut to it.
//!
//! Invariants:
//! - Only a report of the seal's own epoch counts; a replica without its file, or in the making, does not count at all.
//! - A length below any committed length that a replica or mirror knows of marks its replica failed, and is not believed.
//! - Without any complete replica nothing is decided: the volume stays *sealing*.

use std::collections::{BTreeMap, BTreeSet};

use meridian_types::{Epoch, NodeId, Plant, Planted, Sound};

/// What a replica answered to the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It recorded the epoch, nothing is in flight, and nothing that it ever acknowledged is missing.
    Report { epoch: Epoch, length: u64, committed: u64 },
    /// It is there and does not count: its file is missing or incomplete, or it can record nothing.
    Incomplete { reason: String },
    /// Nobody answered.
    Unreachable { reason: String },
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub length: u64,
    /// The replicas that have all of it, or more.
    pub complete: Vec<NodeId>,
    /// Those that answered and are not complete, with the reasons: their copies are to be made anew.
    pub failed: Vec<(NodeId, String)>,
    /// Those that did not answer: they are reconciled when they come back.
    pub silent: Vec<NodeId>,
}

/// Why the volume stays *sealing*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no complete replica of it has answered: {}", .reasons.join("; "))]
pub struct Undecided {
    pub reasons: Vec<String>,
}

/// One attempt to seal a volume.
#[derive(Debug, Clone)]
pub struct Sealing<P: Plant = Sound> {
    plant: P,
    epoch: Epoch,
    /// The greatest committed length that somebody else than the replicas knows of: a mirror, the registry.
    known_committed: u64,
    waiting: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Answer>,
}

impl Sealing {
    pub fn new(epoch: Epoch, replicas: impl IntoIterator<Item = NodeId>, known_committed: u64) -> Self {
        Self::planted(Sound, epoch, replicas, known_committed)
    }
}

impl<P: Plant> Sealing<P> {
    /// `new`, with mistakes for a simulation to find.
    pub fn planted(plant: P, epoch: Epoch, replicas: impl IntoIterator<Item = NodeId>, known_committed: u64) -> Self {
        Self { plant, epoch, known_committed, waiting: replicas.into_iter().collect(), answers: BTreeMap::new() }
    }

    /// The replicas that are still to be asked or to answer.
    pub fn waiting(&self) -> impl Iterator<Item = NodeId> {
        self.waiting.iter().copied()
    }

    pub fn answered(&mut self, node: NodeId, answer: Answer) {
        if self.waiting.remove(&node) {
            self.answers.insert(node, answer);
        }
    }

    /// The decision, by what has been answered: those who still wait are taken for unreachable.
    ///
    /// # Errors
    /// `Undecided` without a complete replica.
    pub fn decide(&self) -> Result<Decision, Undecided> {
        let mut decision =
            Decision { length: u64::MAX, complete: Vec::new(), failed: Vec::new(), silent: self.waiting().collect() };
        let mut known = self.known_committed;
        let mut reports = Vec::new();
        for (node, answer) in &self.answers {
            match answer {
                Answer::Report { epoch, length, committed } if *epoch == self.epoch => {
                    known = known.max(*committed);
                    reports.push((*node, *length));
                }
                Answer::Report { epoch, .. } => {
                    decision.failed.push((*node, format!("it is at epoch {epoch}, not {}", self.epoch)));
                }
                Answer::Incomplete { .. } if self.plant.has(Planted::WipedReplicaBelieved) => reports.push((*node, 0)),
                Answer::Incomplete { reason } => decision.failed.push((*node, reason.clone())),
                Answer::Unreachable { .. } => decision.silent.push(*node),
            }
        }
        for (node, length) in reports {
            // Rule 1: it was acknowledged by all replicas once, so this one has lost it.
            let known = if self.plant.has(Planted::WipedReplicaBelieved) { 0 } else { known };
            if length < known {
                decision.failed.push((node, format!("it has {length} bytes, and {known} were committed")));
            } else {
                decision.length = decision.length.min(length);
                decision.complete.push(node);
            }
        }
        if decision.complete.is_empty() {
            return Err(Undecided { reasons: self.reasons(&decision) });
        }
        Ok(decision)
    }

    fn reasons(&self, decision: &Decision) -> Vec<String> {
        let failed = decision.failed.iter().map(|(node, reason)| format!("node {}: {reason}", node.0));
        let silent = decision.silent.iter().map(|node| match self.answers.get(node) {
            Some(Answer::Unreachable { reason }) => format!("node {}: {reason}", node.0),
            _ => format!("node {}: no answer in time", node.0),
        });
        failed.chain(silent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: Epoch = Epoch(2);
    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn report(length: u64, committed: u64) -> Answer {
        Answer::Report { epoch: E, length, committed }
    }

    fn decide(answers: [Answer; 3], known: u64) -> Result<Decision, Undecided> {
        let mut sealing = Sealing::new(E, NODES, known);
        for (node, answer) in NODES.into_iter().zip(answers) {
            sealing.answered(node, answer);
        }
        sealing.decide()
    }

    fn gone() -> Answer {
        Answer::Incomplete { reason: "it has no file".to_owned() }
    }

    fn cut() -> Answer {
        Answer::Unreachable { reason: "connection refused".to_owned() }
    }

    #[test]
    fn the_smallest_complete_length_is_taken() {
        let decision = decide([report(300, 100), report(200, 100), report(250, 200)], 0).unwrap();
        assert_eq!((decision.length, decision.complete), (200, NODES.to_vec()));
    }

    #[test]
    fn a_wiped_replica_and_one_of_another_epoch_do_not_count() {
        let other = Answer::Report { epoch: Epoch(1), length: 100, committed: 100 };
        let decision = decide([gone(), other, report(250, 200)], 0).unwrap();
        assert_eq!((decision.length, decision.complete, decision.failed.len()), (250, vec![NodeId(3)], 2));
    }

    #[test]
    fn a_length_below_what_was_committed_is_not_believed() {
        let decision = decide([report(100, 100), report(300, 200), cut()], 0).unwrap();
        assert_eq!((decision.length, decision.complete), (300, vec![NodeId(2)]));
        assert_eq!((decision.failed[0].0, decision.silent), (NodeId(1), vec![NodeId(3)]));
        let decision = decide([report(100, 64), report(300, 64), cut()], 250).unwrap();
        assert_eq!(decision.length, 300, "a mirror knew better");
    }

    #[test]
    fn without_a_complete_replica_the_volume_stays_sealing() {
        let undecided = decide([gone(), cut(), report(100, 64)], 200).unwrap_err();
        assert_eq!(undecided.reasons.len(), 3);
        assert!(Sealing::new(E, NODES, 0).decide().is_err());
    }
}
