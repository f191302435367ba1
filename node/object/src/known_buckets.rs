//! The rows of buckets that requests asked for since this node last applied anything to the catalog.
//!
//! It spares each request a snapshot of the store and the decoding of a row, several times over. It does not decide how
//! recent a row must be: that is its caller's.
//!
//! Invariants: a row is handed out only under the number of applied entries that it was remembered at, so that a change
//! is seen as soon as it is applied here; at most `BUCKETS_MAX` rows are remembered.

use std::collections::HashMap;

use meridian_index::BucketRow;
use meridian_types::BucketName;
use parking_lot::RwLock;

/// Most buckets that are remembered; past it all are forgotten at once.
const BUCKETS_MAX: usize = 1024;

#[derive(Default)]
struct Known {
    /// Entries of the catalog that were applied when the rows were read.
    applied: u64,
    rows: HashMap<BucketName, BucketRow>,
}

#[derive(Default)]
pub(crate) struct KnownBuckets(RwLock<Known>);

impl KnownBuckets {
    /// The row as it is after `applied` entries, if it is remembered.
    pub(crate) fn get(&self, applied: u64, name: &BucketName) -> Option<BucketRow> {
        let known = self.0.read();
        if known.applied == applied { known.rows.get(name).cloned() } else { None }
    }

    /// Remembers a row that was read when at least `applied` entries were. One read a moment later may be more recent than
    /// that; never less.
    pub(crate) fn remember(&self, applied: u64, row: &BucketRow) {
        let mut known = self.0.write();
        if known.applied > applied {
            return; // a slow reader: others have gone on
        }
        if known.applied < applied || known.rows.len() >= BUCKETS_MAX {
            *known = Known { applied, rows: HashMap::new() };
        }
        known.rows.insert(row.name.clone(), row.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_index::{BucketSettings, BucketState};
    use meridian_types::{BucketId, DatacenterId, Stamp, Timestamp};

    fn row(name: &str, owner: &str) -> BucketRow {
        let name: BucketName = name.parse().unwrap();
        let stamp = Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap());
        BucketRow {
            id: BucketId::derive(&name, 0),
            name,
            deletions: 0,
            created: stamp,
            updated: stamp,
            owner: owner.to_owned(),
            state: BucketState::Active,
            settings: BucketSettings::default(),
            changes: Default::default(),
        }
    }

    #[test]
    fn a_row_is_known_until_the_catalog_goes_on() {
        let known = KnownBuckets::default();
        let (old, new) = (row("bucket", "ann"), row("bucket", "bob"));
        assert_eq!(known.get(7, &old.name), None);
        known.remember(7, &old);
        assert_eq!(known.get(7, &old.name).unwrap().owner, "ann");
        assert_eq!((known.get(8, &old.name), known.get(6, &old.name)), (None, None));
        known.remember(8, &new);
        known.remember(7, &old); // it was slow
        assert_eq!(known.get(8, &old.name).unwrap().owner, "bob");
        assert_eq!(known.get(7, &old.name), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = KnownBuckets::default();
        for number in 0..3 * BUCKETS_MAX {
            known.remember(1, &row(&format!("bucket-{number}"), "ann"));
            assert!(known.0.read().rows.len() <= BUCKETS_MAX);
        }
    }
}
