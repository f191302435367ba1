//! Cursors: how far one datacenter has durably applied another's log of a partition, and the vector of them that
//! each mutation carries, so that concurrency is read and never guessed from stamps (rule 16).
//!
//! Does not check that a step is allowed: that is `check_batch`. Invariants: a vector is sorted by datacenter and
//! names each above zero and at most once, also after decoding, so equal vectors have equal bytes; `advance` never
//! takes a cursor back.

use std::fmt;

use meridian_types::{DatacenterId, Incarnation, LogPosition, Sequence, Timestamp};
use serde::{Deserialize, Serialize};

/// A place in an origin's log without its hash, ordered by (incarnation, sequence). The default is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct OriginCursor {
    pub incarnation: Incarnation,
    pub sequence: Sequence,
}

impl OriginCursor {
    /// Before the first entry.
    pub const ZERO: OriginCursor = OriginCursor { incarnation: Incarnation(0), sequence: Sequence::ZERO };
}

impl fmt::Display for OriginCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incarnation, self.sequence)
    }
}

impl From<LogPosition> for OriginCursor {
    fn from(position: LogPosition) -> Self {
        Self { incarnation: position.incarnation, sequence: position.sequence }
    }
}

/// How far one partition has applied one origin's log. `applied_through` is the partition's share of W_meta:
/// everything that the origin stamped at or below it in this partition has been applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub position: LogPosition,
    pub applied_through: Timestamp,
}

impl Cursor {
    /// Before the first entry of an origin.
    pub const fn start(origin: DatacenterId) -> Self {
        Self { position: LogPosition::start(origin), applied_through: Timestamp::ZERO }
    }
}

/// A small sorted map from datacenter to what of its log had been applied. A datacenter that is not in it stands
/// at `OriginCursor::ZERO`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(DatacenterId, OriginCursor)>", into = "Vec<(DatacenterId, OriginCursor)>")]
pub struct CursorVector(Vec<(DatacenterId, OriginCursor)>);

/// Why decoded bytes are no cursor vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorVectorError {
    #[error("cursor vector: datacenter {after} stands behind datacenter {before}")]
    Order { before: DatacenterId, after: DatacenterId },
    #[error("cursor vector: datacenter {0} stands at zero")]
    Zero(DatacenterId),
}

impl CursorVector {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The cursor for `origin`, `OriginCursor::ZERO` when nothing of it has been applied.
    pub fn get(&self, origin: DatacenterId) -> OriginCursor {
        match self.find(origin) {
            Ok(found) => self.0[found].1,
            Err(_) => OriginCursor::ZERO,
        }
    }

    /// Raises the cursor for `origin` to `to`; returns false and changes nothing when it stands there or above.
    pub fn advance(&mut self, origin: DatacenterId, to: OriginCursor) -> bool {
        match self.find(origin) {
            Ok(found) if self.0[found].1 >= to => return false,
            Ok(found) => self.0[found].1 = to,
            Err(_) if to == OriginCursor::ZERO => return false, // zero and absent are the same vector: one form
            Err(place) => self.0.insert(place, (origin, to)),
        }
        true
    }

    /// All datacenters above zero, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (DatacenterId, OriginCursor)> + '_ {
        self.0.iter().copied()
    }

    /// How many datacenters stand above zero.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, origin: DatacenterId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&origin, |(datacenter, _)| *datacenter)
    }
}

impl FromIterator<(DatacenterId, OriginCursor)> for CursorVector {
    /// The greatest cursor of each datacenter.
    fn from_iter<I: IntoIterator<Item = (DatacenterId, OriginCursor)>>(cursors: I) -> Self {
        let mut vector = Self::new();
        for (origin, cursor) in cursors {
            vector.advance(origin, cursor);
        }
        vector
    }
}

impl TryFrom<Vec<(DatacenterId, OriginCursor)>> for CursorVector {
    type Error = CursorVectorError;

    fn try_from(cursors: Vec<(DatacenterId, OriginCursor)>) -> Result<Self, CursorVectorError> {
        for pair in cursors.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            if before >= after {
                return Err(CursorVectorError::Order { before, after });
            }
        }
        if let Some((datacenter, _)) = cursors.iter().find(|(_, cursor)| *cursor == OriginCursor::ZERO) {
            return Err(CursorVectorError::Zero(*datacenter));
        }
        Ok(Self(cursors))
    }
}

impl From<CursorVector> for Vec<(DatacenterId, OriginCursor)> {
    fn from(vector: CursorVector) -> Self {
        vector.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    fn at(incarnation: u32, sequence: u64) -> OriginCursor {
        OriginCursor { incarnation: Incarnation(incarnation), sequence: Sequence(sequence) }
    }

    #[test]
    fn an_incarnation_outranks_any_sequence() {
        assert!(at(2, 1) > at(1, 500) && at(1, 501) > at(1, 500));
        assert_eq!(at(2, 7).to_string(), "2/7");
    }

    #[test]
    fn a_vector_is_never_taken_back() {
        let mut vector = CursorVector::new();
        assert!(vector.advance(dc(3), at(1, 5)));
        assert!(!vector.advance(dc(3), at(1, 4)) && !vector.advance(dc(3), at(1, 5)));
        assert_eq!(vector.get(dc(3)), at(1, 5));
        assert!(vector.advance(dc(3), at(2, 1)));
        assert_eq!((vector.get(dc(3)), vector.get(dc(1)), vector.len()), (at(2, 1), OriginCursor::ZERO, 1));
        assert!(!vector.advance(dc(1), OriginCursor::ZERO));
        assert_eq!(vector.len(), 1);
    }

    #[test]
    fn bytes_out_of_order_or_doubled_are_no_vector() {
        let unordered = |ids: &[u8]| {
            let pairs: Vec<_> = ids.iter().map(|id| (dc(*id), at(1, 1))).collect();
            postcard::from_bytes::<CursorVector>(&postcard::to_stdvec(&pairs).unwrap())
        };
        assert!(unordered(&[1, 2, 3]).is_ok());
        assert!(unordered(&[2, 1]).is_err());
        assert!(unordered(&[1, 1]).is_err());
        let zero = postcard::to_stdvec(&vec![(dc(1), OriginCursor::ZERO)]).unwrap();
        assert!(postcard::from_bytes::<CursorVector>(&zero).is_err());
    }

    proptest! {
        #[test]
        fn a_vector_holds_the_greatest_cursor_of_each_and_round_trips(
            steps in prop::collection::vec((1u8..=254, 0u32..3, 0u64..9), 0..40),
        ) {
            let vector: CursorVector = steps.iter().map(|(id, inc, seq)| (dc(*id), at(*inc, *seq))).collect();
            for (id, ..) in &steps {
                let greatest = steps.iter().filter(|step| step.0 == *id).map(|step| at(step.1, step.2)).max();
                prop_assert_eq!(vector.get(dc(*id)), greatest.unwrap());
            }
            let reversed: CursorVector = steps.iter().rev().map(|(id, inc, seq)| (dc(*id), at(*inc, *seq))).collect();
            prop_assert_eq!(&reversed, &vector);
            let bytes = postcard::to_stdvec(&vector).unwrap();
            prop_assert_eq!(postcard::from_bytes::<CursorVector>(&bytes).unwrap(), vector);
        }
    }
}
