//! Runs the simulation over many seeds: `SEEDS=n` of them (500 by default), or the one that `SEED=k` names.
//!
//! Invariant: a run over many seeds passes only if every fault struck and every checker looked at something.

use meridian_chaos::{Failure, Options, PlantedBug, Report, Tally, run_seed};

const SEEDS_DEFAULT: u64 = 500;
/// Every so many seeds one is run twice.
const REPEATED_EVERY: u64 = 50;
/// With fewer seeds than this a fault may well have been drawn never.
const SEEDS_FOR_EVERYTHING: u64 = 50;
/// Within so many seeds each planted bug is found.
const SEEDS_FOR_A_BUG: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn must(outcome: Result<Report, Failure>) -> Report {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn short_run() {
    let (single, seeds) = (number("SEED"), number("SEEDS").unwrap_or(SEEDS_DEFAULT));
    let started = std::time::Instant::now();
    let mut tally = Tally::default();
    let mut healing_ms_max = 0;
    let range = single.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in range.clone() {
        let report = must(run_seed(seed, Options::default()));
        if single.is_some() || seed % REPEATED_EVERY == 0 {
            let again = must(run_seed(seed, Options::default()));
            assert_eq!(again.trace, report.trace, "seed {seed} does not decide everything");
        }
        healing_ms_max = healing_ms_max.max(report.healing_ms);
        tally.absorb(&report.tally);
    }
    println!("{tally}");
    let count = range.count();
    println!(
        "{count} seeds in {:.1?}; everything everywhere {healing_ms_max} ms after heal at the latest",
        started.elapsed()
    );
    let zeros = tally.zeros();
    assert!(single.is_some() || seeds < SEEDS_FOR_EVERYTHING || zeros.is_empty(), "never in {count} seeds: {zeros:?}");
}

#[test]
fn every_planted_bug_is_caught() {
    for bug in PlantedBug::all() {
        let options = Options { bug: Some(bug), ..Options::default() };
        let found = (0..SEEDS_FOR_A_BUG).find_map(|seed| run_seed(seed, options.clone()).err());
        let failure = found.unwrap_or_else(|| panic!("{bug:?} passes {SEEDS_FOR_A_BUG} seeds"));
        println!("{bug:?}: seed {} at {} ms: {:.200}", failure.seed, failure.at_ms, failure.what);
        must(run_seed(failure.seed, Options::default())); // it is the bug that was caught
    }
}

/// More proposals than one command takes waited for a leader, and the simulation's own shell forgot the rest of them.
#[test]
fn proposals_that_pile_up_while_nobody_leads_are_all_answered() {
    must(run_seed(389, Options::default()));
}
