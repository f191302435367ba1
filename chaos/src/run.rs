//! One run: a seed in, a report or a failure out.
//!
//! Invariants: equal seeds and options give equal traces; a run ends, because virtual time is bounded.

use std::fmt;

use crate::healing::LIVENESS_MS_MAX;
use crate::planted::PlantedBug;
use crate::tally::Tally;
use crate::world::World;
use crate::{Checked, Violation};

/// How long faults strike, in virtual milliseconds.
pub const SAFETY_MS: u64 = 12_000;

/// What each run holds at least.
pub const OPERATIONS_MIN: u64 = 200;
pub const FAULTS_MIN: u64 = 5;

/// What a run is made of, beside its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Partitions beside the catalog; drawn from 1 to 3 when not given.
    pub partitions: Option<usize>,
    /// How often in a thousand runs a datacenter's disks are restored.
    pub restore_per_mille: u64,
    /// How often in a thousand runs the third datacenter joins late.
    pub join_per_mille: u64,
    /// A mistake, in the shipped code or in the simulation's shells, for the checkers to find.
    pub bug: Option<PlantedBug>,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: None, restore_per_mille: 120, join_per_mille: 150, bug: None }
    }
}

/// A run in which nothing was found.
#[derive(Debug, Clone)]
pub struct Report {
    pub seed: u64,
    pub tally: Tally,
    /// A hash of all that happened.
    pub trace: u64,
    /// Virtual milliseconds from the end of the last fault until everything was everywhere.
    pub healing_ms: u64,
}

/// A run in which a checker found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub options: Options,
    pub at_ms: u64,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options, at_ms, what } = self;
        writeln!(f, "seed {seed} at {at_ms} ms, {options:?}: {what}")?;
        write!(f, "run it again: SEED={seed} cargo test -p meridian-chaos --test simulation short_run -- --nocapture")
    }
}

impl std::error::Error for Failure {}

/// Runs one seed.
///
/// # Errors
/// `Failure` with what the first checker found.
pub fn run_seed(seed: u64, options: Options) -> Result<Report, Failure> {
    let mut world = World::new(seed, options.clone());
    world.start_run();
    match drive(&mut world) {
        Ok(healing_ms) => Ok(Report { seed, tally: world.tally, trace: world.trace, healing_ms }),
        Err(violation) => Err(Failure { seed, options, at_ms: world.now_ms, what: violation.to_string() }),
    }
}

impl World {
    /// A run in which little happened proves little.
    fn check_substance(&self) -> Checked {
        let operations = self.tally.count("… operations");
        if operations < OPERATIONS_MIN || self.struck < FAULTS_MIN {
            let what = format!("only {operations} operations and {} faults in this run", self.struck);
            return Err(Violation::new("the run", what));
        }
        Ok(())
    }
}

fn drive(world: &mut World) -> Checked<u64> {
    while !world.converged {
        if world.now_ms > SAFETY_MS + LIVENESS_MS_MAX || !world.step()? {
            let running =
                world.operations.iter().filter(|operation| operation.state == crate::workload::State::Running);
            let (count, first) = (running.clone().count(), running.clone().next());
            let lag = world.lag(SAFETY_MS)?;
            let what = format!("after {LIVENESS_MS_MAX} ms without faults: {lag:?}, {count} operations run: {first:?}");
            return Err(Violation::new("C8", what));
        }
    }
    world.check_end()?;
    world.check_substance()?;
    Ok(world.now_ms - SAFETY_MS)
}
