//! How often each fault struck and each checker looked. A run in which one of them never did has proved less than it
//! says. Invariant: every name is listed here, so that a zero is seen.

use std::collections::BTreeMap;
use std::fmt;

/// What struck, and what it did.
pub const FAULTS: [&str; 39] = [
    "cut: symmetric",
    "cut: one-way",
    "cut: A-C only",
    "link: loss",
    "link: duplication",
    "link: reordering",
    "link: corruption",
    "crash: node",
    "crash: datacenter",
    "leader change",
    "clock: jump",
    "clock: skew beyond the limit",
    "disk: slow",
    "disk: restored",
    "disk: wiped",
    "volume: sealed under load",
    "member: added",
    "bucket delete against a remote PUT",
    "shell: stamps proposed out of order",
    "… messages cut off",
    "… messages lost",
    "… messages doubled",
    "… messages reordered",
    "… un-synced commands lost",
    "… un-synced commands survived",
    "… un-synced needles lost",
    "… stamps refused by a clock guard",
    "… proposals restamped",
    "… requests answered from memory",
    "… streams held for a clock",
    "… pulls refused after a restore",
    "… late answers fed to a stream",
    "… ranges parked",
    "… batches sent to a replica",
    "… replicas wiped",
    "… seals without a replica",
    "… seals undecided",
    "… bucket deletions given up",
    "… mutations refused by a fence",
];

/// Checkers, and operations that give them something to look at.
pub const CHECKS: [&str; 31] = [
    "C2 acknowledged <= winner, at the end",
    "C2 row is the greatest applied, each commit",
    "C2 condition decided as the oracle does",
    "C2 replay after a crash",
    "C2 a sealed length holds all that was committed (rule 1)",
    "C2 a sealed volume commits nothing late (rule 1)",
    "C2 what is committed is synced on every replica",
    "C3 equal fingerprints",
    "C4 nothing below a seen tombstone",
    "C5 a session sees what it has seen",
    "C5 a session's write beats what it has seen",
    "C7 LIST complete, no phantoms",
    "C8 progress after heal",
    "C8 acknowledged during a cut",
    "C11 stamp monotone and bounded",
    "C11 remote stamp within the skew",
    "C12 lost metadata above W_meta",
    "C12 lost bytes above W_data",
    "C12 watermarks only forward",
    "C12 reclaimable only past its successor's bytes",
    "C4 tombstones gone at stable time",
    "C4 a deleted bucket holds nothing (rule 18)",
    "conflicts are the concurrent losers",
    "… conflicts recorded",
    "rule 7 after a restore: refused or the same history",
    "… operations",
    "… operations acknowledged",
    "… looks of waiting sessions",
    "… sessions refused in time",
    "… sessions told of another's",
    "… multipart uploads completed",
];

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, name: &'static str, count: u64) {
        debug_assert!(FAULTS.contains(&name) || CHECKS.contains(&name), "{name} is not listed");
        *self.counts.entry(name).or_default() += count;
    }

    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    pub fn absorb(&mut self, other: &Tally) {
        for (name, count) in &other.counts {
            self.add(name, *count);
        }
    }

    /// What never happened.
    pub fn zeros(&self) -> Vec<&'static str> {
        FAULTS.iter().chain(&CHECKS).copied().filter(|name| self.count(name) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, names) in [("FAULT", &FAULTS[..]), ("CHECK", &CHECKS[..])] {
            writeln!(f, "{title:<54}{:>12}", "TIMES")?;
            for name in names {
                writeln!(f, "{name:<54}{:>12}", self.count(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut tally = Tally::default();
        assert_eq!(tally.zeros().len(), FAULTS.len() + CHECKS.len());
        tally.add("link: loss", 2);
        let mut sum = Tally::default();
        sum.absorb(&tally);
        sum.absorb(&tally);
        assert_eq!(sum.count("link: loss"), 4);
        assert!(!sum.zeros().contains(&"link: loss"));
    }
}
