//! Positions in the replication log (rule 7): origin, incarnation, dense sequence, and the hash of the entry,
//! which covers the whole history before it. A cursor is the position that one datacenter has applied.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DatacenterId, Incarnation};

/// The number of an entry in its origin's log of one partition: dense, from 1. 0 is "nothing yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl Sequence {
    pub const ZERO: Sequence = Sequence(0);

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence({})", self.0)
    }
}

/// The hash of an entry chained over all before it: blake3(previous hash ‖ entry), cut to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EntryHash(pub [u8; 16]);

impl EntryHash {
    /// Before the first entry.
    pub const START: EntryHash = EntryHash([0; 16]);

    /// The hash of `entry` (its encoded bytes) after the history that ends in `self`.
    pub fn chain(self, entry: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(entry);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(hash)
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryHash({})", hex::encode(&self.0[..4]))
    }
}

/// A place in one partition's log of one origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    pub origin: DatacenterId,
    pub incarnation: Incarnation,
    pub sequence: Sequence,
    pub hash: EntryHash,
}

impl LogPosition {
    /// Before the first entry of an origin.
    pub const fn start(origin: DatacenterId) -> Self {
        Self { origin, incarnation: Incarnation(0), sequence: Sequence::ZERO, hash: EntryHash::START }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_the_whole_history() {
        let (a, b) = (EntryHash::START.chain(b"a"), EntryHash::START.chain(b"b"));
        assert_ne!(a.chain(b"c"), b.chain(b"c"));
        assert_eq!(hex::encode(a.0), "ef7ecf22756b7b803959fdf299b889f4");
    }
}
