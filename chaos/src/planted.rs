//! Mistakes that a run can be told to make, so that the checkers are themselves checked: in the shipped pure code, by its
//! own switches, or in the simulation's shells.
//!
//! Invariants: here is the only `Plant` but `Sound` (docs/adr/0015); a mistake of the shells is a plausible shortcut of
//! a shell and touches nothing of the shipped crates.

use meridian_types::{Plant, Planted};

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// In the shipped code, at the line that its name stands for.
    Core(Planted),
    Shell(ShellMistake),
}

/// One mistake of the simulation's shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellMistake {
    /// A mutation is acknowledged when it is proposed.
    AcknowledgeBeforeSync,
    /// A mutation is stamped without its chunks' stamps being observed (rule 13).
    ChunkStampNotObserved,
    /// A closed timestamp is told to peers without being committed (rule 9).
    UncommittedClosedTold,
    /// A proposal of unknown outcome is retried under a new request id (rule 11).
    FreshRequestOnRetry,
    /// A session is let in when one partition has what it has seen (rule 21).
    SessionWaitsForOnePartition,
    /// Mirrors report what they have written and not yet synced.
    MirrorCountsUnsynced,
}

impl ShellMistake {
    const ALL: [ShellMistake; 6] = [
        ShellMistake::AcknowledgeBeforeSync,
        ShellMistake::ChunkStampNotObserved,
        ShellMistake::UncommittedClosedTold,
        ShellMistake::FreshRequestOnRetry,
        ShellMistake::SessionWaitsForOnePartition,
        ShellMistake::MirrorCountsUnsynced,
    ];
}

impl PlantedBug {
    /// Every mistake: those of the shipped code first.
    pub fn all() -> impl Iterator<Item = PlantedBug> {
        let core = Planted::ALL.into_iter().map(PlantedBug::Core);
        core.chain(ShellMistake::ALL.into_iter().map(PlantedBug::Shell))
    }
}

/// The plant of a run's shipped code: at most one mistake.
#[derive(Debug, Clone, Copy)]
pub struct Sown(pub Option<Planted>);

impl Sown {
    pub fn new(bug: Option<PlantedBug>) -> Self {
        match bug {
            Some(PlantedBug::Core(planted)) => Self(Some(planted)),
            Some(PlantedBug::Shell(_)) | None => Self(None),
        }
    }
}

impl Plant for Sown {
    fn has(self, planted: Planted) -> bool {
        self.0 == Some(planted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_stands_in_the_table() {
        let table = include_str!("../README.md");
        for bug in PlantedBug::all() {
            let name = match bug {
                PlantedBug::Core(planted) => format!("`{planted:?}`"),
                PlantedBug::Shell(mistake) => format!("`{mistake:?}`"),
            };
            assert!(table.contains(&name), "{name} is not in chaos/README.md");
        }
    }
}
