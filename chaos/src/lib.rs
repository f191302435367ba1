//! Faults: a deterministic simulation of a cluster, and [`link_proxy`] for tests of real processes.
//!
//! The simulation (`run_seed`) has three datacenters, each with the shipped state machines, streams, watermarks and clock
//! guards; around them are models of raft, volumes, disks, clocks and links that fail, and on top clients whose every
//! operation is recorded and checked. C2 to C12 name the checkers, as `Tally` prints them.
//!
//! ```text
//!   workload ─▶ proposer ─▶ group (meridian-index) ─▶ metadata lane (meridian-replicator) ─▶ group of a peer
//!         └───▶ volume ───────────────────────────▶ blob lane, DataWatermark ───────────▶ mirror of a peer
//!   faults ─▶ nodes, links, disks, clocks             oracle, checkers ◀─ every commit and every answer
//! ```
//!
//! It does not run the shells of `node/`: it has its own in their place, small enough to be read beside the rules. It
//! reads no clock, no file and no entropy (the proxy alone does); one thread, one event at a time.
//!
//! Invariants: a seed decides everything, so a failure can be run again; the oracle learns from proposals and answers
//! alone, never from the rows that it judges.

mod blob_lane;
mod bucket_deletion;
mod checkers;
mod datacenter;
mod delivery;
mod elections;
mod faults;
mod gateway;
mod group;
mod healing;
pub mod link_proxy;
mod metadata_lane;
mod network;
mod node;
mod oracle;
mod planted;
mod power;
mod proposer;
mod replicas;
mod rng;
mod run;
mod sealing;
mod session;
mod stable;
mod tally;
mod volume;
mod watermarks;
mod workload;
mod world;

pub use planted::{PlantedBug, ShellMistake};
pub use run::{Failure, Options, Report, run_seed};
pub use tally::Tally;

/// Datacenters of the simulated cluster.
const DATACENTERS: usize = 3;
/// Nodes of each.
const NODES: usize = 2;

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{checker}: {what}")]
struct Violation {
    checker: &'static str,
    what: String,
}

impl Violation {
    fn new(checker: &'static str, what: impl Into<String>) -> Self {
        Self { checker, what: what.into() }
    }
}

type Checked<T = ()> = Result<T, Violation>;
